"""The adapter against the host's own samplers, inside the host's process."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from .conftest import HOST, PYTHON


@pytest.fixture(scope="module")
def found(base: Path) -> dict[str, Any]:
    command = [
        PYTHON,
        str(Path(__file__).parent / "inside.py"),
        str(base / "models" / "checkpoints" / "tiny.safetensors"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "COMFYUI_DIR": str(HOST)})
    assert done.returncode == 0, done.stderr[-4000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("where", ["everywhere", "window"])
def test_pictures_are_bit_equal_to_the_hosts(found: dict[str, Any], where: str) -> None:
    assert found[where]["equal"] and found[where]["finite"]
    assert found[where]["different"] > 0  # the candidates differ
    assert found[where]["trained"] == 4 if where == "everywhere" else 0 < found[where]["trained"] < 4


def test_training_sees_what_sampling_saw(found: dict[str, Any]) -> None:
    assert found["off"]["guided"] <= 1e-4 and found["off"]["cond"] <= 1e-4
    assert found["off"]["on"] == 0  # a fresh LoRA changes nothing
    assert found["gradient"] > 0


def test_the_host_is_as_it_was(found: dict[str, Any]) -> None:
    assert found["after"] and found["after an exception"]
    assert found["hooks"] == 0 and found["kinds"] and not found["imported"]
