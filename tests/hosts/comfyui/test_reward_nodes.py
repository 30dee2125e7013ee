"""Rewards, DRaFT and existing pictures by the host's API."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open

from .graphs import Graph, model, node
from .host import Host, Refused
from .test_nodes import listed_taste, named, saved


def draft(name: str, **changes: Any) -> Graph:
    """A DRaFT trainer on a tiny model."""
    parts = {side: [side, 0] for side in ("model", "positive", "negative", "latent")}
    inputs = {
        **parts,
        **{"vae": ["load", 2], "reward": ["reward", 0], "taste": name, "train": "each time queued", "steps": 3},
        **{"guidance_scale": 3.0, "variant": "draft-lv", "updates": 3, "batch": 2, "rank": 4},
        **{"before_and_after": False},
    }
    return {
        **model(),
        "warm": node("D3PO_Reward", reward="warmth", weight=1.0),
        "reward": node("D3PO_Reward", reward="contrast", weight=0.5, plus=["warm", 0]),
        "draft": node("D3PO_DraftLoraTrainer", **{**inputs, **changes}),
    }


def files(host: Host, name: str) -> list[Path]:
    return sorted((host.base / "models" / "loras" / "d3po").glob(f"{name}*.safetensors"))


def test_a_reward_becomes_a_lora_and_a_taste(host: Host) -> None:
    graph = draft("warmer", before_and_after=True, prompts="a boat\n" + "a red boat on a lake, " * 12, clip=["load", 1])
    graph["named"] = node("PreviewAny", source=["draft", 3])
    outputs = host.run(graph)
    (text,) = outputs["draft"]["text"]
    assert text.startswith("Taught. Mean warmth + 0.5*contrast went from ")
    # Random weights hardly hear a prompt: how much of it is kept can be measured on some pictures only.
    assert "Drift from the original is " in text or "Prompt kept: " in text
    (file,) = files(host, "warmer")
    assert outputs["named"]["text"] == [f"d3po/{file.name}"]
    with safe_open(file, "pt") as lora:
        assert {lora.get_slice(key).get_shape()[0] for key in lora.keys() if "lora_down" in key} == {4}  # noqa: SIM118
    run = listed_taste(host, "warmer")["id"]
    state = host.get(f"/d3po/taste/{run}/state?client={'c' * 32}")
    assert state["rounds"][0]["finished"] and state["rounds"][0]["strip"] and state["blind"]["of"] == 12
    graph["compare"] = node(
        "D3PO_PreferenceCompare",
        **{"model": ["model", 0], "vae": ["load", 2], "taste": "warmer", "round": 0, "strength": 1.0},
        **{"prompts": 2, "seeds": 1},
    )
    graph["save"] = node("SaveImage", images=["compare", 0], filename_prefix="warmer")
    (grid,) = saved(host, host.run(graph, only=["save"]))  # of a taste in which nobody has picked
    assert grid.shape[:2] == (128, 136) and (grid[:, :64] != grid[:, -64:]).any()
    graph["draft"]["inputs"]["train"] = "not now"
    assert host.run(graph, only=["draft"])["draft"]["text"] == ["Not taught now."] and files(host, "warmer") == [file]


def test_a_stopped_round_goes_on_or_is_finished(host: Host) -> None:
    graph = draft("stopped", updates=400, watch=1, drift_limit=0.0)
    prompt = host.queue(graph)
    while not any(each["name"] == "stopped" for each in host.get("/d3po/tastes")["tastes"]):
        assert not host.get(f"/history/{prompt}")
    run = listed_taste(host, "stopped")["id"]
    metrics = host.base / "output" / "d3po" / "stopped" / "metrics.jsonl"
    while not metrics.exists():
        assert not host.get(f"/history/{prompt}")
    host.post("/interrupt", {})
    host.until_done(prompt)
    assert not host.get(f"/d3po/taste/{run}/state?client={'c' * 32}")["rounds"][0]["finished"]
    done = len(metrics.read_text().splitlines())
    graph["draft"]["inputs"]["train"] = "finish a stopped round"
    graph["warm"]["inputs"]["written"] = "1e39*contrast"  # as if the first was gone: it fails if it is asked
    (text,) = host.run(graph)["draft"]["text"]
    assert text.startswith("Taught. Mean warmth") and "Stopped before the end." in text
    assert len(files(host, "stopped")) == 1 and len(metrics.read_text().splitlines()) == done
    graph["draft"]["inputs"]["rank"] = 5  # or the host would not ask again
    assert host.run(graph)["draft"]["text"] == ["Nothing to finish."]


@pytest.mark.parametrize(
    ("node_id", "changes", "sentence"),
    [
        ("reward", {"reward": "compressibility"}, "The reward 'compressibility' is not differentiable"),
        ("reward", {"weight": 0.0}, "The weight of this reward is 0"),
        ("reward", {"written": "clip:/nowhere"}, "is not a CLIP folder"),
        ("draft", {"prompts": "a hill"}, "There is a prompt list, and no CLIP to read it."),
        ("draft", {"steps": 1}, "No step of this schedule carries noise"),
    ],
)
def test_what_cannot_be_taught_is_told_before_a_taste_is_begun(
    host: Host, node_id: str, changes: dict[str, Any], sentence: str
) -> None:
    graph = draft("refused reward")
    graph[node_id]["inputs"] |= changes
    with pytest.raises(Refused, match=sentence):
        host.run(graph)
    assert "refused reward" not in [each["name"] for each in host.get("/d3po/tastes")["tastes"]]


def test_auto_pick_and_draft_take_what_was_learnt_from_picks(host: Host) -> None:
    graph = named("by warmth", groups=40)
    graph["warm"] = node("D3PO_Reward", reward="warmth", weight=1.0)
    graph["picker"] = node("D3PO_AutoPick", trajectories=["collector", 0], scorer="contrast", judge=["warm", 0])
    graph["picks"] = node("D3PO_RewardFromPicks", trajectories=["picker", 0], taste="auto")
    graph["draft"] = {**draft("by picks", updates=1, reward=["picks", 0])["draft"]}
    outputs = host.run(graph, only=["picks", "draft"])
    assert outputs["picker"]["text"] == ["Picked in 40 groups."]
    (facts,) = outputs["picks"]["text"]
    assert facts.startswith("It predicts ") and "chance is 50%" in facts and "choose the same again" in facts
    assert (host.base / "output" / "d3po" / "by-warmth" / "reward.safetensors").exists()
    assert "Mean picks:reward.safetensors went from " in outputs["draft"]["text"][0]


def pairs(folder: Path, warm_wins: Callable[[int], bool]) -> Path:
    """20 pairs of a warm and a cold picture as JSON lines, of two sizes, one of which must be cropped; and a line that
    names a picture which is missing."""
    chance, lines = np.random.default_rng(0), []
    for number in range(20):
        names = []
        for warm in (60, -60) if warm_wins(number) else (-60, 60):
            pixels = chance.integers(60, 196, (64 if number % 2 else 68, 64, 3)) + np.array([warm, 0, -warm])
            names.append(f"{number} {warm}.png")
            Image.fromarray(pixels.astype(np.uint8)).save(folder / names[-1])
        lines.append(json.dumps({"prompt": f"a lake {number % 3}", "winner": names[0], "loser": names[1]}))
    lines.append(json.dumps({"prompt": "a lake", "winner": names[0], "loser": "missing.png"}))
    (folder / "pairs.jsonl").write_text("\n".join(lines))
    return folder / "pairs.jsonl"


def importing(name: str, source: Path) -> Graph:
    """An import and a trainer."""
    graph = {**model(), "trainer": named(name)["trainer"]}
    parts = {"model": ["model", 0], "clip": ["load", 1], "vae": ["load", 2]}
    graph["import"] = node("D3PO_PreferencePairsFromImages", **parts, taste=name, source=str(source))
    graph["trainer"]["inputs"] |= {"trajectories": ["import", 0], "train": "each time queued"}
    return graph


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is warm won."""
    return pairs(tmp_path_factory.mktemp("pictures"), lambda number: True)


