"""With --multi-user: each person has settings and workflows of their own, and tastes are everybody's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .conftest import HOST, PYTHON
from .host import ROOT, Host
from .page import Page
from .test_browser import complete_graph, sampled


def test_two_people_pick_for_one_taste(base: Path, browser: Any, tmp_path: Path) -> None:
    for name in ("custom_nodes", "models/loras", "input", "output", "temp", "user"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "custom_nodes" / "comfyui-d3po").symlink_to(ROOT)
    (tmp_path / "models" / "checkpoints").symlink_to(base / "models" / "checkpoints")
    with Host(Path(str(HOST)), PYTHON, tmp_path, ["--multi-user"]) as host:
        run = sampled(host, "shared")
        for done, person in enumerate(("ann", "bob")):
            host.user = host.post("/users", {"username": person})
            context = browser.new_context(viewport={"width": 1500, "height": 1000}, reduced_motion="reduce")
            page = Page(context, host, {"Comfy.Locale": "en"})
            page.load(complete_graph("shared"))
            page.run("(id) => window.shown('node').setAttribute('taste', id)", run)
            page.wait_for_group("node")
            assert page.picks("node") == done
            page.pick("node", "key")
            assert host.wait(page.queue())["trainer"]["text"] == [f"Waiting for picks: {done + 1} of 16"]
            assert page.errors == []
            context.close()
        # The host has one of its own where its page asks for workflows before it knows whose.
        assert "custom_nodes/comfyui-d3po/" not in host.log.read_text(errors="replace").partition("Starting server")[2]
