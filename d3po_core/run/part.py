"""What every part of a run has: its folder, its database, and the names of the files in it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from .database import Database

DATABASE = "run.sqlite3"
MANIFEST = "manifest.json"
METRICS = "metrics.jsonl"
LOCK = "trainer.lock"
GROUPS = "groups"
CONDITIONING = "conditioning"
ROUNDS = "rounds"
TRAJECTORY = "trajectory.safetensors"
STATE = "state.safetensors"
IMPORTED = "imported"
"""Stored as the policy of a group whose images were imported, so that it has no trajectory."""


class Part:
    """One part of a run.

    Args:
        folder: where the run is now.
        database: of the run; all parts share it.
    """

    def __init__(self, folder: Path, database: Database) -> None:
        self.folder = folder
        self._database = database

    def _round_folder(self, round: int) -> Path:
        """Return where the files of a round belong; it may not exist yet."""
        return self.folder / ROUNDS / f"{round:04}"


def count_up(connection: sqlite3.Connection, key: str, at_least: int = 0) -> int:
    """Raise a counter in `meta` by one, or to `at_least`, inside the caller's transaction, and return the new value."""
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    value = max(int(row["value"]) + 1, at_least)
    connection.execute("UPDATE meta SET value = ? WHERE key = ?", (str(value), key))
    return value
