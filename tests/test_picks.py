"""Pairs that follow from picks."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d3po_core.errors import D3POError
from d3po_core.picks import Pick, check_flag, check_pick, graded, pairs, scores


def found(pick: Pick, candidates: int) -> set[tuple[int, int]]:
    return {(p.winner, p.loser) for p in pairs(pick, candidates)}


def test_a_favourite_beats_all_others_and_nothing_else_is_said() -> None:
    assert found(Pick("favourite", (2,)), 4) == {(2, 0), (2, 1), (2, 3)}


@given(st.permutations(range(5)))
def test_a_full_ranking_gives_every_pair_once_in_its_order(order: list[int]) -> None:
    assert found(Pick("ranking", tuple(order)), 5) == set(itertools.combinations(order, 2))


def test_candidates_left_out_of_a_ranking_share_the_last_place() -> None:
    assert found(Pick("ranking", (3, 1)), 4) == {(3, 1), (3, 0), (3, 2), (1, 0), (1, 2)}


@pytest.mark.parametrize("kind", ["tie", "all_bad", "skipped"])
def test_no_preference_gives_no_pair(kind: str) -> None:
    assert pairs(Pick(kind), 4) == []  # type: ignore[arg-type]


def test_scores_compare_liked_with_neutral_with_disliked() -> None:
    assert found(Pick("scores", scores=(1, 0, -1, 1)), 4) == {(0, 1), (0, 2), (3, 1), (3, 2), (1, 2)}


@given(st.integers(2, 8).flatmap(lambda n: st.tuples(st.just(n), st.permutations(range(n)))))
def test_every_group_weighs_the_same(case: tuple[int, list[int]]) -> None:
    n, order = case
    assert sum(p.weight for p in pairs(Pick("ranking", tuple(order)), n)) == pytest.approx(1)


@pytest.mark.parametrize(
    ("pick", "message"),
    [
        (Pick("favourite", (4,)), "does not have"),
        (Pick("favourite", ()), "exactly one"),
        (Pick("favourite", (0, 1)), "exactly one"),
        (Pick("ranking", (1, 1)), "twice"),
        (Pick("ranking", ()), "empty"),
        (Pick("scores", scores=(1, 0)), "4 numbers"),
        (Pick("scores", scores=(1, 0, 5, 0)), "4 numbers"),
        (Pick("best", (0,)), "not a kind"),  # type: ignore[arg-type]
    ],
)
def test_picks_that_do_not_fit_are_refused(pick: Pick, message: str) -> None:
    with pytest.raises(D3POError, match=message):
        check_pick(pick, 4)


SIZES = st.integers(2, 6)


@st.composite
def judged(draw: st.DrawFn) -> tuple[Pick | None, int, list[int], set[int]]:
    """Any judgement on a group: pick or none, how many candidates, which were shown, which are flagged."""
    n = draw(SIZES)
    shown = draw(st.lists(st.sampled_from(range(n)), unique=True, min_size=2))
    kind = draw(st.sampled_from([None, "favourite", "ranking", "tie", "all_bad", "skipped", "scores"]))
    order: tuple[int, ...] = ()
    if kind in ("favourite", "ranking"):
        most = 1 if kind == "favourite" else len(shown)
        order = tuple(draw(st.permutations(shown))[: draw(st.integers(1, most))])
    values = tuple(draw(st.lists(st.sampled_from([-1, 0, 1]), min_size=n, max_size=n))) if kind == "scores" else ()
    pick = None if kind is None else check_pick(Pick(kind, order, values), n)  # type: ignore[arg-type]
    return pick, n, shown, set(draw(st.lists(st.sampled_from(range(n)))))


def said_of(pick: Pick | None, a: int, b: int) -> bool:
    """Whether the pick by itself prefers a to b, read off its words."""
    if pick is None or pick.kind in ("tie", "all_bad", "skipped"):
        return False
    if pick.kind == "scores":
        return pick.scores[a] > pick.scores[b]
    return a in pick.order and (b not in pick.order or pick.order.index(a) < pick.order.index(b))


@given(judged())
def test_pairs_are_what_the_pick_says_among_the_unflagged_and_all_of_them_beat_the_flagged(
    case: tuple[Pick | None, int, list[int], set[int]],
) -> None:
    pick, n, shown, flagged = case
    expected = set()
    for a, b in itertools.permutations(shown, 2):
        if a not in flagged and (b in flagged or said_of(pick, a, b)):
            expected.add((a, b))
    made = pairs(pick, n, shown, flagged)
    assert {(pair.winner, pair.loser) for pair in made} == expected and len(made) == len(expected)
    assert sum(pair.weight for pair in made) == pytest.approx(1 if expected else 0)


@pytest.mark.parametrize("kind", [None, "tie", "all_bad", "skipped"])
def test_flags_alone_make_pairs_and_all_flagged_make_none(kind: str | None) -> None:
    pick = None if kind is None else Pick(kind)  # type: ignore[arg-type]
    assert {(p.winner, p.loser) for p in pairs(pick, 4, (), {1, 3})} == {(0, 1), (0, 3), (2, 1), (2, 3)}
    assert pairs(pick, 4, (), range(4)) == []
    assert pairs(pick, 4, (1, 3), {1, 3}) == []


@pytest.mark.parametrize(
    ("pick", "flagged", "expected"),
    [
        (Pick("favourite", (2,)), (), [0, 0, 1, 0]),
        (Pick("favourite", (2,)), (0,), [-1, 0, 1, 0]),
        (Pick("favourite", (2,)), (2,), [0, 0, -1, 0]),
        (Pick("ranking", (3, 1, 0, 2)), (), [1 / 3, 2 / 3, 0, 1]),
        (Pick("ranking", (3, 1)), (), [0, 0.5, 0, 1]),
        (Pick("ranking", (3, 1, 0, 2)), (1,), [0.5, -1, 0, 1]),
        (Pick("tie"), (), [0, 0, 0, 0]),
        (Pick("tie"), (1,), [0, -1, 0, 0]),
        (Pick("skipped"), (1, 3), [0, -1, 0, -1]),
        (Pick("all_bad"), (), [-1, -1, -1, -1]),
        (Pick("scores", scores=(1, 0, -1, 1)), (3,), [1, 0, -1, -1]),
        (None, (0, 1), [-1, -1, 0, 0]),
        (Pick("favourite", (2,)), (0, 1, 2, 3), [-1, -1, -1, -1]),
    ],
)
def test_scores_of_every_kind_of_judgement(pick: Pick | None, flagged: tuple[int, ...], expected: list[float]) -> None:
    assert scores(pick, 4, (), flagged) == pytest.approx(expected)


def test_nothing_is_said_of_what_was_not_shown() -> None:
    assert scores(Pick("all_bad"), 3, (0, 2)) == [-1, 0, -1]
    assert scores(Pick("ranking", (0, 2)), 3, (2, 0), {1}) == [1, 0, 0]


@given(judged())
def test_scores_turn_no_pair_round_and_are_in_range(case: tuple[Pick | None, int, list[int], set[int]]) -> None:
    pick, n, shown, flagged = case
    found = scores(pick, n, shown, flagged)
    assert len(found) == n and all(-1 <= score <= 1 for score in found)
    assert all(found[c] == -1 for c in flagged & set(shown)) and all(found[c] == 0 for c in set(range(n)) - set(shown))
    for pair in pairs(pick, n, shown, flagged):
        assert found[pair.winner] >= found[pair.loser]
        if pick is None or pick.kind not in ("all_bad", "scores"):
            assert found[pair.winner] > found[pair.loser]


def test_a_pair_weighs_as_much_as_it_is_certain() -> None:
    """Two candidates that are ln 3 apart: the better one is preferred 3 times in 4, and 2 x 3/4 - 1 is 1/2."""
    (pair,) = graded([0.0, math.log(3)])
    assert (pair.winner, pair.loser) == (1, 0) and pair.weight == pytest.approx(0.5)
    by_pair = {(p.winner, p.loser): p.weight for p in graded([0.0, math.log(3), math.log(9)])}
    assert by_pair == pytest.approx({(1, 0): 0.5 / 3, (2, 1): 0.5 / 3, (2, 0): 0.8 / 3})


@given(st.lists(st.floats(-20, 20), min_size=1, max_size=6))
def test_graded_pairs_are_those_of_a_bradley_terry_model(values: list[float]) -> None:
    made = {(p.winner, p.loser): p.weight for p in graded(values)}
    expected = {(a, b) for a, b in itertools.permutations(range(len(values)), 2) if values[a] > values[b]}
    assert made.keys() == expected
    for (a, b), weight in made.items():
        probability = 1 / (1 + math.exp(values[b] - values[a]))
        assert weight == pytest.approx((2 * probability - 1) / len(expected), abs=1e-12)
    assert sum(made.values()) <= 1 + 1e-12


def test_ties_make_no_pair() -> None:
    assert graded([0.7, 0.7, 0.7]) == [] and graded([1.0]) == []
    assert {(p.winner, p.loser) for p in graded([1.0, 5.0, 1.0])} == {(1, 0), (1, 2)}
    assert sum(p.weight for p in graded([0.0, 100.0, 0.0])) == pytest.approx(1)  # the tie takes no part of it


@pytest.mark.parametrize(("kind", "candidate"), [("ugly", 0), ("unsafe", 4), ("unsafe", -1)])
def test_flags_that_do_not_fit_are_refused(kind: str, candidate: int) -> None:
    with pytest.raises(D3POError):
        check_flag(kind, candidate, 4)