def test_picks_without_a_rule_are_no_reward(host: Host, tmp_path: Path) -> None:
    graph = importing("no rule", pairs(tmp_path, lambda number: number % 2 == 0))
    graph["picks"] = node("D3PO_RewardFromPicks", trajectories=["import", 0], taste="auto")
    with pytest.raises(Refused, match="These picks do not tell yet what you like"):
        host.run(graph, only=["picks"])
    assert not (host.base / "output" / "d3po" / "no-rule" / "reward.safetensors").exists()


@pytest.mark.parametrize("method", ["diffusion-dpo", "diffusion-kto", "diffusion-nft"])
def test_existing_pictures_teach(host: Host, source: Path, method: str) -> None:
    name = f"existing {method}"
    graph = importing(name, source)
    graph["trainer"]["inputs"] |= {"method": method, "epochs": 1, "draws": 1, "batch": 8}
    outputs = host.run(graph, only=["trainer"])
    (text,) = outputs["import"]["text"]
    assert (
        text.startswith("Imported 20 groups of pictures.")
        and "were cropped" in text
        and "There is no file missing.png" in text
    )
    assert outputs["trainer"]["text"][0].startswith("Taught.")
    assert len(files(host, name.replace(" ", "-"))) == 1
    graph["compare"] = node(
        "D3PO_PreferenceCompare",
        **{"model": ["model", 0], "vae": ["load", 2], "taste": name, "round": 0, "strength": 1.0},
        **{"prompts": 1, "seeds": 1},
    )
    graph["save"] = node("SaveImage", images=["compare", 0], filename_prefix="existing")
    (grid,) = saved(host, host.run(graph, only=["save"]))  # of a taste for which nothing was drawn
    assert (grid[:, :64] != grid[:, -64:]).any()


