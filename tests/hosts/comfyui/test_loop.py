"""The whole loop by the host's API: sample, pick, teach, use the LoRA."""

from __future__ import annotations

import time
import uuid
from typing import Any

import pytest

from .graphs import plain, taste
from .host import Host, Refused


def picture(host: Host, outputs: dict[str, Any]) -> bytes:
    (file,) = outputs["save"]["images"]
    from PIL import Image

    with Image.open(host.base / "output" / file["subfolder"] / file["filename"]) as image:
        return image.tobytes()


def pick_all(host: Host, run: str) -> int:
    """Picks in every group that waits, the candidate with the lower number; how many."""
    client, done = uuid.uuid4().hex, 0
    while True:
        cards = host.post(f"/d3po/taste/{run}/next", {"client": client, "want": 8})["cards"]
        if not cards:
            return done
        for card in cards:
            shown = [image["candidate"] for image in card["images"]]
            pick = {"client": client, "pick_id": uuid.uuid4().hex, "group_id": card["group_id"], "kind": "favourite"}
            host.post(
                f"/d3po/taste/{run}/pick",
                {**pick, "order": [min(shown)], "shown_order": shown, "reason": card["reason"]},
            )
            done += 1


def test_sample_pick_teach_and_generate(host: Host) -> None:
    before = picture(host, host.run(plain()))
    outputs = host.run(taste(groups=12))
    (run,) = outputs["collector"]["d3po_taste"]
    outputs = host.run(taste(groups=12))
    assert outputs["collector"]["d3po_taste"] == [run]
    assert outputs["trainer"]["text"] == ["Waiting for picks: 0 of 16"]
    (listed,) = host.get("/d3po/tastes")["tastes"]
    assert listed["groups"] == 24 and listed["name"] == "tiny"
    assert pick_all(host, run) >= 24  # one comes back now and then
    outputs = host.run(taste(), only=["trainer"])
    assert outputs["trainer"]["text"] == ["Ready: press Teach."]
    host.post(f"/d3po/taste/{run}/teach", {})
    graph = taste()
    graph["trainer"]["inputs"]["judge"] = False  # a random network's pictures teach nothing that could be trusted
    outputs = host.run(graph, only=["trainer"])
    assert outputs["trainer"]["text"][0].startswith("Taught") and "sampler" not in outputs
    (lora,) = (host.base / "models" / "loras" / "d3po").iterdir()
    assert picture(host, host.run(plain())) == before
    name = f"d3po/{lora.name}"
    taught = picture(host, host.run(plain(name)))
    assert taught != before and picture(host, host.run(plain(name, 0.0))) == before
    graph = {**taste(), **{name: node for name, node in plain().items() if name in ("sample", "decode", "save")}}
    graph["sample"]["inputs"]["model"] = ["trainer", 0]
    assert picture(host, host.run(graph, only=["save"])) == taught  # the trainer's own MODEL
    log = host.log.read_text(errors="replace")
    assert "not loaded" not in log and "Traceback" not in log


def test_a_lost_lora_is_told_in_the_node_and_one_press_goes_on(host: Host) -> None:
    """Of the loop's own taste: its file in the run is overwritten, first with a copy among the host's LoRAs."""
    (listed,) = host.get("/d3po/tastes")["tastes"]
    run = listed["id"]
    (file,) = (host.base / "output" / "d3po" / "tiny" / "loras").iterdir()
    (copy,) = (host.base / "models" / "loras" / "d3po").iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    for graph, only in ((taste(groups=2), "collector"), (taste(), "trainer")):
        with pytest.raises(Refused, match=r"LoRA of round 1 is damaged.*Press Go on in the gallery of this taste"):
            host.run(graph, only=[only])
    state = host.get(f"/d3po/taste/{run}/state")
    assert state["lost"]["to"] == 1 and state["lost"]["restores"]
    assert host.post(f"/d3po/taste/{run}/go_on", {})["state"]["lost"] is None
    outputs = host.run(taste(), only=["trainer"])
    assert not outputs["trainer"]["text"][0].startswith("The LoRA")
    (again,) = (each for each in file.parent.iterdir() if each != file)
    assert again.read_bytes() == whole and len(file.read_bytes()) == len(whole) // 2

    again.unlink()
    copy.rename(host.base / "moved away")
    assert not host.get(f"/d3po/taste/{run}/state")["lost"]["restores"]
    state = host.post(f"/d3po/taste/{run}/go_on", {})["state"]
    assert state["lost"] is None and len(state["rounds"]) == 1
    before = state["groups"]["drawn"]
    host.run(taste(groups=2))
    assert host.get(f"/d3po/taste/{run}/state")["groups"]["drawn"] == before + 2


def stopped(host: Host, prompt: str, run: str) -> float:
    """Press Stop in the gallery while a graph runs; seconds until it has ended."""
    pressed = time.monotonic()
    state = host.post(f"/d3po/taste/{run}/stop", {})["state"]
    assert state["work"] is None or state["work"]["kind"] == "stopping"
    host.until_done(prompt)
    return time.monotonic() - pressed


def test_stop_is_obeyed_within_a_step(host: Host) -> None:
    """Of 400 steps a group takes many seconds; so does what comes after training."""
    (listed,) = host.get("/d3po/tastes")["tastes"]
    run, drawn = listed["id"], listed["groups"]
    prompt = host.queue(taste(groups=8, steps=400))
    while not host.get(f"/d3po/taste/{run}/state")["work"]:
        assert not host.get(f"/history/{prompt}")
    assert stopped(host, prompt, run) < 3
    assert host.get(f"/d3po/taste/{run}/state")["groups"]["drawn"] == drawn

    pick_all(host, run)
    host.post(f"/d3po/taste/{run}/teach", {})
    graph = taste()
    graph["trainer"]["inputs"] |= {"judge": False, "epochs": 200, "trained_steps": 0}
    prompt = host.queue(graph, only=["trainer"])
    while (host.get(f"/d3po/taste/{run}/state")["work"] or {}).get("done", 0) < 2:
        assert not host.get(f"/history/{prompt}")
    assert stopped(host, prompt, run) < 3
    state = host.get(f"/d3po/taste/{run}/state")
    assert not state["rounds"][-1]["finished"] and "teach" in state["can"]
