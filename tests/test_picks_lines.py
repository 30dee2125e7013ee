"""Picks as JSON lines go out and come back, all or none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from d3po_core.dataset import export_dataset
from d3po_core.errors import D3POError
from d3po_core.picks import Pick
from d3po_core.picks_lines import import_lines, pick_lines
from d3po_core.run import Run

from .run_helpers import make_run

PICKS = [
    ("Anna", Pick("favourite", (2,)), (2, 0, 1)),
    ("Anna", Pick("ranking", (1, 0)), (0, 1, 2)),
    ("", Pick("tie"), ()),
    ("Ben", Pick("scores", scores=(1, 0, -1)), ()),
    ("Ben", Pick("all_bad"), (0, 1)),
]


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Run, Run]:
    """A run with picks of every kind, and its copy before they were made."""
    run = make_run(tmp_path / "run", groups=5, candidates=3)
    run.close()
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    run = Run.open(tmp_path / "run")
    for group, (who, pick, shown) in zip(run.groups(), PICKS, strict=True):
        run.add_pick(group.id, pick, who=who, shown_order=shown)
    return run, Run.open(tmp_path / "copy")


def told(run: Run) -> list[object]:
    return [(stored.group_id, stored.who, stored.pick) for stored in run.picks()]


def test_all_that_was_said_comes_back_once(runs: tuple[Run, Run], tmp_path: Path) -> None:
    run, copy = runs
    file = tmp_path / "picks.jsonl"
    file.write_text(pick_lines(run), encoding="utf-8")
    assert import_lines(copy, file) == 5
    assert told(copy) == told(run)
    assert copy.picks()[0].shown_order == (2, 0, 1)
    assert import_lines(copy, file) == 0 and len(copy.pick_history()) == 5


def test_a_data_set_brings_its_picks_back(runs: tuple[Run, Run], tmp_path: Path) -> None:
    run, copy = runs
    export_dataset(run, tmp_path / "data")
    assert import_lines(copy, tmp_path / "data" / "metadata.jsonl") == 5
    assert told(copy) == told(run)


@pytest.mark.parametrize(
    "changes",
    [
        {"group": 99},
        {"group": [0]},
        {"prompt": "quite another"},
        {"kind": "best"},
        {"order": [7]},
        {"order": "2"},
        {"order": [True]},
        {"shown": [0, 0, 1]},
        {"shown": [0, 1]},  # the favourite was not among them
        {"scores": [5, 5, 5], "kind": "scores"},
    ],
)
def test_a_line_that_does_not_fit_keeps_all_out(
    runs: tuple[Run, Run], tmp_path: Path, changes: dict[str, object]
) -> None:
    run, copy = runs
    first, *others = pick_lines(run).splitlines()
    file = tmp_path / "picks.jsonl"
    file.write_text("\n".join([*others, json.dumps({**json.loads(first), **changes})]), encoding="utf-8")
    with pytest.raises(D3POError, match=r"Line 5 of picks.jsonl does not fit") as caught:
        import_lines(copy, file)
    assert caught.value.safe == "Nothing was imported." and not copy.picks()


@pytest.mark.parametrize("text", ["{", "[1, 2]", "7", "{}", '{"picks": [3], "group": 0}', "null"])
def test_what_is_no_pick_is_told(runs: tuple[Run, Run], tmp_path: Path, text: str) -> None:
    file = tmp_path / "picks.jsonl"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(D3POError, match=r"Line 1 of picks.jsonl"):
        import_lines(runs[1], file)
    with pytest.raises(D3POError, match="cannot be read"):
        import_lines(runs[1], tmp_path / "none.jsonl")
