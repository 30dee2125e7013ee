"""Reading a source of any kind, by what its path holds."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import D3POError
from .folders import LOSERS, WINNERS, read_folders
from .jsonl import read_rows
from .judged import JudgedImages, drop_contradictions

LINES = ".jsonl"
METADATA = "metadata.jsonl"
KINDS = f"Choose a {LINES} file, or a folder that holds {METADATA} or {WINNERS} and {LOSERS}."


def read_source(path: str | Path, confined: bool = False) -> JudgedImages:
    """Read the judged images of a source; every image is opened and checked.

    Args:
        path: a folder with `winners` and `losers`, a folder with a data set's `metadata.jsonl`, or a `.jsonl` file.
        confined: whether to leave out lines that name images outside of the source's folder, without looking for those:
            for sources that a stranger may have written.

    Returns:
        The groups that can be used, and what is left out for which reason.

    Raises:
        D3POError: the path is none of these, or nothing in it can be used.
    """
    path = Path(os.path.expanduser(path))
    judged = drop_contradictions(_read(path, confined))
    if not judged:
        first = judged.left_out[0]
        count = sum(each.groups for each in judged.left_out)
        raise D3POError(f"Nothing in {path} can be used ({count} left out). {first}", safe="Nothing was imported.")
    return judged


def _read(path: Path, confined: bool) -> JudgedImages:
    if path.is_dir():
        if (path / METADATA).is_file():
            return read_rows(path / METADATA, confined)
        if (path / WINNERS).is_dir() or (path / LOSERS).is_dir():
            return read_folders(path)
        state = "is empty" if not any(path.iterdir()) else f"holds neither {METADATA} nor {WINNERS} nor {LOSERS}"
        raise D3POError(f"The folder {path} {state}.", KINDS)
    if not path.is_file():
        raise D3POError(f"There is no file or folder {path}.", KINDS)
    if path.suffix.lower() == ".parquet":
        raise D3POError(
            f"{path.name} is a Parquet file, which is not read.",
            f"Extract its pictures into files, and write its rows to a {LINES} file with their paths.",
        )
    if path.suffix.lower() != LINES:
        raise D3POError(f"{path.name} is not a {LINES} file.", KINDS)
    return read_rows(path, confined)
