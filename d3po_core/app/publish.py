"""A LoRA where a host lists it: a copy under a name that is still free, because hosts remember LoRAs by name."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from ..errors import D3POError
from ..lora import unused_path, write_new
from ..run import Run, files


def publish(lora: Path, folder: Path, taken: Collection[str] = ()) -> Path:
    """Copy a LoRA file into a folder, and return the copy.

    Args:
        lora: in its run.
        folder: made when missing.
        taken: stems that are not free although no such file is in the folder.

    Raises:
        D3POError: the disk is full, the folder cannot be written to, or the file is missing.
    """
    return copy_to(lora, unused_path(folder, lora.stem, taken))


def copy_to(lora: Path, path: Path) -> Path:
    """Copy a LoRA file to a path that is still free, and return it.

    Raises:
        D3POError: there is a file of that name, or it cannot be written.
    """
    if path.exists():
        raise D3POError(f"There is a file {path} already.", "Choose another name: programs remember LoRAs by name.")
    with files.writing(path.parent):
        content = lora.read_bytes()
    write_new(path, content)
    return path


def lora_of(run: Run, round: int = 0) -> Path:
    """Return the LoRA file of a round, or of the policy that a run stands at.

    Args:
        run: the run.
        round: its number; 0 for the policy that samples now.

    Raises:
        D3POError: nothing was taught yet, there is no such round, or its file is missing.
    """
    file = run.rounds.lora(str(round) if round else run.rounds.current_policy())
    if file is None:
        raise D3POError(f"The taste '{run.name}' was not taught yet.", "Pick favourites, then press Teach.")
    return file
