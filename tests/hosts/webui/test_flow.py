"""Flow models in Forge Neo: what is recorded is what the host draws, and a LoRA of it is put on everywhere.

The models are those of flow_checkpoint.py, random and small. Other web UIs refuse such models or cannot load them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

from .host import ROOT, WebUI, apart, pixels

COMFYUI = os.environ.get("COMFYUI_DIR")
SAMPLE = {"steps": 4, "candidates": 2, "width": 64, "height": 64, "held_out": 0.0, "guidance_scale": 1.0}
TRAIN = {"epochs": 2, "learning_rate": 1e-2, "judge": False}
FLOW = {"slider": 5.0, "schedule": "Beta"}


@pytest.fixture(scope="module")
def checkpoint(flow_model: Path) -> Path:
    return flow_model


def drawn(webui: WebUI, prompt: str, guidance_scale: float = 1.0, slider: float = 3.0, schedule: str = "Simple") -> Any:
    """An ordinary picture of the host's."""
    more = {"scheduler": schedule, "cfg_scale": guidance_scale, "distilled_cfg_scale": slider}
    return webui.draw(prompt, steps=4, **more)


def ours(webui: WebUI, prompt: str, **more: Any) -> Any:
    """The same picture, by our denoiser."""
    return pixels(
        webui.probe("picture", prompt=prompt, seed=3, steps=4, **{"guidance_scale": 1.0, "slider": 3.0} | more)
    )


def layers(lora: Path) -> int:
    """How many layers a LoRA's file has."""
    with safe_open(lora, "pt") as file:
        return sum(name.endswith(("lora_up.weight", "lora_B.weight")) for name in file.keys())  # noqa: SIM118


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"guidance_scale": 3.0},
        {"slider": 7.0},
        {"schedule": "Beta"},
        {"schedule": "Normal", "guidance_scale": 2.0},
        {"schedule": "Flux2", "slider": 2.0},
        {"schedule": "Karras"},
    ],
    ids=str,
)
def test_pictures_are_the_hosts(webui: WebUI, how: dict[str, Any]) -> None:
    picture = ours(webui, "a lake", **how)
    assert apart(picture, drawn(webui, "a lake", **how)) <= 1
    assert apart(picture, drawn(webui, "something else", **how)) > 5


def test_a_lora_that_is_off_changes_no_bit(webui: WebUI) -> None:
    alone = webui.probe("prediction", prompt="a lake", sigma=0.7)
    assert webui.probe("prediction", prompt="a lake", sigma=0.7, attached=True) == alone


def test_gradients_are_those_of_finite_differences(webui: WebUI) -> None:
    kept = {}
    for checkpointing in (False, True):
        slopes = webui.probe("gradient", prompt="a lake", sigma=0.7, checkpointing=checkpointing)
        assert slopes["autograd"] == pytest.approx(slopes["differences"], rel=0.02), checkpointing
        kept[checkpointing] = slopes["kept"]
    assert kept[True] < kept[False]


def test_the_host_puts_on_every_layer_of_a_lora(webui: WebUI) -> None:
    folder = webui.data / "models" / "Lora"
    folder.mkdir(exist_ok=True)
    base = drawn(webui, "a lake")
    for targets in ("attention", "all"):
        lora = folder / f"random-{targets}.safetensors"
        assert webui.probe("random_lora", file=str(lora), targets=targets) > 0
        with_it = drawn(webui, f"a lake <lora:{lora.stem}:1>")
        assert apart(with_it, base) > 5
        assert apart(with_it, ours(webui, "a lake", lora=str(lora))) <= 1
    assert np.array_equal(drawn(webui, "a lake"), base)
    log = webui.log.read_text(errors="replace")
    assert not [line for line in log.splitlines() if "unmatched" in line.lower() or "mismatch" in line.lower()]


