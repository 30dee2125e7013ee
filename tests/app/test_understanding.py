"""How well picks are understood while a person picks: the same figure as the judge's, beside the pick's own path."""

from __future__ import annotations

import time

from d3po_core.app import understanding
from d3po_core.app.understanding import Understanding, Watch, understand
from d3po_core.rewards.judge import MIN_GROUPS, fit_judge
from tests.rewards.test_judge import coloured_run, pick_all


def found(watch: Watch, run, unlike: object = None) -> Understanding | None:  # type: ignore[no-untyped-def]
    """What is known once the thread is done."""
    end = time.monotonic() + 60
    while (known := watch.latest(run)) == unlike and time.monotonic() < end:
        time.sleep(0.01)
    return known


def test_it_is_what_the_judge_says(tmp_path):
    run = coloured_run(tmp_path / "run", 24, held_out=3)
    pick_all(run)
    known, facts = understand(run), fit_judge(run).facts
    assert known is not None
    assert (known.right, known.groups, known.share) == (facts.accuracy, facts.groups, facts.share)
    assert known.share == 1  # warmth shows in the colours


def test_random_picks_tell_nothing_and_ask_for_more(tmp_path):
    run = coloured_run(tmp_path / "run", 24)
    pick_all(run, seed=2)
    known = understand(run)
    assert known is not None and known.share < 0.5 and known.more


def test_too_few_picks_are_not_judged(tmp_path):
    run = coloured_run(tmp_path / "run", MIN_GROUPS - 1)
    pick_all(run)
    assert understand(run) is None


def test_a_page_gets_at_once_what_was_known_last(tmp_path, monkeypatch):
    """And the thread is asked only once for the same picks."""
    run = coloured_run(tmp_path / "run", 20)
    pick_all(run)
    asked = []
    monkeypatch.setattr(understanding, "understand", lambda run, panel: asked.append(run) or understand(run, panel))
    watch = Watch()
    assert watch.latest(run) is None
    first = found(watch, run)
    assert first == understand(run)
    for _ in range(5):
        assert watch.latest(run) == first
    assert len(asked) == 1
    run.picks.remove(run.picks.standing()[0].pick_id)
    assert watch.latest(run) == first  # of before, not nothing
    assert found(watch, run, unlike=first) == understand(run)


def test_what_is_missing_is_left_out(tmp_path):
    run = coloured_run(tmp_path / "run", 20)
    pick_all(run)
    run.groups.image_path(run.groups.select()[0].id, 0).unlink()
    watch = Watch()
    known = found(watch, run)
    assert known == understand(run)
    assert known is not None and known.groups == 19
