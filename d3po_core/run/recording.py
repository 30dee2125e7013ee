"""What recording a pick and recording a flag have in common. Both are rows of one table, see schema.py."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from ..errors import D3POError
from .schema import FLAGGED, JUDGED


@dataclass(frozen=True)
class Recorded:
    """A pick or flag is on the disk. `new` is False if it was there before; `revision` is the pick revision since."""

    pick_id: str
    new: bool
    revision: int


def candidates_of(connection: sqlite3.Connection, group_id: str) -> int:
    """How many candidates a group has.

    Raises:
        D3POError: there is no such group.
    """
    group = connection.execute("SELECT candidates FROM groups WHERE id = ?", (group_id,)).fetchone()
    if group is None:
        raise D3POError(f"This run has no group with the id '{group_id}'.")
    return int(group["candidates"])


def is_recorded(connection: sqlite3.Connection, pick_id: str) -> bool:
    """Whether a pick or flag with this id was ever recorded."""
    return connection.execute("SELECT 1 FROM picks WHERE pick_id = ?", (pick_id,)).fetchone() is not None


def update_judged(connection: sqlite3.Connection, group_id: str) -> None:
    """Bring what the group's row says of picks and flags up to date, in the transaction that changes them."""
    connection.execute(f"UPDATE groups SET judged = {JUDGED}, flagged = {FLAGGED} WHERE id = ?", (group_id,))


def revision(connection: sqlite3.Connection) -> int:
    """The pick revision as it is."""
    return int(connection.execute("SELECT value FROM meta WHERE key = 'pick_revision'").fetchone()["value"])


def check_shown(named: Collection[int], shown: Sequence[int], candidates: int) -> None:
    """Raises D3POError unless a group of so many candidates can have been shown in this order, or in none.

    Args:
        named: candidates of which something was said, so that they must have been seen.
        shown: in the order in which they were shown; empty if it was not told.
        candidates: how many the group has.
    """
    if not shown:
        return
    if len(set(shown)) < len(shown) or not set(shown) <= set(range(candidates)):
        raise D3POError(f"This group of {candidates} candidates was not shown as {tuple(shown)}.")
    if not set(named) <= set(shown):
        raise D3POError(f"Something is said of candidates {tuple(named)}, of which not all were shown.")
