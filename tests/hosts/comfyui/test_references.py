"""Prompts with a picture beside the text, in the running host: a list of pictures, and teaching after a restart."""

from __future__ import annotations

from d3po_core.run import Run

from .graphs import Graph, node, taste
from .host import Host

NAME = "edits"
GROUPS = 8


def references() -> Graph:
    """A sampler whose prompt comes twice, each time with another reference latent."""
    graph = taste(taste=NAME, groups=GROUPS, positive=["reference", 0])
    del graph["trainer"], graph["collector"]
    return {
        **graph,
        "two": node("EmptyLatentImage", width=48, height=64, batch_size=2),
        "pictures": node(
            "KSampler",
            **{"model": ["model", 0], "positive": ["positive", 0], "negative": ["negative", 0]},
            **{"latent_image": ["two", 0], "seed": 3, "steps": 1, "cfg": 1.0, "sampler_name": "euler"},
            **{"scheduler": "normal", "denoise": 1.0},
        ),
        "list": node("RebatchLatents", latents=["pictures", 0], batch_size=1),
        "reference": node("ReferenceLatent", conditioning=["positive", 0], latent=["list", 0]),
    }


def picked_and_taught() -> Graph:
    """Another graph, as after another day: what was drawn, a program that picks, and the trainer."""
    graph = taste()
    kept = {name: graph[name] for name in ("load", "model")}
    return {
        **kept,
        "run": node("D3PO_LoadPreferenceRun", taste=NAME),
        "pick": node("D3PO_AutoPick", trajectories=["run", 0], scorer="warmth"),
        "trainer": node(
            "D3PO_LoraTrainer",
            **{"model": ["model", 0], "trajectories": ["pick", 0], "taste": NAME},
            **{"train": "each time queued", "teaching": "normal", "judge": False, "epochs": 1},
        ),
    }


def test_each_picture_of_a_list_is_drawn_for_kept_and_taught_with(own: Host) -> None:
    own.run(references(), only=["sampler"])
    (found,) = [each for each in own.get("/d3po/tastes")["tastes"] if each["name"] == NAME]
    own.stop()
    (folder,) = [path.parent for path in (own.base / "output" / "d3po").rglob("manifest.json")]
    run = Run.open(folder)
    assert run.run_id == found["id"]
    texts = [prompt.text for prompt in run.prompts.all()]
    assert texts == ["a lake at dawn", "a lake at dawn (2)"]
    rows = [run.prompts.conditioning(prompt.id) for prompt in run.prompts.all()]
    (name,) = [name for name in rows[0] if "reference_latents" in name]
    first, second = (row[name] for row in rows)
    assert first.shape == second.shape == (1, 1, 4, 8, 6) and not first.equal(second)  # another size than the pictures
    drawn = [group.prompt for group in run.groups.select()]
    assert [drawn.count(text) for text in texts] == [GROUPS, GROUPS]
    del run
    own.start()
    outputs = own.run(picked_and_taught(), seconds=900)
    assert outputs["pick"]["text"] == [f"Picked in {2 * GROUPS} groups."]
    assert outputs["trainer"]["text"][0].startswith("Taught")
    assert list((own.base / "models" / "loras" / "d3po").glob(f"{NAME}*"))
