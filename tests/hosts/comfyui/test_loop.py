"""The whole loop by the host's API: sample, pick, teach, use the LoRA."""

from __future__ import annotations

import uuid
from typing import Any

from .graphs import plain, taste
from .host import Host


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
