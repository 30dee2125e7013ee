"""Taught LoRAs in the host's own LoRA folder, and on its MODEL."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from torch import Tensor

from ..d3po_core.lora import load_lora, unused_path
from ..d3po_core.run import Run
from ..d3po_core.run.files import writing
from . import folders
from .host import with_lora


def publish(run: Run, file: Path) -> Path:
    """Copy a round's LoRA to where the host's loaders list it, under a name that is still free: hosts cache by name."""
    target = unused_path(folders.lora_folder(), file.stem)
    with writing(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    return target


def listed(run: Run) -> str:
    """What the host's lists call the LoRA of the round that a run stands at; "" before anything was taught."""
    file = run.lora(run.current_policy())
    path = file and folders.lora_folder() / file.name
    return f"{folders.SUBFOLDER}/{path.name}" if path and path.is_file() else ""


def read(file: Path) -> dict[str, Tensor]:
    """A LoRA file's tensors."""
    return load_lora(file)[0]


def applied(model: Any, tensors: dict[str, Tensor]) -> Any:
    """A MODEL with the LoRA at strength 1, as the host's own loader would put it on."""
    return with_lora(model, tensors)
