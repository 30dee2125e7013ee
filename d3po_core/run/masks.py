"""Masks: which part of a picture a person's judgements are about, see d3po_core/picks.py.

They are recorded as picks are: before the call returns, once for each id, superseded but never deleted. A person's
newest mask on a candidate counts. A mask alone judges nothing.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from ..picks import Mask, check_candidate, check_mask
from .database import Part, equal
from .records import Recorded, Stored, candidates_of, check_shown, record, stored_values


@dataclass(frozen=True)
class StoredMask(Stored):
    """A recorded mask; see `Stored`.

    Attributes:
        candidate: its number in the group.
        mask: the part that is meant; empty if it was wiped off.
    """

    candidate: int
    mask: Mask


class Masks(Part):
    """Keeps masks."""

    def add(
        self,
        group_id: str,
        candidate: int,
        mask: Sequence[int],
        *,
        pick_id: str | None = None,
        who: str = "",
        shown_order: Sequence[int] = (),
        reason: str = "",
        when: float | None = None,
    ) -> Recorded:
        """Record which part of a candidate is meant; it is on the disk when this returns.

        Args:
            group_id: of the candidate.
            candidate: its number in the group.
            mask: rows of cells; without a painted cell the whole picture is meant again.
            pick_id: the client's own id: a second call with the same one records nothing, whatever its other values.
            who, shown_order, reason: as in `Stored`.
            when: it was painted elsewhere; None for now.

        Raises:
            D3POError: the group or the candidate is unknown, the mask is none, or the disk is full.
        """
        with self._database.write() as connection:
            candidates = candidates_of(connection, group_id)
            check_candidate("mask", candidate, candidates)
            check_shown([candidate], shown_order, candidates)
            values = {"group_id": group_id, "who": who, "kind": "mask", "reason": reason}
            return record(
                connection,
                pick_id,
                chosen=[candidate],
                scores=check_mask(mask),
                shown_order=shown_order,
                when=when,
                **values,
            )

    def standing(self, *, who: str | None = None, group_id: str | None = None) -> list[StoredMask]:
        """Return the masks that stand, of one person and one group or of all, in the order in which they were made."""
        with self._database.read() as connection:
            return standing_masks(connection, who=who, group_id=group_id)

    def history(self) -> list[StoredMask]:
        """Return every mask ever made, also superseded and empty ones, in the order in which they were made."""
        with self._database.read() as connection:
            return _select(connection, "picks", None, None)


def standing_masks(
    connection: sqlite3.Connection, *, who: str | None = None, group_id: str | None = None
) -> list[StoredMask]:
    """Return what `Masks.standing` returns, for other parts of a run."""
    return _select(connection, "masks", who, group_id)


def _select(connection: sqlite3.Connection, table: str, who: str | None, group_id: str | None) -> list[StoredMask]:
    chosen = {"who": who, "group_id": group_id}
    rows = connection.execute(
        f"SELECT * FROM {table} WHERE kind = 'mask' {equal(chosen)} ORDER BY created, serial", chosen
    )
    return [_stored(row) for row in rows]


def _stored(row: sqlite3.Row) -> StoredMask:
    (candidate,) = json.loads(row["chosen"])
    return StoredMask(**stored_values(row), candidate=candidate, mask=tuple(json.loads(row["scores"])))
