"""Masks in a run: what stands, what is superseded, and that they judge nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from d3po_core.errors import D3POError
from d3po_core.exchange.lines import export_dataset, import_lines, pick_lines
from d3po_core.picks import MASK_SIZE, Mask, Pick
from d3po_core.run import Run
from tests.run_helpers import make_run, put_group

LEFT: Mask = (0xFFFF0000,) * MASK_SIZE
RIGHT: Mask = (0x0000FFFF,) * MASK_SIZE


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return make_run(tmp_path / "run")


def stands(run: Run) -> dict[tuple[str, str, int], Mask]:
    return {(each.who, each.group_id, each.candidate): each.mask for each in run.masks.standing()}


def test_the_newest_of_each_person_and_candidate_stands(run: Run) -> None:
    group = put_group(run)
    for who, candidate, mask in (("A", 0, LEFT), ("A", 1, LEFT), ("B", 0, LEFT), ("A", 0, RIGHT)):
        run.masks.add(group, candidate, mask, who=who)
    assert stands(run) == {("A", group, 0): RIGHT, ("A", group, 1): LEFT, ("B", group, 0): LEFT}
    run.masks.add(group, 0, (), who="A")
    run.masks.add(group, 1, [0] * MASK_SIZE, who="A")
    assert stands(run) == {("B", group, 0): LEFT}
    assert len(run.masks.history()) == 6


def test_the_same_id_is_recorded_once(run: Run) -> None:
    group = put_group(run)
    assert run.masks.add(group, 0, LEFT, pick_id="a" * 32).new
    assert not run.masks.add(group, 1, RIGHT, pick_id="a" * 32).new
    assert stands(run) == {("", group, 0): LEFT}


def test_a_mask_judges_nothing(run: Run) -> None:
    group, other = put_group(run), put_group(run)
    before = run.picks.counts("A", False)
    run.masks.add(group, 0, LEFT, who="A")
    assert run.picks.counts("A", False) == before
    assert run.picks.judgements() == [] and run.picks.history() == [] and run.flags.history() == []
    assert run.picks.last("A") is None and run.picks.untaught() == 0 and run.history.page() == (0, [])
    run.picks.add(group, Pick("favourite", (1,)), who="A")
    run.flags.add(other, 0, "defective", who="A")
    run.masks.add(group, 1, RIGHT, who="A")
    assert [each.pick for each in run.picks.standing()] == [Pick("favourite", (1,))]
    last = run.picks.last("A")
    assert last is not None and last.group_id == other
    _, (_, past) = run.history.page()
    assert past.masks == {0: LEFT, 1: RIGHT} and past.flags == {}


def test_taking_back_all_of_a_group_takes_masks_too(run: Run) -> None:
    group = put_group(run)
    run.masks.add(group, 0, LEFT, who="A")
    run.masks.add(group, 0, LEFT, who="B")
    picked = run.picks.add(group, Pick("favourite", (0,)), who="A")
    run.picks.remove(picked.pick_id)
    assert stands(run) == {("B", group, 0): LEFT}


@pytest.mark.parametrize(("candidate", "rows"), [(9, LEFT), (-1, LEFT), (0, (1,)), (0, (2**32,) * MASK_SIZE)])
def test_what_does_not_fit_is_refused(run: Run, candidate: int, rows: Mask) -> None:
    group = put_group(run)
    with pytest.raises(D3POError, match="mask"):
        run.masks.add(group, candidate, rows)
    with pytest.raises(D3POError, match="no group"):
        run.masks.add("000099-12345678", 0, LEFT)
    assert stands(run) == {}


def test_they_go_to_a_copy_of_the_run_by_lines_and_by_a_data_set(run: Run, tmp_path: Path) -> None:
    group = put_group(run)
    run.close()
    shutil.copytree(run.folder, tmp_path / "copy")
    run, copy = Run.open(run.folder), Run.open(tmp_path / "copy")
    run.picks.add(group, Pick("favourite", (0,)), who="A")
    run.masks.add(group, 0, LEFT, who="A")
    run.masks.add(group, 1, RIGHT, who="B")
    lines = tmp_path / "picks.jsonl"
    lines.write_text(pick_lines(run))
    assert import_lines(copy, lines) == 3 and stands(copy) == stands(run)
    assert import_lines(copy, lines) == 0
    run.masks.add(group, 1, LEFT, who="B")
    export_dataset(run, tmp_path / "set")
    assert import_lines(copy, tmp_path / "set" / "metadata.jsonl") == 1
    assert stands(copy) == stands(run)


def test_what_is_painted_on_a_repeat_changes_nothing(run: Run) -> None:
    group = put_group(run)
    run.masks.add(group, 0, LEFT, who="A")
    run.masks.add(group, 0, RIGHT, who="A", reason="repeat")
    run.masks.add(group, 0, (), who="A", reason="repeat")
    run.masks.add(group, 1, RIGHT, who="A", reason="repeat")
    assert stands(run) == {("A", group, 0): LEFT}


def test_a_mask_is_no_pick_to_take_back(run: Run) -> None:
    recorded = run.masks.add(put_group(run), 0, LEFT)
    assert not run.picks.has(recorded.pick_id)
