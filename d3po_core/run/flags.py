"""Flags: a person says of one candidate that it is defective, or unsafe. They stand beside the pick on its group.

Recorded as picks are: before the call returns, once for each id, taken back but never deleted. The last word of a
person on a candidate counts, and so does preferring it: a flag on a picture that the person then picked as the
favourite does not stand, until that pick is taken back.
"""

from __future__ import annotations

import json
import sqlite3
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from ..picks import FLAGS, FlagKind, check_flag
from .part import Part, count_up
from .recording import Recorded, candidates_of, check_shown, is_recorded, revision, update_judged


@dataclass(frozen=True)
class StoredFlag:
    """A recorded flag.

    Attributes:
        flag_id: among those of picks.
        candidate: its number in the group.
        on: put, or taken off again.
        who: the person, as the client named them.
        when: seconds since 1970.
        shown_order: candidate numbers in the order in which they were shown, if it was told.
        undone: when it was taken back; None while it was not.
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
    """The part of a run that keeps flags."""

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
            group_id, candidate: what is flagged.
            kind: "defective" or "unsafe"; a candidate may have both.
            on: False takes the person's flag of this kind off again.
            flag_id: the client's own id: a second call with it records nothing, whatever else it says.
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
        """The flags that stand, in the order in which they were put.

        Args:
            who: one person; None for everybody.
            group_id: one group; None for all.
        """
        return self._flags("flags", who, group_id)

    def history(self, *, who: str | None = None) -> list[StoredFlag]:
        """All that was ever said with flags, what was taken off or back too, in the order in which it was said."""
        return self._flags("picks", who, None)

    def _flags(self, table: str, who: str | None, group_id: str | None) -> list[StoredFlag]:
        with self._database.read() as connection:
            rows = connection.execute(
                f"""SELECT * FROM {table} WHERE kind IN ('defective', 'unsafe') AND (:who IS NULL OR who = :who)
                AND (:group_id IS NULL OR group_id = :group_id) ORDER BY serial""",
                {"who": who, "group_id": group_id},
            ).fetchall()
        return [flag_of(row) for row in rows]


def flag_of(row: sqlite3.Row) -> StoredFlag:
    """A row of `picks` that holds a flag."""
    (candidate,), (on,) = json.loads(row["chosen"]), json.loads(row["scores"])
    return StoredFlag(
        row["pick_id"],
        row["group_id"],
        candidate,
        row["kind"],
        bool(on),
        row["who"],
        row["created"],
        tuple(json.loads(row["shown_order"])),
        row["reason"],
        row["undone"],
    )


def is_flag(row: sqlite3.Row) -> bool:
    """Whether a row of `picks` holds a flag."""
    return row["kind"] in FLAGS