def test_diffusion_nft_is_warned_of_before_it_teaches_few_steps(host: Host) -> None:
    for guidance, warned in ((1.0, 1), (3.0, 0)):
        graph = named(f"few steps {guidance}", guidance_scale=guidance)
        graph["trainer"]["inputs"] |= {"method": "diffusion-nft"}
        (text,) = host.run(graph)["trainer"]["text"]
        assert text.startswith("Waiting for picks: 0 of 16.") == bool(warned)
        assert text.count("2509.16117") == warned


def test_importing_again_adds_nothing_and_d3po_says_what_it_needs(host: Host, source: Path) -> None:
    graph = importing("for d3po", source)
    outputs = host.run(graph, only=["trainer"])
    more = "20 more are of imported pictures, which d3po cannot learn from, as diffusion-nft can"
    assert outputs["trainer"]["text"] == [f"Waiting for picks: 0 of 16; {more}"]
    state = host.get(f"/d3po/taste/{listed_taste(host, 'for d3po')['id']}/state?client={'c' * 32}")
    assert state["picks"]["usable"] == 0 and "teach" not in state["can"]
    graph["trainer"]["inputs"] |= {"method": "diffusion-nft", "train": "when I press Teach"}
    assert host.run(graph, only=["trainer"])["trainer"]["text"] == ["Ready: press Teach."]
    state = host.get(f"/d3po/taste/{listed_taste(host, 'for d3po')['id']}/state?client={'c' * 32}")
    assert state["picks"]["usable"] == 20 and "teach" in state["can"]
    source.touch()
    outputs = host.run(graph, only=["import"])
    assert outputs["import"]["text"][0].startswith("Imported 0 groups of pictures. 20 were there already.")
    graph["import"]["inputs"]["source"] = str(source.parent)
    with pytest.raises(Refused, match="no prompt"):
        host.run(graph, only=["import"])
