"""A job of ours that waits for the host's queue, behind the user's own pictures: Stop is obeyed at once."""

from __future__ import annotations

import threading
import time

from .host import WebUI
from .test_page import until

SAMPLE = {"steps": 3, "candidates": 2, "width": 64, "height": 64, "guidance_scale": 1.0}


def test_stop_is_obeyed_before_our_turn(webui: WebUI) -> None:
    taste = webui.probe("begin", prompts=["a lake"], sample=SAMPLE)
    occupied = threading.Thread(target=webui.probe, args=("occupy",), kwargs={"seconds": 8})
    occupied.start()
    until(lambda: webui.ask("/sdapi/v1/progress")["state"]["job"], 5)
    webui.ask(f"/d3po/taste/{taste}/draw", {"groups": 2})
    until(lambda: webui.state(taste)["work"], 5)
    assert webui.ask("/internal/pending-tasks")["size"] == 1
    pressed = time.monotonic()
    webui.ask(f"/d3po/taste/{taste}/stop", {})
    until(lambda: not webui.state(taste)["work"], 2)
    assert occupied.is_alive() and time.monotonic() - pressed < 2
    assert webui.ask("/internal/pending-tasks")["size"] == 0
    occupied.join()
    assert webui.state(taste)["groups"]["drawn"] == 0
    webui.ask(f"/d3po/taste/{taste}/draw", {"groups": 1})
    webui.until(taste, lambda state: state["groups"]["drawn"] == 1)
