"""Where ComfyUI keeps what is the user's: runs in its output folder, LoRAs in its LoRA folder, nothing in the pack."""

from __future__ import annotations

import glob
from pathlib import Path

import folder_paths

from ..d3po_core.errors import D3POError
from ..d3po_core.run import Run, policy_id
from ..d3po_core.run.run import RunLibrary

AUTO = "auto"
"""The taste that belongs to the checkpoint."""
IS_AUTO, NAMED = "auto", "named"
"""In a run's settings: whether it was begun as "auto", and what it was called then."""
SUBFOLDER = "d3po"

_library: RunLibrary | None = None


def library() -> RunLibrary:
    """Return all tastes; one library for the host's life, so that nodes and gallery share open runs."""
    global _library
    folder = Path(folder_paths.get_output_directory()) / SUBFOLDER
    if _library is None or _library.folder != folder:
        _library = RunLibrary(folder)
    return _library


def lora_folder() -> Path:
    """Return where trained LoRAs go: the first of the host's LoRA folders, which its loaders list."""
    return Path(folder_paths.get_folder_paths("loras")[0]) / SUBFOLDER


def lora_name(run: Run) -> str:
    """Return what the host's lists call the LoRA of the round that a run stands at; "" before anything was trained.

    Its content decides: another taste of the same name may have taken the file name.
    """
    policy = run.rounds.current_policy()
    file = run.rounds.lora(policy)
    alike = sorted(lora_folder().glob(f"{glob.escape(file.stem)}*.safetensors")) if file else []
    return next((str(Path(SUBFOLDER, path.name)) for path in alike if policy_id(path) == policy), "")


def is_auto(taste: str) -> bool:
    """Return whether a node's taste is none in particular."""
    return taste.strip() in ("", AUTO)


def find(taste: str, checkpoint: str | None = None) -> Run | None:
    """Return the run of a taste, or None.

    Args:
        taste: its name, a former name, or its id; "auto" for the newest that was begun as such on a checkpoint.
        checkpoint: None for the newest of all where the taste is "auto".
    """
    taste, runs = taste.strip() or AUTO, library().runs()
    if taste == AUTO:
        own = (run for run in runs if run.settings.get(IS_AUTO) and run.model.get("name") == checkpoint)
        return next(iter(runs if checkpoint is None else own), None)
    by_name = (run for run in runs if taste in (run.name, run.run_id))
    return next(by_name, None) or next((run for run in runs if run.settings.get(NAMED) == taste), None)


def get(taste: str, checkpoint: str | None = None) -> Run:
    """Return the run of a taste, see `find`.

    Raises:
        D3POError: there is none.
    """
    run = find(taste, checkpoint)
    if run is None:
        which = f"'{taste}'" if checkpoint is None or taste != AUTO else f"for {checkpoint}"
        raise D3POError(f"There is no taste {which}.", "Check its name, or sample and pick first.")
    return run
