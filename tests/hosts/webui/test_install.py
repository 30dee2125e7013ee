"""install.py: in a web UI it changes no package; elsewhere it says nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .conftest import HOSTS, NONE, PYTHONS

ROOT = Path(__file__).parents[3]
INSTALL = ROOT / "install.py"
HOST = "import sys; from modules import launch_utils; launch_utils.run_extension_installer(sys.argv.pop())"
"""What a host does with our folder when it starts."""
PACKAGES = """
import json
from importlib.metadata import distributions
print(json.dumps(sorted(f"{found.metadata['Name']} {found.version} {found._path}" for found in distributions())))
"""


def installed(python: str) -> Any:
    """Every package in an environment with its version and place."""
    done = subprocess.run([python, "-c", PACKAGES], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def run(folder: Path, torch: str | None = None, path: str = "") -> subprocess.CompletedProcess[str]:
    """Run install.py on its own, with another version of PyTorch beside it."""
    if torch:
        about = folder / f"torch-{torch}.dist-info"
        about.mkdir(parents=True)
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: torch\nVersion: {torch}\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), path])}
    return subprocess.run([sys.executable, str(INSTALL)], capture_output=True, text=True, env=environment, cwd=folder)


@pytest.mark.parametrize("number", range(len(HOSTS)) if HOSTS else [NONE])
def test_a_host_has_the_packages_that_it_had(number: int, tmp_path: Path) -> None:
    host, python = HOSTS[number], PYTHONS[number]
    before = installed(python)
    command = [python, "-c", HOST, "--data-dir", str(tmp_path), str(ROOT)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=host)
    assert "install.py" not in done.stdout + done.stderr  # it names the file where that fails
    assert len(before) > 50 and installed(python) == before


@pytest.fixture
def webui(tmp_path: Path) -> Path:
    """As much of a web UI as install.py looks for."""
    (tmp_path / "webui" / "modules").mkdir(parents=True)
    (tmp_path / "webui" / "modules" / "launch_utils.py").touch()
    return tmp_path / "webui"


@pytest.mark.parametrize(("torch", "old"), [("2.0.1+cu118", True), ("1.13.1", True), ("2.1.2+cu121", False)])
def test_pytorch_that_is_too_old_is_told_in_a_sentence(tmp_path: Path, webui: Path, torch: str, old: bool) -> None:
    done = run(tmp_path, torch, str(webui))
    assert done.returncode == 0 and not done.stderr
    assert done.stdout.count("\n") == old
    assert (f"D3PO needs PyTorch 2.1 or later, and this web UI has {torch}" in done.stdout) is old


def test_outside_a_web_ui_it_does_nothing(tmp_path: Path) -> None:
    done = run(tmp_path, "1.13.1")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not [path for path in tmp_path.rglob("*") if "torch" not in str(path)]
