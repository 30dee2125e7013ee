"""LoRAs on models later than Stable Diffusion 3, against the host's own loader and sampler, inside its process."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from .conftest import HOST, PYTHON

MODELS = {
    "Flux.1": "flux1",
    **dict.fromkeys(("Flux.2", "Chroma", "HunyuanImage", "Qwen-Image", "Lumina 2", "Z-Image", "Wan"), "other"),
    **dict.fromkeys(("AuraFlow", "Cosmos-Predict2", "Ernie"), "other"),
}
"""The family that our LoRA files call each by."""
LAST_TEXT = ("transformer_blocks.1.txt_mlp.net.0.proj", "transformer_blocks.1.txt_mlp.net.2")
UNTAUGHT = {"Qwen-Image": {*LAST_TEXT, "transformer_blocks.1.attn.add_q_proj", "transformer_blocks.1.attn.to_add_out"}}
"""What the network computes and does not use: the text's side of its last block."""


@pytest.fixture(scope="module", params=MODELS)
def measures(request: pytest.FixtureRequest) -> dict[str, Any]:
    command = [PYTHON, str(Path(__file__).parent / "inside_later.py"), request.param]
    environment = {**os.environ, "COMFYUI_DIR": str(HOST), "OMP_WAIT_POLICY": "passive"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-4000:]
    return {"name": request.param, **json.loads(done.stdout.splitlines()[-1])}


def test_the_hosts_loader_takes_the_lora(measures: dict[str, Any]) -> None:
    assert measures["base"] == MODELS[measures["name"]]
    assert measures["complaints"] == [], "no key is left out"
    assert measures["patches"] == measures["layers"] > 0 and measures["read back"]
    assert measures["error"] < 1e-4 and measures["effect"] > 1e-2


def test_pictures_are_bit_equal_to_the_hosts(measures: dict[str, Any]) -> None:
    assert measures["sampling"]["equal"] and measures["sampling"]["finite"] and measures["sampling"]["different"] > 0


def test_every_layer_gets_the_gradient_that_differences_show(measures: dict[str, Any]) -> None:
    assert set(measures["untaught"]) == UNTAUGHT.get(measures["name"], set())
    assert abs(measures["slope"] - 1) < 0.02
    assert measures["computed twice"] < 1e-5, "gradient checkpointing changes nothing"
