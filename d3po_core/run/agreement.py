"""How much several people agree: Krippendorff's alpha, each person's agreement with the others, and how far each
goes along with them.

A unit is a pair of candidates of one group. Each person who judged the group gives it a value: 1 if by their judgement
the first is better, -1 if the second is, 0 if neither; nothing if they did not see both. The metric is *interval*, in
which a tie is between the two opposites.

- Which candidate is the first is chance. So every unit counts twice, once with its candidates exchanged, and alpha does
  not depend on how candidates are numbered. The mean value is then 0.
- With that mean, people who click at random get 0 on average whatever the groups' sizes are: interval disagreement of
  independent values of mean 0 equals the expected one. A nominal metric would count it as agreement that no two
  pictures but the favourite are compared, which depends on how many candidates a group has and not on what is liked.
- Where everybody chooses one favourite of C, alpha is (p - 1/C) / (1 - 1/C), p being how often two choose the same.

Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability"; also his Content Analysis, 4th edition, chapter 12.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..picks import ordinal_levels
from .groups import Group
from .picks import Judgement

Floats = NDArray[np.float64]
VALUES = (-1.0, 0.0, 1.0)
RESAMPLES = 1000
"""Draws of the bootstrap, with a fixed seed: the same picks get the same interval."""
MIN_RESAMPLED = 8
"""Fewer groups say too little of their own spread for an interval."""
SHRINKAGE = 8.0
"""Groups that everybody's mean counts for in what is known of one person."""
ITERATIONS = 20


def nominal(a: Floats, b: Floats) -> Floats:
    """Return how different values are as names: 0 if they are the same, else 1."""
    return (a != b).astype(float)


def interval(a: Floats, b: Floats) -> Floats:
    """Return how different values are as numbers: the squared difference."""
    return (a - b) ** 2


Metric = Callable[[Floats, Floats], Floats]


def coincidences(counts: Floats) -> Floats:
    """Return how often two values of one unit meet, (U, V, V), each unit's observers counted as one too few.

    Args:
        counts: how many observers gave a unit each value, (U, V). A unit with fewer than two values is in no pair.
    """
    pairs = counts[:, :, None] * counts[:, None, :] - counts[:, :, None] * np.eye(counts.shape[1])
    return pairs / np.maximum(counts.sum(1) - 1, 1)[:, None, None]


def alpha_of(coincident: Floats, values: Sequence[float], metric: Metric, exchanged: bool = False) -> Floats:
    """Compute Krippendorff's alpha, 1 - D_o / D_e; not a number where only one value was given.

    His n - 1 in D_e corrects for a mean that is taken from the values. That of exchanged units is 0 whatever they are,
    and there it is n.

    Args:
        coincident: `coincidences`, added up over units, (..., V, V).
        values: what was given, (V,).
        metric: squared difference of two values.
        exchanged: every unit counts twice, the second time with its candidates exchanged.
    """
    distance = metric(np.asarray(values)[:, None], np.asarray(values)[None, :])
    marginal = coincident.sum(-1)
    total = marginal.sum(-1)
    observed = (coincident * distance).sum((-1, -2))
    expected = np.einsum("...c,ck,...k->...", marginal, distance, marginal)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(expected > 0, 1 - (total - (not exchanged)) * observed / expected, np.nan)


@dataclass(frozen=True)
class Person:
    """One person's agreement with the others, on groups that they and somebody else judged.

    Attributes:
        groups: number of these.
        same: share of them in which the best pictures are the same as another person's, the mean over those others.
        chance: what that share would be if pictures were exchanged at random.
    """

    who: str
    groups: int
    same: float
    chance: float


