"""The benchmark beside other programs: this project's own lines run, and what is absent is named and left out."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.others.__main__ import LINES, Measured, Program, table

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def output() -> str:
    """What the quick mode prints where no other program is there; with a folder that is not the authors'."""
    command = [sys.executable, "-m", "benchmarks.others", "--quick", "--d3po", "/nowhere/d3po"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": ""})
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_own_lines_are_measured(output: str) -> None:
    for line in LINES:
        figures = re.search(rf"^{re.escape(line.name)} +(\d+\.\d+) +([\d,]+)$", output, re.M)
        assert bool(figures) == (line.program == ""), line.name
        assert figures is None or float(figures[1]) > 0


def test_what_is_absent_is_said_in_a_sentence(output: str) -> None:
    assert "Left out: the authors' train.py: there is no scripts/train.py in /nowhere/d3po." in output
    assert "Left out: diffusers Diffusion-DPO: its folder was not named." in output
    assert "Traceback" not in output


def test_missing_packages_are_named() -> None:
    assert (
        Program(sys.executable, None, ["json", "no_such_package"]).lacking()
        == f"{sys.executable} lacks no_such_package."
    )
    assert Program(sys.executable, None, ["json"]).lacking() == ""


def test_ratios_are_taken_within_each_turn() -> None:
    """Medians of 2, 3 and 1; not the ratio of medians, which would be 4 / 3."""
    ours = [Measured(1.0, 10.0), Measured(2.0, 10.0), Measured(4.0, 10.0)]
    theirs = [Measured(2.0, 30.0), Measured(6.0, 30.0), Measured(4.0, 30.0)]
    text = table(LINES, {"ours, default": ours, "TRL DDPO": theirs})
    assert re.search(r"TRL DDPO over ours, default +2\.00 \(1\.00 to 3\.00\) +3\.00 \(3\.00 to 3\.00\)$", text, re.M)
