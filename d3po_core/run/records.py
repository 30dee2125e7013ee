"""Typed records of what hosts and trainers hand to a run, and how they are stored as JSON.

Also what recording picks and recording flags have in common: both are rows of one table, see database.py.
"""

from __future__ import annotations

import dataclasses
import json
import math
import sqlite3
import time
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

from ..errors import D3POError
from .database import FLAGGED, JUDGED, JUDGES, count_up, insert

JsonObject = dict[str, Any]
"""A JSON-able object whose keys its user knows, such as settings by name."""


class BaseModelFacts(TypedDict, total=False):
    """The base model that a run was begun with, as its host knew it; hosts leave out what they do not know.

    Attributes:
        identity: hash or name that tells this model from others.
        source: where it was loaded from: a path, a repository or "garden".
        name: what a person calls it.
        family: kind of denoiser, as in `Denoiser.family`.
        dtype: of the weights, such as "float32".
        base_config: folder with the configuration of a single-file checkpoint.
        prediction_type: "epsilon", "v_prediction" and so on, as in diffusers.
    """

    identity: str
    source: str
    name: str
    family: str
    dtype: str
    base_config: str | None
    prediction_type: str


@dataclass(frozen=True)
class RoundSummary:
    """What a trainer reported at the end of a round.

    Attributes:
        strength: share of what was learnt that the evidence allows, see `JudgeFacts`; applied to the LoRA already.
        z: how many standard errors above chance hidden picks were predicted; None without a judge.
        guessed, guessed_of: hidden picks predicted right (ties half), out of how many; 0 of 0 without any.
        curve: share of hidden picks predicted right after each epoch, in rounds of before the judge; empty since.
        strength_scan: strengths at which the LoRA was tried, greatest first, each with its drift: the KL from the base
            model in nats per latent element. Empty if training did not get to its end.
        figures: loss, margin, clip_fraction and winner (see `Measures`) after the last update, at full strength; of a
            reward its mean before and now, and kl_base. None for NaN and infinity.
        reason: why training stopped, a sentence.
        lora_strength: strength of the round's present LoRA file, as a share of `whole_file`'s.
        whole_file: the LoRA at full strength where a weaker file replaced it, relative to the run's folder.
        kept: strengths at which pictures were drawn, greatest first, each with the share of the prompt that was kept,
            fitted to all of them (`evaluation.effect.share_at`).
        win: how often the judge expects the person to prefer a picture of the round's LoRA; None if nobody judged.
        strength_before: `lora_strength` before a person chose another one after the blind check; None while they did
            not.
    """

    strength: float = 1.0
    z: float | None = None
    guessed: float = 0.0
    guessed_of: int = 0
    curve: tuple[float, ...] = ()
    strength_scan: tuple[tuple[float, float], ...] = ()
    figures: Mapping[str, float | None] = field(default_factory=dict)
    reason: str = ""
    lora_strength: float = 1.0
    whole_file: str | None = None
    kept: tuple[tuple[float, float], ...] = ()
    win: float | None = None
    strength_before: float | None = None

    @property
    def prompt_kept(self) -> float | None:
        """Return the share of the prompt that the round's present LoRA keeps; None if it was not measured."""
        share = dict(self.kept).get(self.lora_strength)
        return None if share is None else min(1.0, max(0.0, share))

    @classmethod
    def from_json(cls, text: str | None) -> RoundSummary:
        """Read what `to_json` wrote; what is missing or null gets its default, what is unknown is dropped."""
        stored = json.loads(text or "{}")
        values = {name: stored[key] for name, key in _STORED.items() if stored.get(key) is not None}
        for name in ("curve", "strength_scan", "kept"):
            values[name] = tuple(tuple(each) if isinstance(each, list) else each for each in values.get(name, ()))
        return cls(**values)

    def to_json(self) -> str:
        """Return the JSON that is stored in a run; NaN and infinity become null."""
        replaced = () if self.whole_file else ("lora_strength", "whole_file")  # the LoRA by a weaker one
        values = {key: getattr(self, name) for name, key in _STORED.items() if name not in replaced}
        return json.dumps(finite(values))


_STORED = {
    **{each.name: each.name for each in dataclasses.fields(RoundSummary)},
    "strength_scan": "sweep",
    "lora_strength": "gentler",
}
"""The stored key of each field of a `RoundSummary`."""


def finite(value: object) -> object:
    """Return a JSON-able value with None for NaN and infinity, which JSON does not have and browsers refuse."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(frozen=True)
class Stored:
    """What a recorded pick and a recorded flag have in common.

    Attributes:
        pick_id: unique among the ids of picks and flags.
        who: the person, as the client named them.
        when: seconds since 1970.
        shown_order: candidate numbers in the order in which they were shown, if known.
        reason: why the group was shown, as in `Lease`, or "imported".
        undone: when it was taken back; None if it was not.
    """

    pick_id: str
    group_id: str
    who: str
    when: float
    shown_order: tuple[int, ...]
    reason: str
    undone: float | None


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


TICK = 1e-5
"""Seconds between two judgements at least."""


def record(
    connection: sqlite3.Connection,
    pick_id: str | None,
    *,
    chosen: Sequence[int],
    scores: Sequence[int],
    shown_order: Sequence[int],
    when: float | None = None,
    **columns: str | float | None,
) -> Recorded:
    """Add a row to `picks`, in the caller's transaction; one whose id was ever recorded adds nothing.

    Without an id of the client's own it gets a new one. Without a time it is made now, and later than all that the
    person said of the group before, whatever clock that went by: so whoever compares times knows what came last.
    """
    pick_id = pick_id or uuid.uuid4().hex
    if is_recorded(connection, pick_id):
        return Recorded(pick_id, False, revision(connection))
    numbers = {"chosen": chosen, "scores": scores, "shown_order": shown_order}
    if when is None:
        when = max(time.time(), _last_said(connection, columns["group_id"], columns["who"]) + TICK)
    row = {"pick_id": pick_id, **columns, "created": when}
    insert(connection, "picks", {**row, **{name: json.dumps(list(value)) for name, value in numbers.items()}})
    update_judged(connection, str(columns["group_id"]))
    return Recorded(pick_id, True, count_up(connection, "pick_revision"))


def _last_said(connection: sqlite3.Connection, group_id: str | float | None, who: str | float | None) -> float:
    """Return when a person last picked, flagged or took back something of a group, in seconds since 1970."""
    query = "SELECT MAX(MAX(created, COALESCE(undone, 0))) FROM picks WHERE group_id = ? AND who = ?"
    return float(connection.execute(query, (group_id, who)).fetchone()[0] or 0.0)


def stored_values(row: sqlite3.Row) -> JsonObject:
    """Return the fields of `Stored` in a row of `picks`."""
    shown_order = tuple(json.loads(row["shown_order"]))
    same = {name: row[name] for name in ("pick_id", "group_id", "who", "reason", "undone")}
    return {**same, "when": row["created"], "shown_order": shown_order}


def is_recorded(connection: sqlite3.Connection, pick_id: str) -> bool:
    """Return whether a pick or flag with this id was ever recorded."""
    return connection.execute("SELECT 1 FROM picks WHERE pick_id = ?", (pick_id,)).fetchone() is not None


def update_judged(connection: sqlite3.Connection, group_id: str) -> None:
    """Update what a group's row says of its picks and flags, in the transaction that changes them."""
    columns = f"judged = {JUDGED}, flagged = {FLAGGED}, judges = {JUDGES}"
    connection.execute(f"UPDATE groups SET {columns} WHERE id = ?", (group_id,))


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
