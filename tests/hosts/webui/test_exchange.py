"""A LoRA that was taught in one web UI, in all the others, in ComfyUI and in diffusers.

All web UIs that are named run at once here. ComfyUI takes part where COMFYUI_DIR is set, as in tests/hosts/comfyui.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from d3po_core.lora import load_lora
from tests.lora_networks import load_with_diffusers, warnings_of_diffusers

from .conftest import HOSTS, PYTHONS
from .host import ROOT, WebUI, apart, pixels

COMFYUI = os.environ.get("COMFYUI_DIR")
SAMPLE = {"steps": 3, "candidates": 2, "width": 64, "height": 64, "held_out": 0.0, "guidance_scale": 1.0}
TRAIN = {"epochs": 2, "learning_rate": 1e-2, "judge": False}

pytestmark = pytest.mark.skipif(not HOSTS, reason="no web UI: name one or more with WEBUI_DIR")


@pytest.fixture(scope="module")
def webuis(tmp_path_factory: pytest.TempPathFactory, sd15: Path) -> Iterator[list[WebUI]]:
    with ExitStack() as stack:
        found = []
        for folder, python in zip(HOSTS, PYTHONS, strict=True):
            data = tmp_path_factory.mktemp("webui") / "data"
            found.append(stack.enter_context(WebUI(folder, python, data, sd15)))
            print(f"\nran against {found[-1].about()}")
        yield found


@pytest.fixture(scope="module")
def taught(webuis: list[WebUI], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A LoRA from each web UI."""
    folder, found = tmp_path_factory.mktemp("taught"), []
    for webui in webuis:
        taste = webui.probe("begin", prompts=["a lake", "a hill"], sample=SAMPLE, train=TRAIN)
        webui.ask(f"/d3po/taste/{taste}/draw", {"groups": 18})
        webui.picks(taste, 18)
        webui.ask(f"/d3po/taste/{taste}/teach", {})
        webui.until(taste, lambda state: state["rounds"] and state["rounds"][0]["lora"])
        webui.ask(f"/d3po/taste/{taste}/stop", {})  # pictures before and after say nothing here
        webui.until(taste, lambda state: not state["work"])
        (lora,) = (webui.data / "models" / "Lora" / "d3po").glob("*.safetensors")
        found.append(folder / f"from-{webui.folder.name}.safetensors")
        shutil.copyfile(lora, found[-1])
    return found


def test_in_every_web_ui(webuis: list[WebUI], taught: list[Path]) -> None:
    for lora in taught:
        drawn = []
        for webui in webuis:
            here = webui.data / "models" / "Lora" / lora.name
            shutil.copyfile(lora, here)
            with_it = webui.draw(f"a lake <lora:{lora.stem}:1>")
            ours = webui.probe("picture", prompt="a lake", seed=3, steps=6, lora=str(here))
            assert apart(with_it, webui.draw("a lake")) > 1
            assert apart(with_it, pixels(ours)) <= 1
            drawn.append(with_it)
        # A1111's byte tokenizer, made for tests, is not the one that the Forge family ships
        alike = [picture for picture, webui in zip(drawn, webuis, strict=True) if webui.forge]
        assert all(apart(picture, alike[0]) <= 2 for picture in alike)
    for webui in webuis:
        log = webui.log.read_text(errors="replace")
        assert not [line for line in log.splitlines() if "unmatched keys" in line or "Mismatch" in line]
        assert "Traceback" not in log.split("Startup time")[-1]


said = pytest.fixture(warnings_of_diffusers)


def test_in_diffusers(taught: list[Path], said: list[str]) -> None:
    from diffusers import UNet2DConditionModel

    for lora in taught:
        unet = UNet2DConditionModel(
            **{"block_out_channels": (320, 320), "layers_per_block": 2, "cross_attention_dim": 768},
            **{"down_block_types": ("CrossAttnDownBlock2D",) * 2, "up_block_types": ("CrossAttnUpBlock2D",) * 2},
        )
        load_with_diffusers(unet, lora)
        layers = [module for module in unet.modules() if getattr(module, "lora_A", None)]
        assert len(layers) == sum(key.endswith("lora_up.weight") for key in load_lora(lora)[0]) > 10
    assert not said


@pytest.mark.skipif(COMFYUI is None, reason="no ComfyUI: name one with COMFYUI_DIR")
def test_in_comfyui(taught: list[Path], sd15: Path, tmp_path: Path) -> None:
    (tmp_path / "checkpoints").symlink_to(sd15.parent)
    script = ROOT / "tests" / "hosts" / "comfyui" / "inside_taught.py"
    command = [os.environ.get("COMFYUI_PYTHON", sys.executable), str(script), *map(str, taught), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_WAIT_POLICY": "passive"})
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found) == len(taught)
    for lora in taught:
        measured = found[lora.stem]
        assert not measured["complaints"] and measured["effect"] > 1e-3 and measured["error"] < 1e-5
        assert measured["patches"] == sum(key.endswith("lora_up.weight") for key in load_lora(lora)[0])
