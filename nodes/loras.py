"""Taught LoRAs in the host's own LoRA folder, and on its MODEL."""

from __future__ import annotations

import glob
import shutil
from pathlib import Path

from torch import Tensor

from ..d3po_core.lora import load_lora, unused_path
from ..d3po_core.lora.file import policy_id
from ..d3po_core.run import Run
from ..d3po_core.run.files import writing
from . import folders


def publish(run: Run, file: Path) -> Path:
    """Copy a round's LoRA to where the host's loaders list it, under a name that is still free: hosts cache by name."""
    target = unused_path(folders.lora_folder(), file.stem)
    with writing(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    return target


def listed(run: Run) -> str:
    """What the host's lists call the LoRA of the round that a run stands at; "" before anything was taught.

    Told by its content: another taste of the same name may have taken the file name.
    """
    policy = run.rounds.current_policy()
    file = run.rounds.lora(policy)
    alike = sorted(folders.lora_folder().glob(f"{glob.escape(file.stem)}*.safetensors")) if file else []
    return next((str(Path(folders.SUBFOLDER, path.name)) for path in alike if policy_id(path) == policy), "")


def read(file: Path) -> dict[str, Tensor]:
    """A LoRA file's tensors."""
    return load_lora(file)[0]
