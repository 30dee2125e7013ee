"""Which kind of source a path is."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import D3POError
from .contradictions import without_contradictions
from .folders import LOSERS, WINNERS, read_folders
from .jsonl import read_rows
from .judged import FoundImages

LINES = ".jsonl"
METADATA = "metadata.jsonl"
KINDS = f"Choose a {LINES} file, or a folder that holds {METADATA} or {WINNERS} and {LOSERS}."


def read_source(path: str | Path, confined: bool = False) -> FoundImages:
    """All judged pictures of a source that can be used, looked at one by one, and what is left out and why.

    Args:
        path: a folder with `winners` and `losers`, a folder with a data set's `metadata.jsonl`, or a `.jsonl` file.
        confined: whether lines that name pictures outside of the source's folder are left out, and those not even
            looked for: who wrote the lines may be a stranger to this computer.

    Raises:
        D3POError: it is none of these, or nothing in it can be used.
    """
    path = Path(os.path.expanduser(path))
    found = without_contradictions(_read(path, confined))
    if not found:
        first = found.left_out[0]
        count = sum(each.groups for each in found.left_out)
        raise D3POError(f"Nothing in {path} can be used ({count} left out). {first}", safe="Nothing was imported.")
    return found


def _read(path: Path, confined: bool) -> FoundImages:
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
