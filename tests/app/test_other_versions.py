"""A run of an earlier version, and one of a later, open in every front end: by what all of them read a run with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from d3po_core.app.runs import lora_settings, newest_sample_settings, prompts_to_draw, sample_settings, train_settings
from d3po_core.cli import main
from d3po_core.gallery import Actions, Request, handle
from d3po_core.run import Run
from d3po_core.run.run import RunLibrary
from d3po_core.settings import LoraSettings, TrainSettings
from d3po_panels.report import report

EARLIER = Path(__file__).parents[1] / "data" / "earlier_run"
ZEROS = {"method": "d3po", "beta": 0.0, "clip": 0.0, "learning_rate": 0.0}
"""As 0.1.0's first runs kept what was left to the method."""


LATER: dict[str, Any] = {"of_tomorrow": {"a": [1]}, "preset": "of tomorrow"}
"""Settings of a version that knows more."""


@pytest.fixture(params=["earlier", "later"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Run:
    run = Run.open(shutil.copytree(EARLIER, tmp_path / "run"))
    for section in ("sample", "train", "lora"):
        run.change_settings(section, LATER if request.param == "later" else {})
    run.change_settings("train", ZEROS)
    return run


def test_its_settings_are_read(run: Run) -> None:
    assert (train_settings(run).beta, train_settings(run).learning_rate) == (None, None)
    assert train_settings(run).method == TrainSettings().method
    assert lora_settings(run) == LoraSettings(targets="attention")  # as it was begun
    assert sample_settings(run).steps >= 1 and newest_sample_settings(run).steps >= 1
    assert prompts_to_draw(run) == ["a red tulip by day"]


def test_the_command_line_tells_of_it(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run.close()
    assert main(["info", "--run", str(run.folder)]) == 0
    assert "Groups:" in capsys.readouterr().out


def test_the_gallery_shows_it(run: Run) -> None:
    library = RunLibrary(run.folder.parent)
    response = handle(library, Actions(), Request("GET", f"taste/{run.run_id}/state"))
    assert response.status == 200 and isinstance(response.body, bytes)
    assert json.loads(response.body)["groups"]["drawn"] >= 3


def test_the_panels_report_it(run: Run) -> None:
    assert json.loads(report(run, "cpu", []))["log"] == []
