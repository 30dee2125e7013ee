"""No flag is lost, doubled or mixed up, and picks beside them stay what they were."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from d3po_core.errors import D3POError
from d3po_core.picks import Pick
from d3po_core.run import RoundSummary, Run
from d3po_core.training.preferences import collect_preferences
from tests.run_helpers import make_run, put_group, undo

LEFT, RIGHT = Pick("favourite", (0,)), Pick("favourite", (1,))


def standing(run: Run, who: str | None = None) -> list[tuple[str, int, str]]:
    return [(flag.group_id, flag.candidate, flag.kind) for flag in run.flags.standing(who=who)]


def test_a_flag_is_kept_with_all_that_was_told_and_once_for_each_id(tmp_path):
    run = make_run(tmp_path, groups=1, candidates=3)
    (group,) = run.groups.select()
    first = run.flags.add(group.id, 2, "unsafe", pick_id="f", who="x", shown_order=[2, 0, 1], reason="random")
    again = run.flags.add(group.id, 1, "defective", pick_id="f", who="x")
    assert (first.new, again.new) == (True, False) and first.revision == again.revision == run.picks.revision
    (flag,) = Run.open(tmp_path).flags.standing()
    assert (flag.group_id, flag.candidate, flag.kind, flag.pick_id, flag.who) == (group.id, 2, "unsafe", "f", "x")
    assert (flag.on, flag.shown_order, flag.reason, flag.undone) == (True, (2, 0, 1), "random", None)
    run.picks.take_back("f")
    assert not run.flags.add(group.id, 2, "unsafe", pick_id="f").new and run.flags.standing() == []
    assert len(run.flags.history()) == 1


def test_flags_and_picks_do_not_touch_each_other(tmp_path):
    run = make_run(tmp_path, groups=1, candidates=3)
    (group,) = run.groups.select()
    run.picks.add(group.id, LEFT, who="x")
    run.flags.add(group.id, 2, "defective", who="x")
    run.flags.add(group.id, 2, "unsafe", who="x")
    run.flags.add(group.id, 0, "unsafe", who="y")
    assert [(stored.who, stored.pick) for stored in run.picks.standing()] == [("x", LEFT)] and len(
        run.picks.history()
    ) == 1
    assert standing(run, "x") == [(group.id, 2, "defective"), (group.id, 2, "unsafe")]
    run.picks.add(group.id, RIGHT, who="x")
    assert len(standing(run)) == 3
    run.flags.add(group.id, 2, "defective", on=False, who="x")
    assert standing(run) == [(group.id, 2, "unsafe"), (group.id, 0, "unsafe")]
    mine, theirs = run.picks.judgements()
    assert (mine.who, mine.pick, mine.flagged) == ("x", RIGHT, {2})
    assert (theirs.who, theirs.pick, theirs.flagged) == ("y", None, {0})


def test_picking_a_flagged_picture_outweighs_the_flag_until_the_pick_is_taken_back(tmp_path):
    run = make_run(tmp_path, groups=1, candidates=3)
    (group,) = run.groups.select()
    run.flags.add(group.id, 0, "defective")
    run.flags.add(group.id, 1, "defective")
    run.picks.add(group.id, LEFT)
    assert standing(run) == [(group.id, 1, "defective")]
    undo(run)
    assert standing(run) == [(group.id, 0, "defective"), (group.id, 1, "defective")]
    run.picks.add(group.id, Pick("ranking", (2, 0)))  # not the first of it
    assert len(standing(run)) == 2
    run.picks.add(group.id, LEFT, who="somebody else")
    assert len(standing(run)) == 2
    run.picks.add(group.id, LEFT)
    run.flags.add(group.id, 0, "defective")  # and changed their mind again
    assert (group.id, 0, "defective") in standing(run)


def test_undo_takes_flags_and_picks_back_in_the_order_in_which_they_were_made(tmp_path):
    run = make_run(tmp_path, groups=2)
    a, b = (group.id for group in run.groups.select())
    run.flags.add(a, 1, "defective")
    run.picks.add(a, LEFT)
    run.flags.add(b, 0, "unsafe")
    run.flags.add(b, 0, "unsafe", on=False)
    run.flags.add(b, 0, "unsafe", who="other")
    run.close()
    run = Run.open(tmp_path)
    assert undo(run).on is False and standing(run, "") == [(a, 1, "defective"), (b, 0, "unsafe")]
    assert undo(run).candidate == 0 and standing(run, "") == [(a, 1, "defective")]
    assert undo(run).pick == LEFT
    assert undo(run).candidate == 1
    assert undo(run) is None and [flag.who for flag in run.flags.standing()] == ["other"]


def test_counts_and_what_comes_next(tmp_path):
    run = make_run(tmp_path, groups=4, candidates=3)
    a, b, c, d = (group.id for group in run.groups.select())
    before = run.picks.untaught()
    run.flags.add(a, 1, "defective")
    counts = run.picks.counts("")
    assert (counts.picks, counts.yours, counts.usable, counts.waiting) == (1, 1, 1, 4)  # it is still to be picked in
    assert run.picks.untaught() == before + 1
    run.picks.add(a, LEFT)
    assert (run.picks.counts("").picks, run.picks.counts("").usable, run.picks.untaught()) == (1, 1, 1)
    for candidate in range(3):
        run.flags.add(b, candidate, "unsafe")
    assert (run.picks.counts("").picks, run.picks.counts("").usable) == (
        2,
        1,
    )  # all bad: nothing is better than anything
    run.picks.add(c, Pick("tie"))
    run.flags.add(c, 0, "defective")
    assert (run.picks.counts("").picks, run.picks.counts("").usable) == (3, 2)
    run.flags.add(c, 0, "defective", on=False)
    assert run.picks.counts("").usable == 1
    run.picks.add(d, Pick("skipped"))
    assert run.picks.counts("").yours == 3 and run.picks.counts("nobody").yours == 0
    number = run.rounds.begin({})
    assert run.picks.untaught() == 0
    run.flags.add(d, 0, "unsafe")
    assert run.picks.untaught() == 1
    run.rounds.finish(number, run.folder / "x.safetensors", "hash", RoundSummary())
    with run._database.read() as connection:
        trained = {row["group_id"] for row in connection.execute("SELECT group_id FROM trained")}
    assert trained == {a, b, c, d}


def test_training_takes_flags(tmp_path):
    run = make_run(tmp_path)
    a = put_group(run, candidates=3)
    b = put_group(run, candidates=3, near=(2,))
    c = put_group(run, candidates=2)
    hidden = put_group(run, candidates=2, held_out=True)
    with pytest.raises(D3POError, match="Nothing has been picked"):
        collect_preferences(run)
    run.flags.add(c, 0, "unsafe")
    run.flags.add(c, 1, "unsafe")
    with pytest.raises(D3POError, match="None of the 1 picks"):
        collect_preferences(run)
    run.picks.add(a, LEFT)
    run.flags.add(a, 2, "defective")
    run.picks.add(a, RIGHT, who="other")  # others' flags do not change what is said here
    run.flags.add(b, 0, "defective")
    run.flags.add(hidden, 1, "unsafe")
    lesson = collect_preferences(run)
    found = {name: [(p.winner, p.loser, p.weight) for p in made] for name, made in lesson.training.items()}
    sixth = pytest.approx(1 / 6)
    assert found == {
        a: [(0, 1, sixth), (0, 2, sixth), (1, 2, sixth), (1, 0, 0.25), (1, 2, 0.25)],  # the mean of both people
        b: [(1, 0, 1.0)],  # the third looks like another and was not asked about
    }
    assert [(p.winner, p.loser) for p in lesson.held_out[hidden]] == [(0, 1)]


def test_the_history_shows_flags_and_finds_them(tmp_path):
    run = make_run(tmp_path, groups=3, candidates=3)
    a, b, c = (group.id for group in run.groups.select())
    run.picks.add(a, LEFT, who="x")
    run.flags.add(a, 2, "unsafe", who="x")
    run.flags.add(a, 2, "defective", who="x")
    run.flags.add(b, 1, "defective", who="y")
    run.flags.add(b, 0, "defective", who="y")
    run.picks.add(c, Pick("tie"), who="x")
    total, found = run.history.page()
    assert total == 3 and run.history.people() == ["x", "y"]
    assert [(past.group_id, past.kind, past.flags) for past in found] == [
        (c, "tie", {}),
        (b, "flagged", {1: ["defective"], 0: ["defective"]}),
        (a, "favourite", {2: ["unsafe", "defective"]}),
    ]
    assert [past.group_id for past in run.history.page(kind="unsafe")[1]] == [a]
    assert [past.group_id for past in run.history.page(kind="defective", who="y")[1]] == [b]
    assert [past.group_id for past in run.history.page(kind="favourite")[1]] == [a]
    run.picks.remove(found[1].pick_id)
    run.picks.remove(found[2].pick_id)
    assert run.flags.standing() == [] and [past.group_id for past in run.history.page()[1]] == [c]


def test_what_does_not_fit_is_refused(tmp_path):
    run = make_run(tmp_path, groups=1)
    (group,) = run.groups.select()
    for wrong in (("000099-00000000", 0, "unsafe"), (group.id, 2, "unsafe"), (group.id, 0, "ugly")):
        with pytest.raises(D3POError):
            run.flags.add(*wrong)
    with pytest.raises(D3POError, match="not all were shown"):
        run.flags.add(group.id, 1, "unsafe", shown_order=[0])
    assert run.flags.history() == [] and run.picks.revision == 0


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    folder = tmp_path_factory.mktemp("template") / "run"
    make_run(folder, groups=2, candidates=3).close()
    return folder


FLAG = st.tuples(
    *(st.just("flag"), st.integers(0, 1), st.sampled_from("xy"), st.integers(0, 1)),
    *(st.sampled_from(["defective", "unsafe"]), st.booleans()),
)
PICK = st.tuples(
    *(st.just("pick"), st.integers(0, 1), st.sampled_from("xy"), st.integers(0, 1)),
    *(st.sampled_from(["favourite", "ranking", "tie"]), st.just(True)),
)
UNDO = st.tuples(st.just("undo"), st.just(0), st.sampled_from("xy"), st.just(0), st.just(""), st.just(True))


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(FLAG | PICK | UNDO, max_size=16))
def test_flags_stand_as_a_walk_through_the_stack_says(template, moves):
    """The model: each person's stack played from its beginning, flags put, taken off, or outweighed by a pick."""
    with tempfile.TemporaryDirectory() as place:
        run = Run.open(Path(shutil.copytree(template, Path(place) / "run")))
        ids = [group.id for group in run.groups.select()]
        stacks: dict[str, list[tuple[str, str, int, str, bool]]] = {"x": [], "y": []}
        for what, group, who, candidate, kind, on in moves:
            if what == "undo":
                undone = undo(run, who)
                assert (undone is None) == (not stacks[who])
                del stacks[who][-1:]
                continue
            stacks[who].append((what, ids[group], candidate, kind, on))
            if what == "flag":
                run.flags.add(ids[group], candidate, kind, on=on, who=who)
            else:
                run.picks.add(ids[group], Pick(kind, () if kind == "tie" else (candidate,)), who=who)
        for who, stack in stacks.items():
            # Only the pick that stands on a group outweighs flags: a superseded one no longer says anything.
            last = {group: at for at, (what, group, *_) in enumerate(stack) if what == "pick"}
            flags: set[tuple[str, int, str]] = set()
            for at, (what, group, candidate, kind, on) in enumerate(stack):
                if what == "flag" and on:
                    flags.add((group, candidate, kind))
                elif what == "flag":
                    flags.discard((group, candidate, kind))
                elif kind != "tie" and last[group] == at:
                    flags -= {(group, candidate, "defective"), (group, candidate, "unsafe")}
            assert set(standing(run, who)) == flags
            assert {stored.group_id for stored in run.picks.standing(who=who)} == set(last)
        run.close()
