"""No pick is lost, doubled or mixed up: by repetition, undo, other people, or several processes at once."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from d3po_core.picks import Pick
from d3po_core.run import Run
from tests.run_helpers import add_groups, make_run, pick_all, processes, undo

LEFT, RIGHT = Pick("favourite", (0,)), Pick("favourite", (1,))


def test_a_pick_is_kept_with_all_that_was_told(tmp_path):
    run = make_run(tmp_path, groups=1, candidates=3)
    (group,) = run.groups.select()
    pick = Pick("ranking", (2, 0))
    run.picks.add(group.id, pick, pick_id="p", who="x", shown_order=[2, 0, 1], decision_ms=812.5, reason="warmer")
    (stored,) = Run.open(tmp_path).picks.standing()
    assert (stored.group_id, stored.pick, stored.pick_id, stored.who) == (group.id, pick, "p", "x")
    assert (stored.shown_order, stored.decision_ms, stored.reason) == ((2, 0, 1), 812.5, "warmer")
    scores = Pick("scores", scores=(1, 0, -1))
    run.picks.add(group.id, scores)
    assert run.picks.standing(who="")[0].pick == scores


def test_the_same_pick_id_is_recorded_once(tmp_path):
    run = make_run(tmp_path, groups=2)
    a, b = (group.id for group in run.groups.select())
    first = run.picks.add(a, LEFT, pick_id="p")
    again = run.picks.add(a, LEFT, pick_id="p")
    assert (first.new, again.new) == (True, False)
    assert first.revision == again.revision == run.picks.revision
    run.picks.add(b, RIGHT)
    assert len(run.picks.history()) == 2
    undo(run)
    undo(run)
    assert not run.picks.add(a, LEFT, pick_id="p").new
    assert run.picks.standing() == []


def test_a_new_pick_supersedes_the_same_persons_only(tmp_path):
    run = make_run(tmp_path, groups=1)
    (group,) = run.groups.select()
    run.picks.add(group.id, LEFT, who="x")
    run.picks.add(group.id, LEFT, who="y")
    run.picks.add(group.id, RIGHT, who="x")
    assert [(stored.who, stored.pick) for stored in run.picks.standing()] == [("y", LEFT), ("x", RIGHT)]
    assert len(run.picks.history()) == 3
    assert [stored.pick for stored in run.picks.history() if stored.who == "x"] == [LEFT, RIGHT]


def test_undo_goes_back_step_by_step_also_after_reopening(tmp_path):
    run = make_run(tmp_path, groups=2)
    a, b = (group.id for group in run.groups.select())
    run.picks.add(a, LEFT)
    run.picks.add(b, LEFT)
    run.picks.add(a, RIGHT)
    run.picks.add(b, LEFT, who="other")
    run.close()
    run = Run.open(tmp_path)
    undone = undo(run)
    assert (undone.group_id, undone.pick) == (a, RIGHT)
    assert undone.undone is not None
    assert {stored.group_id: stored.pick for stored in run.picks.standing(who="")} == {a: LEFT, b: LEFT}
    assert undo(Run.open(tmp_path)).group_id == b
    assert undo(run).group_id == a
    revision = run.picks.revision
    assert undo(run) is None
    assert run.picks.revision == revision
    assert [stored.who for stored in run.picks.standing()] == ["other"]
    assert len(run.picks.history()) == 4


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    folder = tmp_path_factory.mktemp("template") / "run"
    make_run(folder, groups=3).close()
    return folder


ADD = st.tuples(st.just("add"), st.integers(0, 2), st.sampled_from("xy"), st.integers(0, 1), st.integers(0, 9))
UNDO = st.tuples(st.just("undo"), st.sampled_from("xy"))


@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ADD | UNDO | st.just(("reopen",)), max_size=20))
def test_picks_behave_like_a_stack_for_each_person(template, moves):
    with tempfile.TemporaryDirectory() as place:
        folder = Path(shutil.copytree(template, Path(place) / "run"))
        run = Run.open(folder)
        ids = [group.id for group in run.groups.select()]
        stacks: dict[str, list[tuple[str, Pick]]] = {"x": [], "y": []}
        seen, revision = set(), run.picks.revision
        for kind, *rest in moves:
            before = _standing(stacks)
            if kind == "add":
                group, who, choice, request = rest
                pick = Pick("favourite", (choice,))
                recorded = run.picks.add(ids[group], pick, pick_id=str(request), who=who)
                assert recorded.new == (request not in seen)
                if request not in seen:
                    stacks[who].append((ids[group], pick))
                    seen.add(request)
            elif kind == "undo":
                undone = undo(run, rest[0])
                expected = stacks[rest[0]].pop() if stacks[rest[0]] else None
                assert expected == (undone and (undone.group_id, undone.pick))
            else:
                run.close()
                run = Run.open(folder)
            assert {(stored.who, stored.group_id): stored.pick for stored in run.picks.standing()} == _standing(stacks)
            assert _standing(stacks) == before or run.picks.revision != revision
            revision = run.picks.revision
        picked = {group.id for group in run.groups.select(picked=True)}
        assert picked == {group for stack in stacks.values() for group, _ in stack}
        run.close()


def _standing(stacks: dict[str, list[tuple[str, Pick]]]) -> dict[tuple[str, str], Pick]:
    return {(who, group): pick for who, stack in stacks.items() for group, pick in stack}


def test_four_processes_pick_and_sample_at_once(tmp_path):
    run = make_run(tmp_path, groups=5)
    ids = [group.id for group in run.groups.select()]
    context = processes()
    started = [context.Process(target=pick_all, args=(tmp_path, who, ids, 5)) for who in "abcd"]
    started += [context.Process(target=add_groups, args=(tmp_path, 8)) for _ in range(2)]
    for process in started:
        process.start()
    for process in started:
        process.join()
    assert [process.exitcode for process in started] == [0] * 6
    made = sorted((stored.who, stored.pick_id) for stored in run.picks.history())
    assert made == sorted((who, f"{who} {each} {time}") for who in "abcd" for each in ids for time in range(5))
    assert {(stored.who, stored.group_id, stored.pick) for stored in run.picks.standing()} == {
        (who, each, LEFT) for who in "abcd" for each in ids
    }
    assert run.picks.revision == len(made)
    assert [group.number for group in run.groups.select()] == list(range(21))