@pytest.mark.skipif(COMFYUI is None, reason="no ComfyUI: name one with COMFYUI_DIR")
def test_comfyui_puts_on_every_layer_of_a_lora(webui: WebUI, checkpoint: Path, tmp_path: Path) -> None:
    lora = tmp_path / "random.safetensors"
    webui.probe("random_lora", file=str(lora), targets="all")
    script = ROOT / "tests" / "hosts" / "comfyui" / "inside_webui_lora.py"
    command = [os.environ.get("COMFYUI_PYTHON", sys.executable), str(script), str(checkpoint), str(lora)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_WAIT_POLICY": "passive"})
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) == {"patches": patches(lora), "complaints": []}


def patches(lora: Path) -> int:
    """How many of ComfyUI's weights a file changes; of Flux's, several of the file's layers are one of the host's."""
    with safe_open(lora, "pt") as file:
        names = {name.rsplit(".lora_", 1)[0] for name in file.keys() if ".lora_" in name}  # noqa: SIM118
    joined = {"to_q": "qkv", "to_k": "qkv", "to_v": "qkv", "proj_mlp": "qkv"}
    added = {"add_q_proj": "added", "add_k_proj": "added", "add_v_proj": "added"}
    one = {**joined, **added}
    if not any(name.startswith("transformer.") for name in names):
        return len(names)
    return len({".".join(one.get(part, part) for part in name.split(".") if part != "attn") for name in names})


def test_a_taste_is_taught_and_the_host_is_as_it_was(webui: WebUI, checkpoint: Path) -> None:
    before, weights = drawn(webui, "a lake", slider=5.0), webui.probe("weights")
    taste = webui.probe("begin", prompts=["a lake", "a hill"], flow=FLOW, sample=SAMPLE, train=TRAIN)
    webui.ask(f"/d3po/taste/{taste}/draw", {"groups": 18})
    webui.picks(taste, 18)
    webui.ask(f"/d3po/taste/{taste}/teach", {})
    webui.until(taste, lambda state: state["rounds"] and state["rounds"][0]["lora"])
    webui.ask(f"/d3po/taste/{taste}/stop", {})  # pictures before and after say nothing of random networks
    webui.until(taste, lambda state: not state["work"])
    (lora,) = (webui.data / "models" / "Lora" / "d3po").glob("*.safetensors")
    assert np.array_equal(drawn(webui, "a lake", slider=5.0), before) and webui.probe("weights") == weights
    taught = drawn(webui, f"a lake <lora:{lora.stem}:1>", slider=5.0)
    assert apart(taught, before) > 0
    assert apart(taught, ours(webui, "a lake", slider=5.0, lora=str(lora))) <= 1
    levels = webui.probe("recorded_levels", taste=taste)
    assert levels == pytest.approx(webui.probe("levels", steps=4, **FLOW)[: len(levels)], rel=1e-6)
    assert levels != webui.probe("levels", steps=4, slider=5.0, schedule="Simple")[: len(levels)]
    shutil.rmtree(lora.parent)


def test_a_rewards_gradient_reaches_every_matrix(webui: WebUI) -> None:
    slopes = webui.probe("reward_gradient", prompt="a lake", reward="warmth")
    assert slopes["reached"] == slopes["of"] > 5
    assert slopes["autograd"] == pytest.approx(slopes["differences"], rel=0.03)


def test_pictures_go_in_and_out_as_in_the_host(webui: WebUI) -> None:
    coded = webui.probe("coded", seed=3)
    assert coded["picture"] < 1e-3
    assert coded["off"] < 0.5 * coded["noise"] + 1e-4


def test_weights_that_pass_no_gradient_are_refused_before_the_model_is_moved(webui: WebUI) -> None:
    kinds = webui.probe("without_gradient")
    passing = {name for name, without in kinds.items() if not without}
    assert passing == {"plain", "gguf"} and len(kinds) >= 4
    answer = webui.probe("quantised")
    assert answer["said"].startswith("No gradient passes through the quantised weights") and answer["moved"] == 0
    assert "in 16 bits" in answer["said"]
    assert webui.probe("prediction", prompt="a lake", sigma=0.7)  # and it goes on
