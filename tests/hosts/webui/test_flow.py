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


@pytest.mark.parametrize("negative", ["", "blurry and dark, a long list of words that nobody wants to see"])
def test_a_batch_of_a_taste_is_what_the_host_draws(webui: WebUI, negative: str) -> None:
    how = {"prompts": ["a lake"] * 2, "seeds": [3, 4], "negative": negative, "guidance_scale": 2.0, "slider": 3.0}
    for seed, picture in zip((3, 4), webui.probe("drawn", steps=4, **how), strict=True):
        more = {"scheduler": "Simple", "cfg_scale": 2.0, "distilled_cfg_scale": 3.0, "seed": seed}
        assert apart(pixels(picture), webui.draw("a lake", steps=4, negative_prompt=negative, **more)) <= 1


@pytest.mark.parametrize("negative", ["", "dark", "a dark lake at night", "blurry and dark, long ago and far away"])
def test_a_prompts_branch_is_the_same_alone(webui: WebUI, negative: str) -> None:
    both, alone = webui.probe("cond_branch", prompt="a lake", negative=negative)
    assert alone == pytest.approx(both, rel=1e-4, abs=1e-4)


def test_what_follows_a_break_is_left_out_or_in_as_by_the_host(webui: WebUI) -> None:
    picture = pixels(webui.probe("drawn", prompts=["a lake BREAK a hill"] * 2, seeds=[3, 4], steps=4, slider=3.0)[0])
    assert apart(picture, drawn(webui, "a lake BREAK a hill")) <= 1


def test_the_models_own_shift_is_not_that_of_the_users_last_picture(webui: WebUI) -> None:
    before = webui.probe("levels", steps=4, slider=0.0, schedule="Simple")
    drawn(webui, "a lake", slider=9.0)
    assert webui.probe("levels", steps=4, slider=0.0, schedule="Simple") == before


@pytest.mark.parametrize("schedule", ["Align Your Steps", "DDIM", "Nobody's"])
def test_a_schedule_that_does_not_fit_is_refused_at_begin(webui: WebUI, schedule: str) -> None:
    sample = {"steps": 30, "width": 64, "height": 64}
    with pytest.raises(AssertionError, match="schedule type"):
        webui.probe("begin", prompts=["a lake"], flow={"schedule": schedule}, sample=sample)


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
    slopes = [
        webui.probe("reward_gradient", prompt="a lake", reward="warmth", checkpointing=on) for on in (False, True)
    ]
    for each in slopes:
        assert each["reached"] == each["of"] > 5
        assert each["autograd"] == pytest.approx(each["differences"], rel=0.03)
    assert slopes[1]["autograd"] == pytest.approx(slopes[0]["autograd"], rel=1e-3)


def test_pictures_go_in_and_out_as_in_the_host(webui: WebUI) -> None:
    coded = webui.probe("coded", seed=3)
    assert coded["picture"] < 1e-3
    assert coded["off"] < 0.5 * coded["noise"] + 1e-4


def test_quantised_weights_are_refused_before_the_model_is_moved(webui: WebUI) -> None:
    kinds = webui.probe("quantised_kinds")
    assert [name for name, is_one in kinds.items() if not is_one] == ["plain"] and len(kinds) == 4
    answer = webui.probe("quantised")
    assert answer["said"].startswith("Nothing can be taught to the quantised weights") and answer["moved"] == 0
    assert "in 16 bits" in answer["said"]
    assert webui.probe("prediction", prompt="a lake", sigma=0.7)  # and it goes on
