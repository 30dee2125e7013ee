"""Picks as they were made: recorded before the call returns, superseded and taken back, never deleted.

A person's picks and flags are a stack. The pick that stands on a group is their newest one there, by its time, that was
not taken back, so undo after a change of mind brings the earlier pick back. Pairs are derived in d3po_core/picks.py and
never stored.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from ..errors import D3POError
from ..picks import Pick, check_pick
from ..settings import names_in
from .database import IMPORTED, IS_PICK, Part, count_up
from .flags import StoredFlag, flag_of, is_flag, standing_flags
from .leases import count_waiting, end_leases
from .records import (
    Recorded,
    Stored,
    candidates_of,
    check_shown,
    record,
    revision,
    stored_values,
    update_judged,
)


@dataclass(frozen=True)
class StoredPick(Stored):
    """A recorded pick; see `Stored`.

    Attributes:
        decision_ms: milliseconds between showing and picking, if known.
    """

    pick: Pick
    decision_ms: float | None


@dataclass(frozen=True)
class Judgement:
    """One person's judgement of one group: a pick, or flags, or both.

    Attributes:
        stored: the pick that stands; None if there are only flags.
        flags: those that stand, in the order in which they were put.
    """

    group_id: str
    who: str
    stored: StoredPick | None
    flags: tuple[StoredFlag, ...]

    @property
    def pick(self) -> Pick | None:
        """Return the pick that stands; None if there are only flags."""
        return self.stored.pick if self.stored else None

    @property
    def flagged(self) -> frozenset[int]:
        """Return the candidates with a flag of any kind."""
        return frozenset(flag.candidate for flag in self.flags)

    @property
    def shown_order(self) -> tuple[int, ...]:
        """Return the candidates in the order in which they were shown; empty if unknown."""
        return self.stored.shown_order if self.stored else self.flags[-1].shown_order


@dataclass(frozen=True)
class Counts:
    """Numbers of groups and picks.

    Attributes:
        drawn: groups that can be shown.
        near: groups that cannot be shown because their candidates are duplicates.
        waiting: groups that a person's page would get: with an overlap of 1 those without a pick that no page has on
            lease.
        fresh: groups that nobody has picked in or looks at.
        picks: groups that somebody judged by a pick or a flag, and did not just skip.
        yours: those that one person judged.
        usable: groups whose picks or flags say that one candidate is better than another; see `Picks.counts` for
            imported ones.
    """

    drawn: int
    near: int
    waiting: int
    fresh: int
    picks: int
    yours: int
    usable: int


class Picks(Part):
    """Keeps picks, and joins them with flags to judgements."""

    def add(
        self,
        group_id: str,
        pick: Pick,
        *,
        pick_id: str | None = None,
        who: str = "",
        shown_order: Sequence[int] = (),
        decision_ms: float | None = None,
        reason: str = "",
        when: float | None = None,
    ) -> Recorded:
        """Record a pick; it is on the disk when this returns. It supersedes the person's earlier pick on the group.

        Args:
            group_id: the group judged.
            pick: the judgement.
            pick_id: the client's own id: a second call with the same one records nothing, whatever its other values.
            who, shown_order, decision_ms, reason: as in `StoredPick`.
            when: it was made elsewhere; None for now.

        Raises:
            D3POError: the group is unknown, the pick does not fit it, or the disk is full.
        """
        with self._database.write() as connection:
            candidates = candidates_of(connection, group_id)
            check_pick(pick, candidates)
            check_shown(pick.order, shown_order, candidates)
            if reason == "repeat" and not _stands(connection, group_id, who):
                reason = ""  # without an earlier pick to compare it with it is a pick like any other
            values = {"group_id": group_id, "who": who, "kind": pick.kind, "reason": reason, "decision_ms": decision_ms}
            recorded = record(
                connection, pick_id, chosen=pick.order, scores=pick.scores, shown_order=shown_order, when=when, **values
            )
            if recorded.new:
                end_leases(connection, group_id, who)
            return recorded

    def take_back(self, pick_id: str) -> StoredPick | StoredFlag:
        """Take back one pick or flag, the newest or an older one, and return it; twice is the same as once.

        If it took a flag off, the flag stands again.

        Raises:
            D3POError: there is no such pick.
        """
        with self._database.write() as connection:
            changed = connection.execute(
                "UPDATE picks SET undone = ? WHERE pick_id = ? AND undone IS NULL", (time.time(), pick_id)
            ).rowcount
            row = connection.execute("SELECT * FROM picks WHERE pick_id = ?", (pick_id,)).fetchone()
            if changed:
                update_judged(connection, row["group_id"])
                count_up(connection, "pick_revision")
        if row is None:
            raise D3POError(f"This run has no pick with the id '{pick_id}'.")
        return _pick_or_flag(row)

    def remove(self, pick_id: str) -> None:
        """Take back a pick and all earlier ones of the same person on the same group, so that none stands again.

        All flags and masks of that person on the group are taken back too. The id may be a flag's.

        Raises:
            D3POError: there is no such pick or flag.
        """
        with self._database.write() as connection:
            row = connection.execute("SELECT * FROM picks WHERE pick_id = ?", (pick_id,)).fetchone()
            if row is None:
                raise D3POError(f"This run has no pick with the id '{pick_id}'.")
            if row["undone"] is None:  # a repeated request must not touch what was picked since
                connection.execute(
                    f"""UPDATE picks SET undone = ? WHERE group_id = ? AND who = ? AND undone IS NULL
                    AND (serial <= ? OR NOT {IS_PICK})""",
                    (time.time(), row["group_id"], row["who"], row["serial"]),
                )
                update_judged(connection, row["group_id"])
                count_up(connection, "pick_revision")

    def has(self, pick_id: str, who: str | None = None) -> bool:
        """Return whether this pick or flag was ever recorded, by this person or by anybody; masks are neither."""
        with self._database.read() as connection:
            query = "SELECT 1 FROM picks WHERE pick_id = :id AND kind <> 'mask' AND (:who IS NULL OR who = :who)"
            return connection.execute(query, {"id": pick_id, "who": who}).fetchone() is not None

    def last(self, who: str = "") -> StoredPick | StoredFlag | None:
        """Return a person's last pick or flag that was not taken back."""
        with self._database.read() as connection:
            row = connection.execute(
                """SELECT * FROM picks WHERE who = ? AND undone IS NULL AND kind <> 'mask'
                ORDER BY serial DESC LIMIT 1""",
                (who,),
            ).fetchone()
        return _pick_or_flag(row) if row else None

    def standing(self, *, who: str | None = None) -> list[StoredPick]:
        """Return the picks that stand: one for each person and group, in the order in which they were made."""
        return self._picks("standing", who)

    def history(self) -> list[StoredPick]:
        """Return every pick ever made, also superseded and undone ones, in the order in which they were made."""
        return self._picks("picks", None)

    def judgements(self, *, who: str | None = None) -> list[Judgement]:
        """Return the judgements that stand, one for each person and group.

        Those with a pick come first, in the order of `standing`, then those with flags alone.
        """
        flags: dict[tuple[str, str], list[StoredFlag]] = {}
        with self._database.read() as connection:
            for flag in standing_flags(connection, who=who):
                flags.setdefault((flag.group_id, flag.who), []).append(flag)
        picked = [
            Judgement(stored.group_id, stored.who, stored, tuple(flags.pop((stored.group_id, stored.who), ())))
            for stored in self.standing(who=who)
        ]
        return picked + [Judgement(group_id, name, None, tuple(rest)) for (group_id, name), rest in flags.items()]

    def counts(self, who: str, recorded: bool = False, people: Collection[str] | None = None) -> Counts:
        """Count groups that were drawn, wait, and were judged, for a person.

        Args:
            who: the person.
            recorded: do not count groups of imported images as usable: the method needs recorded trajectories.
            people: whose picks are usable; None for everybody's.
        """
        with self._database.read() as connection:
            row = connection.execute(
                f"""SELECT COUNT(CASE WHEN showable THEN 1 END) AS drawn,
                COUNT(CASE WHEN NOT showable AND candidates > 1 THEN 1 END) AS near,
                COUNT(CASE WHEN showable AND judged = 0 THEN 1 END) - (SELECT COUNT(DISTINCT group_id)
                    FROM leases JOIN groups ON groups.id = group_id WHERE judged = 0) AS fresh,
                COUNT(CASE WHEN MAX(judged, flagged) >= 2 THEN 1 END) AS picks,
                (SELECT COUNT(*) FROM (SELECT group_id FROM picks WHERE who = :who AND undone IS NULL
                    AND reason <> 'repeat' AND {IS_PICK} AND kind <> 'skipped'
                    UNION SELECT group_id FROM flags WHERE who = :who)) AS yours,
                COUNT(CASE WHEN MAX(judged, flagged) = 3 THEN 1 END) - :recorded * (
                    SELECT COUNT(*) FROM groups WHERE policy = 'imported' AND MAX(judged, flagged) = 3) AS usable
                FROM groups""",
                {"who": who, "recorded": recorded},
            ).fetchone()
            counts = Counts(waiting=count_waiting(connection, who), **dict(row))
        return counts if people is None else replace(counts, usable=self._usable(people, recorded))

    def _usable(self, people: Collection[str], recorded: bool) -> int:
        """Count groups of which one of these people says that one candidate is better than another; see `counts`."""
        with self._database.read() as connection:
            (count,) = connection.execute(
                """WITH chosen AS (SELECT value AS name FROM json_each(:people))
                SELECT COUNT(*) FROM groups WHERE MAX(judged, flagged) = 3 AND NOT (:recorded AND policy = :imported)
                AND NOT freed
                AND (EXISTS (SELECT 1 FROM standing WHERE standing.group_id = groups.id AND who IN chosen
                    AND kind NOT IN ('skipped', 'tie', 'all_bad'))
                OR EXISTS (SELECT 1 FROM flags WHERE flags.group_id = groups.id AND who IN chosen GROUP BY who
                    HAVING COUNT(DISTINCT candidate) < groups.candidates - json_array_length(groups.near)))""",
                {"people": json.dumps(sorted(people)), "recorded": recorded, "imported": IMPORTED},
            ).fetchone()
        return int(count)

    def untaught(self, recorded: bool = False, people: Collection[str] | None = None) -> int:
        """Count groups with a standing pick or flag that no round can have learnt from, each person's separately.

        Args:
            recorded: do not count groups of imported images, as in `counts`.
            people: whose; None for everybody's.
        """
        with self._database.read() as connection:
            begun, by_name = _begun(connection)
            (count,) = connection.execute(
                """WITH chosen AS (SELECT value AS name FROM json_each(:people)),
                by_name AS (SELECT key AS name, value AS last FROM json_each(:by_name)),
                new AS (SELECT group_id, who, serial FROM standing WHERE serial > :begun
                    UNION ALL SELECT group_id, who, serial FROM flags WHERE serial > :begun)
                SELECT COUNT(*) FROM (SELECT DISTINCT group_id, who FROM new
                    WHERE (:people IS NULL OR who IN chosen)
                    AND (:by_name = '{}' OR serial > COALESCE((SELECT last FROM by_name WHERE name = who), 0)))
                JOIN groups ON groups.id = group_id WHERE (policy <> :imported OR NOT :recorded)
                AND NOT (freed AND :people IS NOT NULL)""",
                {
                    **{"begun": begun, "by_name": json.dumps(by_name), "imported": IMPORTED, "recorded": recorded},
                    "people": None if people is None else json.dumps(sorted(people)),
                },
            ).fetchone()
        return int(count)

    @property
    def revision(self) -> int:
        """Return a number that changes whenever the standing picks change."""
        with self._database.read() as connection:
            return revision(connection)

    def _picks(self, table: str, who: str | None) -> list[StoredPick]:
        with self._database.read() as connection:
            rows = connection.execute(
                f"""SELECT * FROM {table} WHERE {IS_PICK} AND (:who IS NULL OR who = :who)
                ORDER BY created, serial""",
                {"who": who},
            ).fetchall()
        return [_stored(row) for row in rows]


