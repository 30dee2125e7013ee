"""A person's judgement on a group, and the weighted pairs and the scores that follow from it.

A pick is stored as the person made it; pairs and scores are derived each time and never stored. Beside the pick on a
group a person may flag single candidates as defective or unsafe: the judgement -1 of two of the D3PO paper's uses,
fewer distortions and safer images (arXiv 2311.13231, section 5). What is flagged is worse than what is not. And a mask
says which part of an image a judgement is about; it judges nothing by itself.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from .errors import D3POError

Kind = Literal["favourite", "ranking", "tie", "all_bad", "skipped", "scores"]
MIN_PICKS = 16
"""Number of picks from which training is worthwhile."""
KINDS = ("favourite", "ranking", "tie", "all_bad", "skipped", "scores")
FlagKind = Literal["defective", "unsafe"]
FLAGS = ("defective", "unsafe")
MASK_SIZE = 32
"""Rows of a mask, and cells of a row."""
Mask = tuple[int, ...]
"""The part of an image that a person means: rows from top to bottom, each from 0 to 2**MASK_SIZE - 1, its highest bit
the cell at the left; empty for the whole image. The grid is over the whole image, whatever its size and shape, as
coarse as a brush."""


@dataclass(frozen=True)
class Pick:
    """A judgement on one group.

    Attributes:
        kind: of the judgement. A tie, all bad and skipped give no pair.
        order: for "favourite" the winner alone; for "ranking" candidates from best to worst, all or the first few
            (the rest then share the last place).
        scores: for "scores" one number per candidate, 1 liked, -1 disliked, 0 neither (the reference repository's).
    """

    kind: Kind
    order: tuple[int, ...] = ()
    scores: tuple[int, ...] = ()


@dataclass(frozen=True)
class Pair:
    """`winner` was preferred to `loser` (candidate numbers of one group); the weights of one judgement sum to 1, before
    anybody weighs people."""

    winner: int
    loser: int
    weight: float


def check_pick(pick: Pick, candidates: int) -> Pick:
    """Return the pick itself, once it is sure that it fits a group with this number of candidates.

    Raises:
        D3POError: it names a candidate that the group does not have, twice the same, or too few or many.
    """
    if pick.kind not in KINDS:
        raise D3POError(f"'{pick.kind}' is not a kind of pick.", f"Use one of {', '.join(KINDS)}.")
    if any(not 0 <= c < candidates for c in pick.order):
        raise D3POError(f"The pick {pick.order} names a candidate that this group of {candidates} does not have.")
    if len(set(pick.order)) < len(pick.order):
        raise D3POError(f"The pick {pick.order} names a candidate twice.")
    if pick.kind == "favourite" and len(pick.order) != 1:
        raise D3POError("A favourite is exactly one candidate.", "Use a ranking for more.")
    if pick.kind == "ranking" and not pick.order:
        raise D3POError("The ranking is empty.", "Name at least one candidate, best first.")
    if pick.kind == "scores" and (len(pick.scores) != candidates or any(s not in (-1, 0, 1) for s in pick.scores)):
        raise D3POError(f"Scores must be {candidates} numbers out of -1, 0 and 1.")
    return pick


def check_flag(kind: str, candidate: int, candidates: int) -> None:
    """Raise a D3POError unless `kind` is in `FLAGS` and the group has this candidate."""
    if kind not in FLAGS:
        raise D3POError(f"'{kind}' is not a kind of flag.", f"Use one of {', '.join(FLAGS)}.")
    check_candidate("flag", candidate, candidates)


def check_mask(rows: Sequence[object]) -> Mask:
    """Return the rows as a mask, an empty one where no cell is painted.

    Raises:
        D3POError: they are none.
    """
    mask = tuple(row for row in rows if type(row) is int and 0 <= row < 2**MASK_SIZE)
    if rows and (len(rows) != MASK_SIZE or len(mask) != MASK_SIZE):
        raise D3POError(f"A mask has {MASK_SIZE} rows, each a whole number from 0 to 2^{MASK_SIZE} - 1.")
    return mask if any(mask) else ()


def check_candidate(what: str, candidate: int, candidates: int) -> None:
    """Raise a D3POError unless a group has the candidate that something, such as a "flag", is on."""
    if not 0 <= candidate < candidates:
        raise D3POError(f"The {what} is on candidate {candidate}, which this group of {candidates} does not have.")


def pairs(pick: Pick | None, candidates: int, shown: Collection[int] = (), flagged: Collection[int] = ()) -> list[Pair]:
    """Return all pairs that the judgement implies, equally weighted so that every group counts once.

    Args:
        pick: the judgement; None if there are only flags.
        candidates: number of the group's candidates.
        shown: candidates that the person saw; the others are in no pair. All if empty.
        flagged: candidates that the same person flagged. They lose to every other one, whatever the pick says, and
            are in no pair with each other.
    """
    levels, seen = ordinal_levels(pick, candidates, flagged), _seen(candidates, shown)
    return _equally_weighted([(a, b) for a in seen for b in seen if levels[a] > levels[b]])


def scores(
    pick: Pick | None, candidates: int, shown: Collection[int] = (), flagged: Collection[int] = ()
) -> list[float]:
    """Return the judgement as a number in [-1, 1] for each candidate, for methods that learn from scores, not pairs.

    -1 says that an image is bad, 1 that it was preferred, 0 neither; so the losers of a favourite are at 0, as in the
    D3PO authors' feedback (exchange/authors_json.py), and not bad. A favourite is 1; a ranking is spread evenly from 1
    for the first to 0 for its last place. A tie and a skipped group are all 0, all bad is all -1, and "scores" are
    themselves. A flagged candidate is -1 whatever the pick says, and one that was not shown is 0. No winner of `pairs`
    has a lower score than its loser. Arguments are as for `pairs`.
    """
    seen = _seen(candidates, shown)
    values = [0.0] * candidates
    if pick is not None and pick.kind in ("favourite", "ranking"):
        levels = ordinal_levels(pick, candidates, flagged)
        places = sorted({levels[c] for c in seen if c not in flagged})
        for c in seen:
            if c not in flagged and len(places) > 1:
                values[c] = places.index(levels[c]) / (len(places) - 1)
    elif pick is not None and pick.kind in ("all_bad", "scores"):
        for c in seen:
            values[c] = -1.0 if pick.kind == "all_bad" else float(pick.scores[c])
    for c in set(flagged) & set(seen):
        values[c] = -1.0
    return values


def ordinal_levels(pick: Pick | None, candidates: int, flagged: Collection[int] = ()) -> list[int]:
    """Return a number for each candidate, (C,), higher for better; those without a judgement between them are equal."""
    levels = [0] * candidates
    if pick is not None and pick.kind == "scores":
        levels = list(pick.scores)
    elif pick is not None and pick.kind in ("favourite", "ranking"):
        for place, candidate in enumerate(pick.order):
            levels[candidate] = candidates - place
    lowest = min(levels) - 1
    return [lowest if c in flagged else level for c, level in enumerate(levels)]


def ordered(values: Sequence[float]) -> list[Pair]:
    """Return all pairs of candidates whose values differ, the greater one winning, equally weighted."""
    return _equally_weighted([(a, b) for a, x in enumerate(values) for b, y in enumerate(values) if x > y])


def graded(values: Sequence[float]) -> list[Pair]:
    """Return all pairs of candidates whose scores differ, the greater one winning, weighted by how sure that is.

    A pair that is as good as a tie says nothing, and one that is certain counts in full: its weight is 2 P - 1 out of
    the number of pairs, P = sigmoid(difference) being the probability of the preference (Bradley and Terry 1952).

    Args:
        values: in nats, (C,).
    """
    ordered_pairs = [(a, b) for a, x in enumerate(values) for b, y in enumerate(values) if x > y]
    return [Pair(a, b, math.tanh((values[a] - values[b]) / 2) / len(ordered_pairs)) for a, b in ordered_pairs]


def weighted(pairs: Sequence[Pair], factor: float) -> list[Pair]:
    """Return pairs that count by a factor."""
    return [Pair(pair.winner, pair.loser, pair.weight * factor) for pair in pairs]


def _equally_weighted(ordered: Sequence[tuple[int, int]]) -> list[Pair]:
    return [Pair(winner, loser, 1 / len(ordered)) for winner, loser in ordered]


def _seen(candidates: int, shown: Collection[int]) -> list[int]:
    return sorted(shown) or list(range(candidates))
