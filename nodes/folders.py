"""Where ComfyUI keeps what is the user's: runs in its output folder, LoRAs in its LoRA folder, nothing in the pack."""

from __future__ import annotations

from pathlib import Path

import folder_paths

from ..d3po_core.errors import D3POError
from ..d3po_core.gallery import Shelf
from ..d3po_core.run import Run

AUTO = "auto"
"""The taste that belongs to the checkpoint."""
SUBFOLDER = "d3po"

_shelf: Shelf | None = None


def shelf() -> Shelf:
    """All tastes; one shelf for the host's life, so that nodes and gallery share open runs."""
    global _shelf
    folder = Path(folder_paths.get_output_directory()) / SUBFOLDER
    if _shelf is None or _shelf.folder != folder:
        _shelf = Shelf(folder)
    return _shelf


def lora_folder() -> Path:
    """Where taught LoRAs go: the first of the host's LoRA folders, which its loaders list."""
    return Path(folder_paths.get_folder_paths("loras")[0]) / SUBFOLDER


def find(taste: str, checkpoint: str | None = None) -> Run | None:
    """The run of a taste's name or id; for "auto" the newest that was begun on a checkpoint, or the newest of all where
    none is given. None if there is none.
    """
    taste = taste.strip() or AUTO
    for run in shelf().runs():
        if taste in (run.name, run.run_id):
            return run
        if taste == AUTO and checkpoint in (None, run.model.get("name")):
            return run
    return None


def known(taste: str, checkpoint: str | None = None) -> Run:
    """The same, where there must be one.

    Raises:
        D3POError: there is none.
    """
    run = find(taste, checkpoint)
    if run is None:
        which = f"'{taste}'" if checkpoint is None or taste != AUTO else f"for {checkpoint}"
        raise D3POError(f"There is no taste {which}.", "Check its name, or sample and pick first.")
    return run
