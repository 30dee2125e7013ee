"""One mypy command checks every Python root, the nodes too."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest

from .test_checkout import ROOT, pyproject

INSTALLED = importlib.util.find_spec("mypy") is not None


@pytest.mark.skipif(not INSTALLED and "CI" not in os.environ, reason="mypy is not installed")
@pytest.mark.skipif(not (ROOT / "nodes").is_dir(), reason="not a checkout")
def test_types_are_right(tmp_path):
    command = [sys.executable, "-m", "mypy", "--no-error-summary", "--cache-dir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(not (ROOT / "nodes").is_dir(), reason="not a checkout")
def test_every_python_root_is_checked():
    files = pyproject()["tool"]["mypy"]["files"]
    roots = {path.parent.name for path in ROOT.glob("*/*.py")} | {path.name for path in ROOT.glob("*.py")}
    checked = {name.removeprefix("tools/mypy/pack/") for name in files}
    assert roots - {"tests", "tools"} <= checked