def _begun(connection: sqlite3.Connection) -> tuple[int, dict[str, int]]:
    """Return the serial of the last pick that a round by everybody can have learnt from, and by name that of others.

    A round that was taught by some people leaves what others have picked for a later one. Settings of rounds hold their
    pairs too and are long, so only those of such rounds are parsed.
    """
    everybody, by_name = 0, dict[str, int]()
    rows = connection.execute(
        """SELECT last_pick, CASE WHEN instr(settings, '"people": "') AND NOT instr(settings, '"people": ""')
        THEN json_extract(settings, '$.train.people') END AS people FROM rounds"""
    )
    for row in rows:
        names = names_in(row["people"] or "")
        if names is None:
            everybody = max(everybody, row["last_pick"])
        else:
            by_name |= {name: max(by_name.get(name, 0), row["last_pick"]) for name in names}
    return everybody, by_name


def _stands(connection: sqlite3.Connection, group_id: str, who: str) -> bool:
    query = "SELECT 1 FROM standing WHERE group_id = ? AND who = ?"
    return connection.execute(query, (group_id, who)).fetchone() is not None


def _pick_or_flag(row: sqlite3.Row) -> StoredPick | StoredFlag:
    return flag_of(row) if is_flag(row) else _stored(row)


def _stored(row: sqlite3.Row) -> StoredPick:
    pick = Pick(row["kind"], tuple(json.loads(row["chosen"])), tuple(json.loads(row["scores"])))
    return StoredPick(**stored_values(row), pick=pick, decision_ms=row["decision_ms"])
