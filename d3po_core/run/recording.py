"""Recording of picks and flags, in as far as it is the same: both are rows of one table, see schema.py."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from ..errors import D3POError
from .schema import FLAGGED, JUDGED


@dataclass(frozen=True)
class Recorded:
    """A pick or flag that is on the disk.

    Attributes:
        pick_id: its id.
        new: False if it was recorded before.
        revision: the pick revision afterwards.
    """

    pick_id: str
    new: bool
    revision: int


def candidates_of(connection: sqlite3.Connection, group_id: str) -> int:
    """Return how many candidates a group has.

    Raises:
        D3POError: there is no such group.
    """
    group = connection.execute("SELECT candidates FROM groups WHERE id = ?", (group_id,)).fetchone()
    if group is None:
        raise D3POError(f"This run has no group with the id '{group_id}'.")
    return int(group["candidates"])


def is_recorded(connection: sqlite3.Connection, pick_id: str) -> bool:
    """Tell whether a pick or flag with this id was ever recorded."""
    return connection.execute("SELECT 1 FROM picks WHERE pick_id = ?", (pick_id,)).fetchone() is not None


def update_judged(connection: sqlite3.Connection, group_id: str) -> None:
    """Update `judged` and `flagged` of a group's row, in the transaction that changes its picks or flags."""
    connection.execute(f"UPDATE groups SET judged = {JUDGED}, flagged = {FLAGGED} WHERE id = ?", (group_id,))


def revision(connection: sqlite3.Connection) -> int:
    """Return the pick revision, a number that grows with each change of picks or flags."""
    return int(connection.execute("SELECT value FROM meta WHERE key = 'pick_revision'").fetchone()["value"])


def check_shown(judged: Collection[int], shown: Sequence[int], candidates: int) -> None:
    """Refuse an order in which a group cannot have been shown.

    Args:
        judged: candidates that were picked or flagged, so that they must have been seen.
        shown: candidate numbers in the order in which they were shown; empty if unknown.
        candidates: how many the group has.

    Raises:
        D3POError: `shown` repeats a candidate, names one that is not in the group, or lacks one that was judged.
    """
    if not shown:
        return
    if len(set(shown)) < len(shown) or not set(shown) <= set(range(candidates)):
        raise D3POError(f"This group of {candidates} candidates was not shown as {tuple(shown)}.")
    if not set(judged) <= set(shown):
        raise D3POError(f"Candidates {tuple(judged)} were judged, but not all were shown.")
