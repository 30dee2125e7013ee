"""Picks as they were made: recorded before the call returns, superseded and taken back, never deleted.

A person's picks are a stack. The pick that stands on a group is their last one there that was not taken back, so undo
after a change of mind brings the earlier pick back. Pairs are derived elsewhere and never stored.
"""

from __future__ import annotations

import json
import sqlite3
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import D3POError
from ..picks import Pick, check_pick
from .base import Base, count_up
from .schema import JUDGED


@dataclass(frozen=True)
class StoredPick:
    """A recorded pick.

    Attributes:
        who: the person, as the client named them.
        when: seconds since 1970.
        shown_order: candidate numbers in the order in which they were shown, if it was told.
        decision_ms: milliseconds between showing and picking, if it was told.
        undone: when it was taken back; None while it was not.
    """

    pick_id: str
    group_id: str
    pick: Pick
    who: str
    when: float
    shown_order: tuple[int, ...]
    decision_ms: float | None
    reason: str
    undone: float | None


@dataclass(frozen=True)
class Recorded:
    """A pick is on the disk. `new` is False if it was so before; `revision` is the run's pick revision since."""

    pick_id: str
    new: bool
    revision: int


class Judgements(Base):
    """The part of a run that keeps picks."""

    def add_pick(
        self,
        group_id: str,
        pick: Pick,
        *,
        pick_id: str | None = None,
        who: str = "",
        shown_order: Sequence[int] = (),
        decision_ms: float | None = None,
        reason: str = "",
    ) -> Recorded:
        """Record a pick; it is on the disk when this returns. It supersedes the person's earlier pick on the group.

        Args:
            group_id: the group judged.
            pick: what was said.
            pick_id: the client's own id of this pick: a second call with it records nothing, whatever else it says.
            who, shown_order, decision_ms, reason: as in `StoredPick`.

        Raises:
            D3POError: the group is unknown, the pick does not fit it, or the disk is full.
        """
        pick_id = pick_id or uuid.uuid4().hex
        with self._database.write() as connection:
            group = connection.execute("SELECT candidates FROM groups WHERE id = ?", (group_id,)).fetchone()
            if group is None:
                raise D3POError(f"This run has no group with the id '{group_id}'.")
            check_pick(pick, group["candidates"])
            check_shown(pick, shown_order, group["candidates"])
            if reason == "repeat" and not _stands(connection, group_id, who):
                reason = ""  # there is nothing to be consistent with, so it is a pick like any other
            if connection.execute("SELECT 1 FROM picks WHERE pick_id = ?", (pick_id,)).fetchone():
                return Recorded(pick_id, False, _revision(connection))
            connection.execute(
                """INSERT INTO picks (pick_id, group_id, who, kind, chosen, scores, shown_order, decision_ms, reason,
                created) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
                (
                    *(pick_id, group_id, who, pick.kind, json.dumps(pick.order), json.dumps(pick.scores)),
                    *(json.dumps(list(shown_order)), decision_ms, reason, time.time()),
                ),
            )
            connection.execute("DELETE FROM leases WHERE group_id = ?", (group_id,))
            _judge(connection, group_id)
            return Recorded(pick_id, True, count_up(connection, "pick_revision"))

    def undo(self, who: str = "") -> StoredPick | None:
        """Take back a person's last pick that still counts, and return it; None if there is none left."""
        last = self.last_pick(who)
        return last and self.take_back(last.pick_id)

    def take_back(self, pick_id: str) -> StoredPick:
        """Take back one pick, the last or an older one; doing it twice changes nothing more.

        Raises:
            D3POError: there is no such pick.
        """
        with self._database.write() as connection:
            changed = connection.execute(
                "UPDATE picks SET undone = ? WHERE pick_id = ? AND undone IS NULL", (time.time(), pick_id)
            ).rowcount
            row = connection.execute("SELECT * FROM picks WHERE pick_id = ?", (pick_id,)).fetchone()
            if changed:
                _judge(connection, row["group_id"])
                count_up(connection, "pick_revision")
        if row is None:
            raise D3POError(f"This run has no pick with the id '{pick_id}'.")
        return _stored(row)

    def remove(self, pick_id: str) -> None:
        """Take back a pick and all earlier ones of the same person on the same group, so that none comes back to life.

        Raises:
            D3POError: there is no such pick.
        """
        with self._database.write() as connection:
            row = connection.execute("SELECT * FROM picks WHERE pick_id = ?", (pick_id,)).fetchone()
            if row is None:
                raise D3POError(f"This run has no pick with the id '{pick_id}'.")
            if row["undone"] is None:  # else it was said before, and what came after is meant
                connection.execute(
                    """UPDATE picks SET undone = ? WHERE group_id = ? AND who = ? AND undone IS NULL AND serial <= ?""",
                    (time.time(), row["group_id"], row["who"], row["serial"]),
                )
                _judge(connection, row["group_id"])
                count_up(connection, "pick_revision")

    def has_pick(self, pick_id: str) -> bool:
        """Whether this pick was ever recorded."""
        with self._database.read() as connection:
            return connection.execute("SELECT 1 FROM picks WHERE pick_id = ?", (pick_id,)).fetchone() is not None

    def last_pick(self, who: str = "") -> StoredPick | None:
        """A person's last pick that still counts."""
        with self._database.read() as connection:
            row = connection.execute(
                "SELECT * FROM picks WHERE who = ? AND undone IS NULL ORDER BY serial DESC LIMIT 1", (who,)
            ).fetchone()
        return row and _stored(row)

    def picks(self, *, who: str | None = None) -> list[StoredPick]:
        """The picks that stand: one for each person and group, in the order in which they were made."""
        return self._picks("standing", who)

    def pick_history(self, *, who: str | None = None) -> list[StoredPick]:
        """Every pick ever made, superseded and undone ones too, in the order in which they were made."""
        return self._picks("picks", who)

    @property
    def pick_revision(self) -> int:
        """A number that changes whenever the standing picks change."""
        with self._database.read() as connection:
            return _revision(connection)

    def _picks(self, table: str, who: str | None) -> list[StoredPick]:
        with self._database.read() as connection:
            rows = connection.execute(
                f"SELECT * FROM {table} WHERE :who IS NULL OR who = :who ORDER BY serial", {"who": who}
            ).fetchall()
        return [_stored(row) for row in rows]


def check_shown(pick: Pick, shown: Sequence[int], candidates: int) -> None:
    """Raises D3POError unless a group of so many candidates can have been shown in this order, or in none."""
    if not shown:
        return
    if len(set(shown)) < len(shown) or not set(shown) <= set(range(candidates)):
        raise D3POError(f"This group of {candidates} candidates was not shown as {tuple(shown)}.")
    if not set(pick.order) <= set(shown):
        raise D3POError(f"The pick {pick.order} names a candidate that was not shown.")


def _stands(connection: sqlite3.Connection, group_id: str, who: str) -> bool:
    query = "SELECT 1 FROM standing WHERE group_id = ? AND who = ?"
    return connection.execute(query, (group_id, who)).fetchone() is not None


def _judge(connection: sqlite3.Connection, group_id: str) -> None:
    connection.execute(f"UPDATE groups SET judged = {JUDGED} WHERE id = ?", (group_id,))


def _revision(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT value FROM meta WHERE key = 'pick_revision'").fetchone()["value"])


def _stored(row: sqlite3.Row) -> StoredPick:
    pick = Pick(row["kind"], tuple(json.loads(row["chosen"])), tuple(json.loads(row["scores"])))
    return StoredPick(
        row["pick_id"],
        row["group_id"],
        pick,
        row["who"],
        row["created"],
        tuple(json.loads(row["shown_order"])),
        row["decision_ms"],
        row["reason"],
        row["undone"],
    )