@dataclass(frozen=True)
class Agreement:
    """How much people agree on the groups that several of them judged.

    Attributes:
        alpha: Krippendorff's; None if all that was said is that no picture is better.
        low, high: 95% interval of it, by bootstrap over groups; None with fewer than `MIN_RESAMPLED` groups.
        groups: number of them.
        same, chance: as for one person, over all of them.
        people: those who judged any of them, by name.
    """

    alpha: float | None
    low: float | None
    high: float | None
    groups: int
    same: float
    chance: float
    people: tuple[Person, ...]


@dataclass(frozen=True)
class Table:
    """Judgements of groups that at least two people judged, J of them.

    Attributes:
        people: names.
        who: number of each judgement's person, (J,).
        group: number of its group, from 0, (J,).
        levels: of its candidates as in `ordinal_levels`, (J, C); not a number where there is none or it was not seen.
    """

    people: tuple[str, ...]
    who: NDArray[np.int64]
    group: NDArray[np.int64]
    levels: Floats

    @property
    def groups(self) -> int:
        """Return the number of groups."""
        return int(self.group.max(initial=-1)) + 1

    def signs(self) -> Floats:
        """Return who is the better one of each pair of candidates, (J, C (C - 1) / 2), see the module."""
        first, second = np.triu_indices(self.levels.shape[1], 1)
        return np.sign(self.levels[:, first] - self.levels[:, second])

    def best(self) -> NDArray[np.int64]:
        """Return which candidates are best, one bit for each, (J,)."""
        top = self.levels == np.nanmax(self.levels, 1, keepdims=True)
        return top @ (1 << np.arange(self.levels.shape[1]))


def tabulate(judgements: Iterable[Judgement], groups: Iterable[Group]) -> Table:
    """Gather what people said of groups that several of them judged; a group that was skipped is not judged."""
    sizes = {group.id: group for group in groups}
    said: dict[str, list[Judgement]] = {}
    for judgement in judgements:
        skipped = judgement.pick is not None and judgement.pick.kind == "skipped"
        if (not skipped or judgement.flagged) and sizes[judgement.group_id].candidates > 1:
            said.setdefault(judgement.group_id, []).append(judgement)
    shared = {group_id: several for group_id, several in said.items() if len({each.who for each in several}) > 1}
    people = tuple(sorted({each.who for several in shared.values() for each in several}))
    numbers = {name: number for number, name in enumerate(people)}
    most = max((sizes[group_id].candidates for group_id in shared), default=2)
    who, group = list[int](), list[int]()
    levels = np.full((sum(map(len, shared.values())), most), np.nan)
    for number, (group_id, several) in enumerate(shared.items()):
        of = sizes[group_id]
        for each in several:
            seen = sorted(set(each.shown_order or of.distinct) | each.flagged)
            levels[len(who), seen] = np.array(ordinal_levels(each.pick, of.candidates, each.flagged))[seen]
            who.append(numbers[each.who])
            group.append(number)
    return Table(people, np.array(who, int), np.array(group, int), levels)


def measure(table: Table) -> Agreement | None:
    """Measure how much people agree; None where no group was judged by two."""
    if not table.groups:
        return None
    by_group = _coincidences_of_groups(table)
    alpha = float(alpha_of(by_group.sum(0), VALUES, interval, exchanged=True))
    low, high = _interval(by_group) if table.groups >= MIN_RESAMPLED and not math.isnan(alpha) else (None, None)
    same, chance = _same(table)
    people = []
    for number, name in enumerate(table.people):
        rows = table.who == number
        people.append(Person(name, int(rows.sum()), float(same[rows].mean()), float(chance[rows].mean())))
    known = None if math.isnan(alpha) else alpha
    return Agreement(known, low, high, table.groups, float(same.mean()), float(chance.mean()), tuple(people))


def _coincidences_of_groups(table: Table) -> Floats:
    """Return the coincidences of all units of each group, with candidates exchanged too, (G, V, V)."""
    signs = table.signs()
    units = signs.shape[1]
    counts = np.zeros((table.groups, units, len(VALUES)))
    for place, value in enumerate(VALUES):
        np.add.at(counts[:, :, place], table.group, signs == value)
    found = coincidences(counts.reshape(-1, len(VALUES))).reshape(table.groups, units, len(VALUES), -1).sum(1)
    return found + found[:, ::-1, ::-1]


