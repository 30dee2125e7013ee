"""Flags: a person marks one candidate as defective or unsafe, beside the pick on its group.

They are recorded as picks are: before the call returns, once for each id, taken back but never deleted. A person's
newest flag on a candidate counts. A flag on an image that the same person picked as the favourite afterwards does not
stand until that pick is taken back.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from ..picks import FLAGS, FlagKind, check_flag
from .database import Part, equal
from .records import Recorded, Stored, candidates_of, check_shown, record, stored_values


@dataclass(frozen=True)
class StoredFlag(Stored):
    """A recorded flag; see `Stored`.

    Attributes:
        candidate: its number in the group.
        on: whether the flag was put on; False if it was taken off.
    """

    candidate: int
    kind: FlagKind
    on: bool


class Flags(Part):
    """Keeps flags."""

    def add(
        self,
        group_id: str,
        candidate: int,
        kind: FlagKind,
        *,
        on: bool = True,
        pick_id: str | None = None,
        who: str = "",
        shown_order: Sequence[int] = (),
        reason: str = "",
        when: float | None = None,
    ) -> Recorded:
        """Put a flag on a candidate, or take it off; it is on the disk when this returns.

        Args:
            group_id: of the candidate.
            candidate: its number in the group.
            kind: "defective" or "unsafe"; a candidate may have both.
            on: False takes the person's flag of this kind off again.
            pick_id: the client's own id: a second call with the same one records nothing, whatever its other values.
            who, shown_order, reason: as in `Stored`.
            when: it was put elsewhere; None for now.

        Raises:
            D3POError: the group, the candidate or the kind is unknown, or the disk is full.
        """
        with self._database.write() as connection:
            candidates = candidates_of(connection, group_id)
            check_flag(kind, candidate, candidates)
            check_shown([candidate], shown_order, candidates)
            values = {"group_id": group_id, "who": who, "kind": kind, "reason": reason}
            return record(
                connection, pick_id, chosen=[candidate], scores=[int(on)], shown_order=shown_order, when=when, **values
            )

    def standing(self, *, who: str | None = None, group_id: str | None = None) -> list[StoredFlag]:
        """Return the flags that stand, of one person and one group or of all, in the order in which they were put."""
        with self._database.read() as connection:
            return standing_flags(connection, who=who, group_id=group_id)

    def history(self) -> list[StoredFlag]:
        """Return every flag ever put or taken off, also those taken back, in the order in which they came."""
        with self._database.read() as connection:
            return _select(connection, "picks", None, None)


def standing_flags(
    connection: sqlite3.Connection, *, who: str | None = None, group_id: str | None = None
) -> list[StoredFlag]:
    """Return what `Flags.standing` returns, for other parts of a run."""
    return _select(connection, "flags", who, group_id)


def _select(connection: sqlite3.Connection, table: str, who: str | None, group_id: str | None) -> list[StoredFlag]:
    chosen = {"who": who, "group_id": group_id}
    rows = connection.execute(
        f"""SELECT * FROM {table} WHERE kind IN ('defective', 'unsafe') {equal(chosen)} ORDER BY created, serial""",
        chosen,
    )
    return [flag_of(row) for row in rows]


def flag_of(row: sqlite3.Row) -> StoredFlag:
    """Convert a row of `picks` that holds a flag."""
    (candidate,), (on,) = json.loads(row["chosen"]), json.loads(row["scores"])
    return StoredFlag(**stored_values(row), candidate=candidate, kind=row["kind"], on=bool(on))


def is_flag(row: sqlite3.Row) -> bool:
    """Return whether a row of `picks` holds a flag."""
    return row["kind"] in FLAGS
