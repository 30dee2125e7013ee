"""What every part of a run stands on: its folder, its database, and the names of the files in it."""

from __future__ import annotations

import math
import sqlite3
from pathlib import Path
from typing import Any

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
"""In the place of a policy: a group of pictures that nobody here drew, so it has no trajectory."""


class Part:
    """One part of a run.

    Args:
        folder: where the run lies now.
        database: of the run; all parts share it.
    """

    def __init__(self, folder: Path, database: Database) -> None:
        self.folder = folder
        self._database = database


def count_up(connection: sqlite3.Connection, key: str, at_least: int = 0) -> int:
    """Raise a counter kept in `meta` by one, or to `at_least`, inside the caller's transaction; the new value."""
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    value = max(int(row["value"]) + 1, at_least)
    connection.execute("UPDATE meta SET value = ? WHERE key = ?", (str(value), key))
    return value


def finite(value: Any) -> Any:
    """The same JSON-able value with None for NaN and infinity, which JSON does not have and browsers refuse."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
