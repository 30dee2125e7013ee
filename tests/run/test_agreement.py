"""Agreement of several people, against published examples, closed forms, and what must not matter."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest

from d3po_core.picks import Pick
from d3po_core.run.agreement import (
    VALUES,
    Metric,
    Table,
    alpha_of,
    coincidences,
    interval,
    measure,
    nominal,
    reliability,
)
from d3po_core.run.panel import agreement, shared_table
from tests.run_helpers import make_run, put_group

N = math.nan
FOUR_OBSERVERS = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, N, N, N],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, N, 3],
    [N, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, N],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, N],
]
"""Krippendorff 2011, section C: nominal data, four observers, twelve units, some missing."""
BINARY = [[0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]]
"""The same, section A: binary data, two observers, ten units."""
NOMINAL = ["aabbdcccedda", "babbbccceddd"]
"""The same, section B: nominal data, two observers, twelve units."""


def alpha(rows: list[list[float]], metric: Metric) -> float:
    """Return alpha of values by observer and unit."""
    data = np.array(rows, float).T
    values = sorted({each for row in rows for each in row if not math.isnan(each)})
    counts = np.stack([(data == value).sum(1) for value in values], 1).astype(float)
    return float(alpha_of(coincidences(counts).sum(0), values, metric))


@pytest.mark.parametrize(
    ("rows", "metric", "published"),
    [
        (FOUR_OBSERVERS, nominal, 0.743),
        (FOUR_OBSERVERS, interval, 0.849),
        (BINARY, nominal, 0.095),
        ([[float(ord(each)) for each in row] for row in NOMINAL], nominal, 0.692),
    ],
)
def test_alpha_is_that_of_the_published_examples(rows: list[list[float]], metric: Metric, published: float) -> None:
    assert round(alpha(rows, metric), 3) == published


def table(favourites: np.ndarray, candidates: int) -> Table:
    """Return a table of favourites (groups, people); -1 where somebody did not judge."""
    people = favourites.shape[1]
    group, who = np.nonzero(favourites >= 0)
    levels = np.zeros((len(who), candidates))
    levels[np.arange(len(who)), favourites[group, who]] = 1
    return Table(tuple(f"p{i}" for i in range(people)), who, group, levels)


def test_chance_gives_nothing_and_sameness_everything() -> None:
    rng = np.random.default_rng(0)
    by_chance = measure(table(rng.integers(4, size=(4000, 3)), 4))
    assert by_chance is not None and by_chance.alpha is not None and abs(by_chance.alpha) < 0.02
    assert abs(by_chance.same - 0.25) < 0.01 and by_chance.chance == 0.25
    same = measure(table(np.repeat(rng.integers(4, size=(40, 1)), 3, 1), 4))
    assert same is not None and (same.alpha, same.low, same.high, same.same) == (1, 1, 1, 1)


def test_the_interval_holds_what_it_should() -> None:
    """95% of intervals of people who agree in half of the groups, beyond chance, have 0.5 in them."""
    rng, inside = np.random.default_rng(6), 0
    for _ in range(200):
        truth = rng.integers(4, size=(60, 1))
        favourites = np.where(rng.random((60, 3)) < math.sqrt(0.5), truth, rng.integers(4, size=(60, 3)))
        found = measure(table(favourites, 4))
        assert found is not None and found.low is not None and found.high is not None
        inside += found.low < 0.5 < found.high
    assert 0.9 <= inside / 200 <= 0.99


def test_chance_gives_nothing_where_groups_differ_in_size() -> None:
    """A nominal metric would find agreement there: how many pairs a favourite decides depends on the size alone."""
    rng = np.random.default_rng(1)
    best = np.stack([rng.integers(2 if group % 2 else 8, size=2) for group in range(4000)])
    levels = np.zeros((8000, 8))
    levels[np.arange(8000), best.reshape(-1)] = 1
    levels[np.repeat(np.arange(4000) % 2 == 1, 2), 2:] = N
    mixed = Table(("a", "b"), np.tile([0, 1], 4000), np.repeat(np.arange(4000), 2), levels)
    found = measure(mixed)
    assert found is not None and found.alpha is not None and abs(found.alpha) < 0.02
    signs = mixed.signs().reshape(4000, 2, -1)
    of_units = [signs[:, :, pair] for pair in range(signs.shape[2])]
    counts = np.concatenate([np.stack([(each == value).sum(1) for value in VALUES], 1) for each in of_units])
    assert alpha_of(coincidences(counts.astype(float)).sum(0), VALUES, nominal) > 0.05


def test_alpha_of_favourites_is_their_sameness_beyond_chance() -> None:
    """(p - 1/C) / (1 - 1/C), but for the correction of small samples."""
    rng = np.random.default_rng(2)
    first = rng.integers(4, size=3000)
    second = np.where(rng.random(3000) < 0.5, first, rng.integers(4, size=3000))
    found = measure(table(np.stack([first, second], 1), 4))
    assert found is not None and found.alpha == pytest.approx((found.same - 0.25) / 0.75, abs=1e-3)


def test_how_candidates_are_numbered_does_not_matter() -> None:
    rng = np.random.default_rng(3)
    truth = np.repeat(rng.integers(4, size=(50, 1)), 4, 1)
    favourites = np.where(rng.random((50, 4)) < 0.6, truth, rng.integers(4, size=(50, 4)))
    favourites[rng.random((50, 4)) < 0.3] = -1
    kept = favourites[(favourites >= 0).sum(1) > 1]
    orders = rng.permuted(np.tile(np.arange(4), (len(kept), 1)), axis=1)
    renumbered = np.where(kept >= 0, np.take_along_axis(orders, kept % 4, 1), -1)
    one, other = measure(table(kept, 4)), measure(table(renumbered, 4))
    assert one is not None and one.alpha is not None and 0.1 < one.alpha < 0.9
    assert other == one
    assert reliability(table(renumbered, 4)) == pytest.approx(reliability(table(kept, 4)))


def test_people_without_judgement_of_a_group_are_missing_as_krippendorff_says() -> None:
    """Alpha of all units as they are and with their candidates exchanged, from values by observer and unit.

    His n - 1 is for a mean that is taken from the values; here it is known.
    """
    rng = np.random.default_rng(4)
    favourites = rng.integers(-1, 3, size=(60, 4))
    kept = favourites[(favourites >= 0).sum(1) > 1]
    rows = []
    for row, (a, b) in itertools.product(kept, [(0, 1), (0, 2), (1, 2)]):
        unit = [N if best < 0 else float(best == a) - float(best == b) for best in row]
        rows += [unit, [-each for each in unit]]
    found = measure(table(kept, 3))
    his, count = alpha(np.array(rows).T.tolist(), interval), np.isfinite(np.array(rows, float)).sum()
    assert found is not None and found.alpha == pytest.approx(1 - (1 - his) * count / (count - 1))


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_people_at_random_do_not_agree_however_few_the_groups_are(groups: int) -> None:
    """All that two people can choose in groups of two, one after the other: the mean of alpha is 0."""
    alphas = []
    for choices in itertools.product([0, 1], repeat=2 * groups):
        found = measure(table(np.array(choices).reshape(groups, 2), 2))
        assert found is not None and found.alpha is not None
        alphas.append(found.alpha)
    assert np.mean(alphas) == pytest.approx(0, abs=1e-12) and max(alphas) == 1


def test_who_contradicts_or_clicks_at_random_counts_little() -> None:
    rng = np.random.default_rng(5)
    truth = rng.integers(4, size=(200, 1))
    chance = rng.integers(4, size=(200, 5))
    likely = np.array([0.9, 0.8, 0.5, 0.0, 0.0])
    favourites = np.where(rng.random((200, 5)) < likely, truth, chance)
    favourites[:, 4] = (truth[:, 0] + 1) % 4
    found = reliability(table(favourites, 4))
    assert found["p0"] > found["p1"] > found["p2"] > 3 * found["p3"] and found["p4"] == 0


def test_of_two_people_who_contradict_each_other_neither_is_right() -> None:
    favourites = np.stack([np.arange(40) % 4, (np.arange(40) + 1) % 4], 1)
    assert reliability(table(favourites, 4)) == {"p0": 0.0, "p1": 0.0}


def test_a_run_says_how_much_its_people_agree(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    groups = [put_group(run) for _ in range(4)]
    assert agreement(run) is None
    for group, (anna, ben) in zip(groups, [(0, 0), (1, 1), (0, 1), (1, None)], strict=True):
        run.picks.add(group, Pick("favourite", (anna,)), who="Anna")
        if ben is not None:
            run.picks.add(group, Pick("favourite", (ben,)), who="Ben")
    run.picks.add(groups[3], Pick("skipped"), who="Ben")
    found = agreement(run)
    assert found is not None and found.groups == 3 and found.low is None
    assert [(each.who, each.groups) for each in found.people] == [("Anna", 3), ("Ben", 3)]
    assert found.same == pytest.approx(2 / 3)
    run.picks.add(groups[2], Pick("favourite", (0,)), who="Ben")  # a changed mind counts, and is measured anew
    assert agreement(run).alpha == 1


def test_ties_and_flags_are_judgements_too(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    group, other = put_group(run), put_group(run)
    run.picks.add(group, Pick("tie"), who="Anna")
    run.picks.add(group, Pick("all_bad"), who="Ben")
    alone = agreement(run)
    assert alone is not None and alone.alpha is None and (alone.same, alone.chance) == (1, 1)
    run.picks.add(other, Pick("favourite", (1,)), who="Anna")
    run.flags.add(other, 0, "defective", who="Ben")
    found = agreement(run)
    assert found is not None and found.alpha == 1  # of two pictures, who flags one prefers the other
    assert shared_table(run, frozenset({"Anna"})).groups == 0
