"""What lists call tastes: whatever was done elsewhere, a page never acts on another taste than the one it shows."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from d3po_core.errors import D3POError
from d3po_core.run import Run
from d3po_core.run.library import RunLibrary
from d3po_panels.tastes import chosen, find, labels
from tests.run_helpers import MODEL


def begun(folder: Path, name: str) -> Run:
    return Run.create(folder, name=name, model=MODEL, settings={})


def label_of(shelf: RunLibrary, run: Run) -> str:
    return next(label for label, found in labels(shelf).items() if found.run_id == run.run_id)


def test_a_label_goes_on_meaning_its_taste(tmp_path: Path) -> None:
    shelf, first = RunLibrary(tmp_path), begun(tmp_path / "one", "Cats")
    shown = label_of(shelf, first)
    second = begun(tmp_path / "two", "Cats")
    assert shown.startswith("Cats") and shown != label_of(shelf, second)
    assert [found.run_id for found in labels(shelf).values()] == [second.run_id, first.run_id]
    assert chosen(shelf, shown).run_id == first.run_id
    first.rename("Dogs")
    assert chosen(shelf, shown).run_id == first.run_id
    second.rename("Dogs")
    assert chosen(shelf, shown).run_id == first.run_id


def test_a_deleted_tastes_label_means_none(tmp_path: Path) -> None:
    shelf, first = RunLibrary(tmp_path), begun(tmp_path / "one", "Cats")
    shown = label_of(shelf, first)
    first.close()
    shutil.rmtree(first.folder)
    begun(tmp_path / "two", "Cats")
    with pytest.raises(D3POError, match="There is no such taste"):
        chosen(shelf, shown)


@pytest.mark.parametrize("label", [None, "", "Cats", "#", "Cats #"])
def test_what_is_no_label_means_none(tmp_path: Path, label: str | None) -> None:
    begun(tmp_path / "one", "Cats")
    assert find(RunLibrary(tmp_path), label) is None
