"""Removes what killed processes left behind. It runs when a run is opened; what it cannot remove waits for the next."""

from __future__ import annotations

import shutil
import time
from contextlib import suppress
from pathlib import Path

from .base import CONDITIONING, GROUPS, ROUNDS, TRAJECTORY
from .database import Database
from .files import TEMPORARY
from .groups import ID

OLD = 600.0
"""Seconds after which a temporary file is taken for abandoned."""


def sweep(folder: Path, database: Database) -> None:
    """Remove abandoned temporary files, group folders without a row, and freed groups' tensors."""
    now = time.time()
    for path in _temporaries(folder):
        with suppress(OSError):
            if now - path.stat().st_mtime > OLD:
                _remove(path)
    with database.read() as connection:
        freed = connection.execute("SELECT id FROM groups WHERE freed").fetchall()
    for row in freed:
        with suppress(OSError):
            (folder / GROUPS / row["id"] / TRAJECTORY).unlink(missing_ok=True)
    if _orphans(folder, database):
        with database.write():  # nobody stands between renaming a folder and adding its row now
            for path in _orphans(folder, database):
                _remove(path)


def _temporaries(folder: Path) -> list[Path]:
    places = [folder, folder / CONDITIONING, folder / GROUPS, *(folder / ROUNDS).glob("*")]
    return [path for place in places for path in place.glob(f"*{TEMPORARY}*")]


def _orphans(folder: Path, database: Database) -> list[Path]:
    found = [path for path in (folder / GROUPS).glob("*") if ID.fullmatch(path.name)]
    with database.read() as connection:  # after the listing: a group added in between is known
        known = {row["id"] for row in connection.execute("SELECT id FROM groups")}
    return [path for path in found if path.name not in known]


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
