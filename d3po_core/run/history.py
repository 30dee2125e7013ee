"""Looking back at picks: pages of them, filtered, and how consistent a person is."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection
from dataclasses import dataclass

from ..picks import Mask
from .database import IS_PICK, Part
from .flags import standing_flags
from .masks import standing_masks


@dataclass(frozen=True)
class PastPick:
    """One person's pick and flags on one group, with what is needed to show them.

    Attributes:
        pick_id: of the pick that stands, or of the newest flag where there is no pick.
        kind: of the pick; "flagged" where there are only flags.
        order, scores: as in `Pick`.
        flags: kinds of standing flags by candidate.
        masks: standing masks by candidate.
        reason: why the group was shown, as in `Lease`, or "imported".
        when: seconds since 1970.
    """

    pick_id: str
    group_id: str
    number: int
    candidates: int
    prompt: str
    round: int
    held_out: bool
    kind: str
    order: tuple[int, ...]
    scores: tuple[int, ...]
    flags: dict[int, list[str]]
    masks: dict[int, Mask]
    who: str
    when: float
    reason: str


_JUDGED = """WITH judged AS (
    SELECT serial, pick_id, group_id, who, kind, chosen, scores, created, reason FROM standing
    UNION ALL SELECT MAX(serial), pick_id, group_id, who, 'flagged', '[]', '[]', created, reason FROM flags
    WHERE NOT EXISTS (SELECT 1 FROM standing WHERE standing.group_id = flags.group_id AND standing.who = flags.who)
    GROUP BY group_id, who)"""
_FROM = """FROM judged JOIN groups ON groups.id = judged.group_id JOIN prompts ON prompts.id = groups.prompt_id
    WHERE (:who IS NULL OR judged.who = :who) AND (:round IS NULL OR groups.round = :round)
    AND (:text IS NULL OR instr(lower(prompts.text), lower(:text)))
    AND (:kind IS NULL OR judged.kind = :kind OR EXISTS (SELECT 1 FROM flags
        WHERE flags.group_id = judged.group_id AND flags.who = judged.who AND flags.kind = :kind))"""


class History(Part):
    """Looks back at picks and flags."""

    def page(
        self,
        offset: int = 0,
        limit: int = 60,
        *,
        kind: str | None = None,
        who: str | None = None,
        round: int | None = None,
        text: str | None = None,
    ) -> tuple[int, list[PastPick]]:
        """Return how many standing picks pass the filters, and a page of them, the newest first.

        Groups that a person only flagged are among them.

        Args:
            offset: how many to pass over.
            limit: the page's length.
            kind: of the pick, or of one of the flags.
            who: the person.
            round: the round that the group was drawn for.
            text: part of the prompt.
        """
        values = {"kind": kind, "who": who, "round": round, "text": text, "offset": offset, "limit": limit}
        with self._database.read() as connection:
            (total,) = connection.execute(f"{_JUDGED} SELECT COUNT(*) {_FROM}", values).fetchone()
            rows = connection.execute(
                f"""{_JUDGED} SELECT pick_id, judged.group_id, number, candidates, prompts.text AS prompt, round,
                held_out, judged.kind, chosen, scores, judged.who, judged.created AS "when", reason {_FROM}
                ORDER BY serial DESC LIMIT :limit OFFSET :offset""",
                values,
            ).fetchall()
            return total, [_past_pick(connection, row) for row in rows]

    def people(self) -> list[str]:
        """Return the names of all people who have picked, as they named themselves."""
        with self._database.read() as connection:
            rows = connection.execute("SELECT who FROM standing UNION SELECT who FROM flags ORDER BY who")
            return [row["who"] for row in rows]

    def consistency(self, people: Collection[str] | None = None) -> tuple[int, int]:
        """Count how often a group that came back with its sides swapped got the same pick, and out of how many.

        Args:
            people: whose picks; None for everybody's.
        """
        counts = [each for who, each in self.consistencies().items() if people is None or who in people]
        return sum(same for same, _ in counts), sum(times for _, times in counts)

    def consistencies(self) -> dict[str, tuple[int, int]]:
        """Count what `consistency` counts for each person who got a group back, by name."""
        with self._database.read() as connection:
            rows = connection.execute(
                f"""SELECT again.who, COUNT(*) AS times,
                COALESCE(SUM(again.kind = first.kind AND again.chosen = first.chosen), 0) AS same
                FROM picks AS again JOIN picks AS first ON first.serial = (
                    SELECT MAX(serial) FROM picks WHERE group_id = again.group_id AND who = again.who
                    AND undone IS NULL AND reason <> 'repeat' AND serial < again.serial
                    AND {IS_PICK})
                WHERE again.reason = 'repeat' AND again.undone IS NULL
                AND again.{IS_PICK} AND again.kind <> 'skipped' GROUP BY again.who ORDER BY again.who"""
            ).fetchall()
        return {row["who"]: (row["same"], row["times"]) for row in rows}


def _past_pick(connection: sqlite3.Connection, row: sqlite3.Row) -> PastPick:
    values = dict(row)
    values["order"] = tuple(json.loads(values.pop("chosen")))
    values["scores"] = tuple(json.loads(values["scores"]))
    values["held_out"] = bool(values["held_out"])
    flags: dict[int, list[str]] = {}
    for flag in standing_flags(connection, who=row["who"], group_id=row["group_id"]):
        flags.setdefault(flag.candidate, []).append(flag.kind)
    masks = {each.candidate: each.mask for each in standing_masks(connection, who=row["who"], group_id=row["group_id"])}
    return PastPick(flags=flags, masks=masks, **values)
