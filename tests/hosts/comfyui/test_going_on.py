"""A LoRA file that is lost, and Stop, by the host's API."""

from __future__ import annotations

import time
from typing import Any

import pytest

from .host import Host, Refused
from .test_nodes import listed_taste, named
from .test_reward_nodes import draft


def state(host: Host, run: str) -> dict[str, Any]:
    return dict(host.get(f"/d3po/taste/{run}/state"))


def test_a_lost_lora_is_told_in_the_node_and_one_press_goes_on(host: Host) -> None:
    """The file in the taste's folder is cut. First there is a copy among the host's LoRAs, then none."""
    host.run(draft("lost", updates=2, drift_limit=0.0, keep_prompt=0.0))
    run = listed_taste(host, "lost")["id"]
    (file,) = (host.base / "output" / "d3po" / "lost" / "loras").glob("*-round1.safetensors")
    used = state(host, run)["rounds"][0]["lora"]
    file = file.with_name(used)
    (copy,) = (host.base / "models" / "loras" / "d3po").glob(used)
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    graph = named("lost", groups=1)
    for only in ("sampler", "trainer"):
        with pytest.raises(Refused, match=r"LoRA of round 1 is damaged.*Press Go on in the gallery of this taste"):
            host.run(graph, only=[only])
    lost = state(host, run)["lost"]
    assert lost["to"] == 1 and lost["restores"]
    assert host.post(f"/d3po/taste/{run}/go_on", {})["state"]["lost"] is None
    again = file.with_name(state(host, run)["rounds"][0]["lora"])
    assert again != file and again.read_bytes() == whole and len(file.read_bytes()) == len(whole) // 2

    again.unlink()
    copy.rename(host.base / "moved away")
    lost = state(host, run)["lost"]
    assert lost["to"] == 0 and not lost["restores"]
    after = host.post(f"/d3po/taste/{run}/go_on", {})["state"]
    assert after["lost"] is None and len(after["rounds"]) == 1
    host.run(graph, only=["collector"])
    assert state(host, run)["groups"]["drawn"] == 1


def seconds_to_stop(host: Host, prompt: str, run: str) -> float:
    """Press Stop in the gallery while a graph runs, and wait until it has ended."""
    pressed = time.monotonic()
    work = host.post(f"/d3po/taste/{run}/stop", {})["state"]["work"]
    assert work is None or work["kind"] == "stopping"
    host.until_done(prompt)
    return time.monotonic() - pressed


def test_stop_is_obeyed_within_a_step(host: Host) -> None:
    """A group of 400 steps takes minutes, and so would all updates."""
    prompt = host.queue(named("stop", groups=2, steps=400), only=["collector"])
    while not any(each["name"] == "stop" for each in host.get("/d3po/tastes")["tastes"]):
        assert not host.get(f"/history/{prompt}")
    run = listed_taste(host, "stop")["id"]
    while not state(host, run)["work"]:
        assert not host.get(f"/history/{prompt}")
    time.sleep(1)
    assert seconds_to_stop(host, prompt, run) < 5
    assert state(host, run)["groups"]["drawn"] == 0

    prompt = host.queue(draft("stop", updates=400, watch=400, drift_limit=0.0))
    metrics = host.base / "output" / "d3po" / "stop" / "metrics.jsonl"
    while not metrics.exists():
        assert not host.get(f"/history/{prompt}")
    assert seconds_to_stop(host, prompt, run) < 5
    (round,) = state(host, run)["rounds"]
    assert not round["finished"] and round["reward"] == "warmth + 0.5*contrast"