def _interval(by_group: Floats) -> tuple[float, float]:
    """Return the 2.5% and the 97.5% quantile of alpha over resampled groups (G, V, V)."""
    groups, rng = len(by_group), np.random.default_rng(0)
    flat = by_group.reshape(groups, -1)
    sums = [rng.multinomial(groups, np.full(groups, 1 / groups)) @ flat for _ in range(RESAMPLES)]
    alphas = alpha_of(np.stack(sums).reshape(-1, *by_group.shape[1:]), VALUES, interval, exchanged=True)
    low, high = np.nanquantile(alphas, (0.025, 0.975))
    return float(low), float(high)


def _same(table: Table) -> tuple[Floats, Floats]:
    """Return the share of others whose best pictures are the same as in each judgement, and that by chance, (J,) each.

    By chance means: with each person's pictures exchanged at random, so that two sets of k out of n are the same once
    in n choose k times. That two people find no picture better than another says nothing of what they like.
    """
    best, shown = table.best(), (~np.isnan(table.levels)).sum(1)
    size = np.array([int(each).bit_count() for each in best])
    others = _how_many(table.group) - 1
    same = (_how_many(table.group, best) - 1) / others
    ways = np.array([math.comb(n, k) for n, k in zip(shown.tolist(), size.tolist(), strict=True)])
    return same, (_how_many(table.group, size) - 1) / others / ways


def _how_many(*columns: NDArray[np.int64]) -> Floats:
    """Return for each row how many rows are the same, itself among them, (J,)."""
    _, number, count = np.unique(np.stack(columns, 1), axis=0, return_inverse=True, return_counts=True)
    return count[number.reshape(-1)].astype(float)


def reliability(table: Table) -> dict[str, float]:
    """Return how much each person goes along with the others, from 0 to 1, by name.

    It is the correlation of their values with the mean of the others' values on the same units, in which the others
    count by their own reliability: whoever clicks at random or picks what all others like least does not spoil what is
    known of the rest. It is found by iteration from equal weights. Whoever contradicts the others counts 0, never less:
    nobody's picks are turned round. It is drawn towards the mean of all by `SHRINKAGE` groups.

    Dawid and Skene 1979 weigh observers alike by what the others say; CrowdBT (Chen et al. 2013) does for pairs.
    """
    signs = np.nan_to_num(table.signs())
    shared = np.bincount(table.who, minlength=len(table.people)).astype(float)
    weights = np.ones(len(table.people))
    for _ in range(ITERATIONS):
        others = _others(table, signs, weights)
        products, own, theirs = (
            np.bincount(table.who, each.sum(1), len(table.people))
            for each in (signs * others, signs**2 * (others != 0), others**2 * (signs != 0))
        )
        score = products / np.maximum(np.sqrt(own * theirs), 1e-12)
        mean = float(score @ shared / max(1.0, shared.sum()))
        weights = np.maximum((shared * score + SHRINKAGE * mean) / (shared + SHRINKAGE), 0.0)
        if not weights.any():  # they contradict each other, and nobody can know who is right
            return dict.fromkeys(table.people, 0.0)
    return dict(zip(table.people, weights.tolist(), strict=True))


def _others(table: Table, signs: Floats, weights: Floats) -> Floats:
    """Return the weighted mean of the other people's values beside each judgement's own, (J, units)."""
    weight = weights[table.who]

    def sums(values: Floats) -> Floats:
        of_group = np.stack([np.bincount(table.group, column, table.groups) for column in values.T], 1)
        return of_group[table.group] - values

    total = sums(weight[:, None])
    return np.divide(sums(weight[:, None] * signs), total, out=np.zeros_like(signs), where=total > 1e-12)
