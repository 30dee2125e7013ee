"""Pairs that follow from picks."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d3po_core.errors import D3POError
from d3po_core.picks import Pick, check_pick, pairs


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
