"""Flags: a person marks one candidate as defective or unsafe, beside the pick on its group.

They are recorded as picks are: before the call returns, once for each id, taken back but never deleted. A person's
newest flag on a candidate counts. A flag on an image that the same person picked as the favourite afterwards does not
stand until that pick is taken back.
"""

from __future__ import annotations

import json
import sqlite3
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from ..picks import FLAGS, FlagKind, check_flag
from .database import Part, count_up
from .records import Recorded, candidates_of, check_shown, is_recorded, revision, update_judged


@dataclass(frozen=True)
class StoredFlag:
    """A recorded flag.

    Attributes:
        flag_id: unique among the ids of picks and flags.
        candidate: its number in the group.
        on: whether the flag was put on; False if it was taken off.
        who: the person, as the client named them.
        when: seconds since 1970.
        shown_order: candidate numbers in the order in which they were shown, if known.
        reason: why the group was shown, as in `Lease`, or "imported".
        undone: when it was taken back; None if it was not.
    """

    flag_id: str
    group_id: str
    candidate: int
    kind: FlagKind
    on: bool
    who: str
    when: float
    shown_order: tuple[int, ...]
    reason: str
    undone: float | None


class Flags(Part):
    """Keeps flags."""

    def add(
        self,
        group_id: str,
        candidate: int,
        kind: FlagKind,
        *,
        on: bool = True,
        flag_id: str | None = None,
        who: str = "",
        shown_order: Sequence[int] = (),
        reason: str = "",
    ) -> Recorded:
        """Put a flag on a candidate, or take it off; it is on the disk when this returns.

        Args:
            group_id: of the candidate.
            candidate: its number in the group.
            kind: "defective" or "unsafe"; a candidate may have both.
            on: False takes the person's flag of this kind off again.
            flag_id: the client's own id: a second call with the same one records nothing, whatever its other values.
            who, shown_order, reason: as in `StoredFlag`.

        Raises:
            D3POError: the group, the candidate or the kind is unknown, or the disk is full.
        """
        flag_id = flag_id or uuid.uuid4().hex
        with self._database.write() as connection:
            candidates = candidates_of(connection, group_id)
            check_flag(kind, candidate, candidates)
            check_shown([candidate], shown_order, candidates)
            if is_recorded(connection, flag_id):
                return Recorded(flag_id, False, revision(connection))
            connection.execute(
                """INSERT INTO picks (pick_id, group_id, who, kind, chosen, scores, shown_order, reason, created)
                VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)""",
                (
                    *(flag_id, group_id, who, kind, json.dumps([candidate]), json.dumps([int(on)])),
                    *(json.dumps(list(shown_order)), reason, time.time()),
                ),
            )
            update_judged(connection, group_id)
            return Recorded(flag_id, True, count_up(connection, "pick_revision"))

    def standing(self, *, who: str | None = None, group_id: str | None = None) -> list[StoredFlag]:
        """Return the flags that stand, in the order in which they were put.

        Args:
            who: one person; None for everybody.
            group_id: one group; None for all.
        """
        with self._database.read() as connection:
            return standing_flags(connection, who=who, group_id=group_id)

    def history(self, *, who: str | None = None) -> list[StoredFlag]:
        """Return every flag ever put or taken off, also those taken back, in the order in which they came."""
        with self._database.read() as connection:
            return _select(connection, "picks", who, None)


def standing_flags(
    connection: sqlite3.Connection, *, who: str | None = None, group_id: str | None = None
) -> list[StoredFlag]:
    """Return what `Flags.standing` returns, for other parts of a run."""
    return _select(connection, "flags", who, group_id)


def _select(connection: sqlite3.Connection, table: str, who: str | None, group_id: str | None) -> list[StoredFlag]:
    rows = connection.execute(
        f"""SELECT * FROM {table} WHERE kind IN ('defective', 'unsafe') AND (:who IS NULL OR who = :who)
        AND (:group_id IS NULL OR group_id = :group_id) ORDER BY serial""",
        {"who": who, "group_id": group_id},
    )
    return [flag_of(row) for row in rows]


def flag_of(row: sqlite3.Row) -> StoredFlag:
    """Convert a row of `picks` that holds a flag."""
    (candidate,), (on,) = json.loads(row["chosen"]), json.loads(row["scores"])
    return StoredFlag(
        flag_id=row["pick_id"],
        group_id=row["group_id"],
        candidate=candidate,
        kind=row["kind"],
        on=bool(on),
        who=row["who"],
        when=row["created"],
        shown_order=tuple(json.loads(row["shown_order"])),
        reason=row["reason"],
        undone=row["undone"],
    )


def is_flag(row: sqlite3.Row) -> bool:
    """Return whether a row of `picks` holds a flag."""
    return row["kind"] in FLAGS
