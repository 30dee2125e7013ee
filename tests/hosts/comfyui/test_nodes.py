"""What the nodes do with all kinds of input, by the host's API."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from .graphs import TEACH, Graph, node, taste
from .host import Host, Refused
from .test_loop import pick_all

QUEUED = "each time queued"


def named(name: str, **changes: Any) -> Graph:
    """The graph with another taste in all its nodes."""
    graph = taste(taste=name, **changes)
    for each in ("collector", "trainer"):
        graph[each]["inputs"]["taste"] = name
    # A random network has no taste to be found, keeps no prompt, and may drift as it likes.
    graph["trainer"]["inputs"] |= {"judge": False, "keep_prompt": 0.0, "drift_limit": 0.0}
    return graph


def listed_taste(host: Host, name: str) -> dict[str, Any]:
    """A taste as the gallery lists it."""
    (found,) = [each for each in host.get("/d3po/tastes")["tastes"] if each["name"] == name]
    return dict(found)


def saved(host: Host, outputs: dict[str, Any], key: str = "save") -> list[np.ndarray[Any, Any]]:
    found = []
    for text in outputs[key]["images"]:
        with Image.open(host.base / "output" / text["subfolder"] / text["filename"]) as image:
            found.append(np.asarray(image))
    return found


def test_a_prompt_list_is_drawn_in_turn(host: Host) -> None:
    graph = named("list", groups=4, prompts="a {red|blue} boat\n\na hill", clip=["load", 1])
    host.run(graph, only=["sampler"])
    host.run(graph, only=["sampler"])
    run = listed_taste(host, "list")["id"]
    cards = host.post(f"/d3po/taste/{run}/next", {"client": "c" * 32, "want": 8})["cards"]
    seen = [card["prompt"] for card in sorted(cards, key=lambda card: card["number"])]
    assert len(seen) == 8 and set(seen[:3]) == set(seen[3:6]) == {"a red boat", "a blue boat", "a hill"}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"prompts": "a hill"}, "There is a prompt list, and no CLIP to read it."),
        ({"prompts": "{a|b}" * 12, "clip": ["load", 1]}, "The prompt list stands for more than 1,000 prompts."),
        ({"steps": 1}, "No step of this schedule carries noise"),
    ],
)
def test_what_cannot_be_drawn_is_told_before_anything_is_made(
    host: Host, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(Refused, match=sentence):
        host.run(named("refused", **changes), only=["sampler"])
    assert "refused" not in [each["name"] for each in host.get("/d3po/tastes")["tastes"]]


def test_without_a_vae_the_collector_adds_the_pictures_once(host: Host) -> None:
    graph = named("decoded later", groups=2)
    del graph["sampler"]["inputs"]["vae"]
    graph["decoded"] = node("VAEDecode", samples=["sampler", 2], vae=["load", 2])
    graph["collector"]["inputs"]["images"] = ["decoded", 0]
    host.run(graph)
    assert listed_taste(host, "decoded later")["groups"] == 2
    del graph["collector"]["inputs"]["images"]
    with pytest.raises(Refused, match="The sampler has no VAE, so there are no pictures to pick from"):
        host.run(graph, only=["collector"])
    assert listed_taste(host, "decoded later")["groups"] == 2


def test_one_press_does_it_all_with_auto_pick(host: Host) -> None:
    graph = named("by itself", groups=18)
    graph["picker"] = node("D3PO_AutoPick", trajectories=["collector", 0], scorer="warmth")
    graph["trainer"]["inputs"] |= {"trajectories": ["picker", 0], "train": QUEUED, "vae": ["load", 2]}
    graph["compare"] = node(
        "D3PO_PreferenceCompare",
        **{"model": ["model", 0], "vae": ["load", 2], "taste": "by itself", "round": 0, "strength": 1.0},
        **{"prompts": 2, "seeds": 1},
    )
    graph["save"] = node("SaveImage", images=["compare", 0], filename_prefix="grid")
    outputs = host.run(graph, only=["trainer"])
    assert outputs["picker"]["text"] == ["Picked in 18 groups."]
    assert outputs["trainer"]["text"][0].startswith("Taught")
    run = listed_taste(host, "by itself")["id"]
    state = host.get(f"/d3po/taste/{run}/state?client={'c' * 32}")
    (round,) = state["rounds"]
    assert round["finished"] and len(round["strip"]) > 0 and state["blind"]["of"] == 12
    (grid,) = saved(host, host.run(graph, only=["save"]))
    before, after = grid[:, :64], grid[:, -64:]
    assert (before != after).any()


def test_auto_pick_takes_any_reward(host: Host) -> None:
    graph = named("any reward", groups=2)
    graph["picker"] = node("D3PO_AutoPick", trajectories=["collector", 0], scorer="warmth", reward="warmth + beauty")
    with pytest.raises(Refused, match="There is no reward called 'beauty'"):
        host.run(graph, only=["picker"])
    graph["picker"]["inputs"]["reward"] = "0.5*warmth + smooth-incompressibility"
    outputs = host.run(graph, only=["picker"])  # which draws two more
    assert outputs["picker"]["text"] == ["Picked in 4 groups."]


def test_a_taste_is_used_and_opened_without_its_sampler(host: Host) -> None:
    graph = named("by itself")
    for name in ("sampler", "collector"):
        del graph[name]
    graph["open"] = node("D3PO_LoadPreferenceRun", taste="by itself")
    graph["save"] = node("SaveImage", images=["open", 1], filename_prefix="favourite")
    assert len(saved(host, host.run(graph, only=["save"]))) == 18
    graph["lora"] = node("D3PO_LoadTasteLora", model=["model", 0], taste="by itself", round=1, strength=1.0)
    inputs = {"positive": ["positive", 0], "negative": ["negative", 0], "latent_image": ["latent", 0]}
    inputs |= {"seed": 7, "steps": 4, "cfg": 3.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
    graph["sample"] = node("KSampler", model=["lora", 0], **inputs)
    graph["decode"] = node("VAEDecode", samples=["sample", 0], vae=["load", 2])
    graph["save"] = node("SaveImage", images=["decode", 0], filename_prefix="used")
    (by_name,) = saved(host, host.run(graph, only=["save"]))
    del graph["trainer"]["inputs"]["trajectories"]
    graph["sample"]["inputs"]["model"] = ["trainer", 0]
    (by_trainer,) = saved(host, host.run(graph, only=["save"]))
    assert (by_name == by_trainer).all()
    graph["lora"]["inputs"]["round"] = 7
    graph["sample"]["inputs"]["model"] = ["lora", 0]
    with pytest.raises(Refused, match="There is no LoRA of a round '7'"):
        host.run(graph, only=["save"])


def test_a_changed_graph_is_named(host: Host) -> None:
    lora = next((host.base / "models" / "loras" / "d3po").iterdir()).name
    graph = named("with a lora", groups=18)
    graph["detail"] = node("LoraLoaderModelOnly", model=["model", 0], lora_name=f"d3po/{lora}", strength_model=8.0)
    graph["sampler"]["inputs"]["model"] = graph["trainer"]["inputs"]["model"] = ["detail", 0]
    host.run(graph, only=["sampler"])
    run = listed_taste(host, "with a lora")["id"]
    pick_all(host, run)
    graph["detail"]["inputs"]["strength_model"] = 0.5
    host.post(f"/d3po/taste/{run}/teach", {})
    loader = f"LoraLoaderModelOnly {Path(lora).stem}"
    sentence = f"This taste was sampled with {loader}: strength_model 8.0, and your graph has 0.5."
    with pytest.raises(Refused) as refused:
        host.run(graph, only=["trainer"])
    assert sentence in str(refused.value) and "Your picks are saved." in str(refused.value)
    graph["trainer"]["inputs"]["reevaluate_reference"] = True
    host.post(f"/d3po/taste/{run}/teach", {})
    outputs = host.run(graph, only=["trainer"])
    assert outputs["trainer"]["text"][0].startswith("Taught")


def test_teaching_before_anything_was_drawn_is_no_error(host: Host) -> None:
    graph = named("nobody knows it")
    graph["trainer"]["inputs"] |= {"train": TEACH}
    outputs = host.run(graph, only=["trainer"])
    assert outputs["trainer"]["text"] == ["Waiting for picks: 0 of 16"]


def test_pictures_of_two_models_are_not_taught_together(host: Host) -> None:
    """Whichever graph teaches, one half of the pictures was drawn otherwise."""
    lora = next((host.base / "models" / "loras" / "d3po").iterdir()).name
    graph = named("two graphs", groups=9)
    host.run(graph, only=["sampler"])
    other = named("two graphs", groups=9)
    other["detail"] = node("LoraLoaderModelOnly", model=["model", 0], lora_name=f"d3po/{lora}", strength_model=8.0)
    other["sampler"]["inputs"]["model"] = other["trainer"]["inputs"]["model"] = ["detail", 0]
    host.run(other, only=["sampler"])
    run = listed_taste(host, "two graphs")["id"]
    pick_all(host, run)
    for each, difference in ((graph, "your graph does not have"), (other, "which your graph adds")):
        host.post(f"/d3po/taste/{run}/teach", {})
        with pytest.raises(Refused, match=difference):
            host.run(each, only=["trainer"])


def test_a_refused_round_takes_new_picks_and_settings(host: Host) -> None:
    lora = next((host.base / "models" / "loras" / "d3po").iterdir()).name
    graph = named("refused once", groups=18)
    host.run(graph, only=["sampler"])
    run = listed_taste(host, "refused once")["id"]
    pick_all(host, run)
    wrong = named("refused once")
    wrong["detail"] = node("LoraLoaderModelOnly", model=["model", 0], lora_name=f"d3po/{lora}", strength_model=8.0)
    wrong["trainer"]["inputs"]["model"] = ["detail", 0]
    host.post(f"/d3po/taste/{run}/teach", {})
    with pytest.raises(Refused):
        host.run(wrong, only=["trainer"])
    assert host.run(graph, only=["trainer"])["trainer"]["text"] == ["A round was stopped: press Teach to go on."]
    host.run({**graph, "sampler": {**graph["sampler"]}}, only=["sampler"])
    pick_all(host, run)
    graph["trainer"]["inputs"]["rank"] = 3
    host.post(f"/d3po/taste/{run}/teach", {})
    outputs = host.run(graph, only=["trainer"])
    assert "It went on as it was begun" not in outputs["trainer"]["text"][0]
    state = host.get(f"/d3po/taste/{run}/state?client={'c' * 32}")
    assert state["picks"]["untaught"] == 0
    from safetensors import safe_open

    with safe_open(host.base / "output" / "d3po" / "refused-once" / "loras" / state["rounds"][0]["lora"], "pt") as file:
        assert {file.get_slice(key).get_shape()[0] for key in file.keys() if "lora_down" in key} == {3}  # noqa: SIM118


def test_auto_is_the_checkpoints_own_taste_whatever_others_are_begun(host: Host) -> None:
    host.run(taste(groups=1), only=["sampler"])
    (own,) = [each for each in host.get("/d3po/tastes")["tastes"] if each["name"] == "tiny"]
    host.run(named("another", groups=1), only=["sampler"])
    host.run(taste(groups=1), only=["sampler"])
    assert listed_taste(host, "another")["groups"] == 1 and listed_taste(host, "tiny")["groups"] == own["groups"] + 1


def test_a_trainer_left_on_auto_takes_the_taste_that_is_wired_to_it(host: Host) -> None:
    graph = named("wired", groups=1)
    graph["trainer"]["inputs"] |= {"taste": "auto", "train": QUEUED}
    host.run(graph, only=["collector"])
    pick_all(host, listed_taste(host, "wired")["id"])
    outputs = host.run(graph, only=["trainer"])
    assert outputs["trainer"]["text"] == ["Waiting for picks: 1 of 16"]
    del graph["trainer"]["inputs"]["trajectories"]  # nothing to wait for is no error either
    graph["trainer"]["inputs"]["taste"] = "wired"
    assert host.run(graph, only=["trainer"])["trainer"]["text"] == ["Waiting for picks: 1 of 16"]


def test_a_taste_takes_pictures_of_one_kind_of_model(host: Host) -> None:
    host.run(named("one kind", groups=1), only=["sampler"])
    graph = named("one kind", groups=1)
    graph["latent"] = node("EmptySD3LatentImage", width=64, height=64, batch_size=1)
    graph["load"] = node("CheckpointLoaderSimple", ckpt_name="tiny-sd3.safetensors")
    graph["clip"] = node("CheckpointLoaderSimple", ckpt_name="tiny.safetensors")
    graph["sampler"]["inputs"] |= {"model": ["load", 0], "vae": ["clip", 2]}
    for side in ("positive", "negative"):
        graph[side]["inputs"]["clip"] = ["clip", 1]
    with pytest.raises(Refused, match="was begun with tiny, a model of another kind"):
        host.run(graph, only=["sampler"])
    assert listed_taste(host, "one kind")["groups"] == 1


def test_teach_that_found_no_trainer_is_taken_back(host: Host) -> None:
    graph = named("taken back", groups=18)
    host.run(graph, only=["sampler"])
    run = listed_taste(host, "taken back")["id"]
    pick_all(host, run)
    host.post(f"/d3po/taste/{run}/teach", {})
    host.post(f"/d3po/taste/{run}/stop", {})  # as the page does
    assert host.run(graph, only=["trainer"])["trainer"]["text"] == ["Ready: press Teach."]


def test_the_queue_can_wait_for_picks(host: Host) -> None:
    graph = named("waiting", groups=3)
    graph["collector"]["inputs"]["wait_for"] = 2
    prompt = host.queue(graph, only=["collector"])
    deadline = time.monotonic() + 120
    while not any(each["name"] == "waiting" and each["groups"] == 3 for each in host.get("/d3po/tastes")["tastes"]):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    run = listed_taste(host, "waiting")["id"]
    time.sleep(1.5)
    assert not host.get(f"/history/{prompt}")  # it holds the queue
    pick_all(host, run)
    assert host.wait(prompt, 30)["collector"]["d3po_taste"] == [run]
