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


def label_of(library: RunLibrary, run: Run) -> str:
    return next(label for label, found in labels(library).items() if found.run_id == run.run_id)


def test_a_label_goes_on_meaning_its_taste(tmp_path: Path) -> None:
    library, first = RunLibrary(tmp_path), begun(tmp_path / "one", "Cats")
    shown = label_of(library, first)
    second = begun(tmp_path / "two", "Cats")
    assert shown.startswith("Cats") and shown != label_of(library, second)
    assert [found.run_id for found in labels(library).values()] == [second.run_id, first.run_id]
    assert chosen(library, shown).run_id == first.run_id
    first.rename("Dogs")
    assert chosen(library, shown).run_id == first.run_id
    second.rename("Dogs")
    assert chosen(library, shown).run_id == first.run_id


def test_a_deleted_tastes_label_means_none(tmp_path: Path) -> None:
    library, first = RunLibrary(tmp_path), begun(tmp_path / "one", "Cats")
    shown = label_of(library, first)
    first.close()
    shutil.rmtree(first.folder)
    begun(tmp_path / "two", "Cats")
    with pytest.raises(D3POError, match="There is no such taste"):
        chosen(library, shown)


@pytest.mark.parametrize("label", [None, "", "Cats", "#", "Cats #"])
def test_what_is_no_label_means_none(tmp_path: Path, label: str | None) -> None:
    begun(tmp_path / "one", "Cats")
    assert find(RunLibrary(tmp_path), label) is None
