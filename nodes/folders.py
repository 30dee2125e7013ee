"""Where ComfyUI keeps what is the user's: runs in its output folder, LoRAs in its LoRA folder, nothing in the pack."""

from __future__ import annotations

from pathlib import Path

import folder_paths

from ..d3po_core.errors import D3POError
from ..d3po_core.run import Run
from ..d3po_core.run.library import RunLibrary

AUTO = "auto"
"""The taste that belongs to the checkpoint."""
IS_AUTO, NAMED, SHAPE = "auto", "named", "shape"
"""In a run's settings: whether it was begun as "auto", what it was called then, and the shape of a picture's latents if
that was known."""
SUBFOLDER = "d3po"

_shelf: RunLibrary | None = None


def shelf() -> RunLibrary:
    """All tastes; one shelf for the host's life, so that nodes and gallery share open runs."""
    global _shelf
    folder = Path(folder_paths.get_output_directory()) / SUBFOLDER
    if _shelf is None or _shelf.folder != folder:
        _shelf = RunLibrary(folder)
    return _shelf


def lora_folder() -> Path:
    """Where taught LoRAs go: the first of the host's LoRA folders, which its loaders list."""
    return Path(folder_paths.get_folder_paths("loras")[0]) / SUBFOLDER


def find(taste: str, checkpoint: str | None = None) -> Run | None:
    """The run of a taste's name (or a former one) or id; for "auto" the newest that was begun as such on a checkpoint,
    or the newest of all where none is given. None if there is none.
    """
    taste, runs = taste.strip() or AUTO, shelf().runs()
    if taste == AUTO:
        own = (run for run in runs if run.settings.get(IS_AUTO) and run.model.get("name") == checkpoint)
        return next(iter(runs if checkpoint is None else own), None)
    by_name = (run for run in runs if taste in (run.name, run.run_id))
    return next(by_name, None) or next((run for run in runs if run.settings.get(NAMED) == taste), None)


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
