"""A checkpoint of real size goes once through the host: drawn, picked, taught, and its LoRA used.

COMFYUI_CHECKPOINT names it; random weights will do. COMFYUI_OPTIONS are options of the host's, such as --bf16-unet, and
COMFYUI_SIDE is the pictures' size in pixels, 128 if it is not set. The figures are printed (pytest -s).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .graphs import Graph, plain, taste
from .host import Host
from .test_loop import pick_all, picture

CHECKPOINT = os.environ.get("COMFYUI_CHECKPOINT", "")
SECONDS = 3600
GB = 1e9


@pytest.fixture(scope="module")
def roomy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A host of its own, whose peak memory is this model's."""
    if not CHECKPOINT:
        pytest.skip("no model of real size: name a checkpoint with COMFYUI_CHECKPOINT")
    from .conftest import HOST, PYTHON, ROOT

    base = tmp_path_factory.mktemp("roomy")
    for name in ("custom_nodes", "models/checkpoints", "models/loras", "input", "output", "temp", "user"):
        (base / name).mkdir(parents=True)
    (base / "custom_nodes" / "comfyui-d3po").symlink_to(ROOT)
    (base / "models" / "checkpoints" / "real.safetensors").symlink_to(Path(CHECKPOINT).resolve())
    with Host(Path(str(HOST)), PYTHON, base, os.environ.get("COMFYUI_OPTIONS", "").split()) as running:
        print(f"\nran against ComfyUI {running.version} in {HOST}, with {CHECKPOINT}")
        yield running


def of_real(graph: Graph, side: int) -> Graph:
    """Return a graph with the large checkpoint as it is, at a size."""
    graph["load"]["inputs"]["ckpt_name"] = "real.safetensors"
    del graph["model"]
    for each in graph.values():
        if each["inputs"].get("model") == ["model", 0]:
            each["inputs"]["model"] = ["load", 0]
    graph["latent"]["inputs"].update(width=side, height=side)
    return graph


def memory(host: Host, what: str) -> float:
    """Return a figure of the host's memory in bytes, as Linux counts it: VmHWM is the peak, VmRSS what it has now."""
    status = Path(f"/proc/{host.process.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith(what))
    return int(line.split()[1]) * 1024.0


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_a_real_size_goes_once_through(roomy: Host) -> None:
    host, side = roomy, int(os.environ.get("COMFYUI_SIDE", "128"))
    weights = Path(CHECKPOINT).stat().st_size
    times: dict[str, float] = {}

    def timed(name: str, graph: dict[str, Any], only: list[str] | None = None) -> dict[str, Any]:
        begun = time.monotonic()
        outputs = host.run(graph, only, SECONDS)
        times[name] = time.monotonic() - begun
        peak = memory(host, "VmHWM")
        print(f"{name}: {times[name]:.0f} s, peak {peak / GB:.2f} GB, {(peak - weights) / GB:.2f} more than the file")
        return outputs

    before = picture(host, timed("a picture, with loading", of_real(plain(), side)))
    settings = {"groups": 18, "candidates": 2, "steps": 4}
    (run,) = timed("18 groups of 2", of_real(taste(**settings), side))["collector"]["d3po_taste"]
    assert pick_all(host, run) >= 18
    host.post(f"/d3po/taste/{run}/teach", {})
    graph = of_real(taste(**settings), side)
    graph["trainer"]["inputs"].update(judge=False, epochs=1)
    outputs = timed("a round", graph, ["trainer"])
    assert outputs["trainer"]["text"][0].startswith("Taught")
    (lora,) = (host.base / "models" / "loras" / "d3po").iterdir()
    assert picture(host, timed("a picture again", of_real(plain(), side))) == before
    taught = of_real(plain(f"d3po/{lora.name}"), side)
    assert picture(host, timed("a picture with the LoRA", taught)) != before
    disk = sum(path.stat().st_size for path in (host.base / "output").rglob("*") if path.is_file())
    print(f"LoRA {lora.stat().st_size / 1e6:.1f} MB, output folder {disk / 1e6:.1f} MB")
    assert "not loaded" not in host.log.read_text(errors="replace")
    assert "Traceback" not in host.log.read_text(errors="replace")
