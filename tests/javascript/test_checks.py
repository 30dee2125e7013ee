"""The type checker and the linter find nothing in web/ and javascript/; npm installs both by the lock file."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
MODULES = HERE / "node_modules"
LOCK = HERE / "package-lock.json"


@pytest.fixture(scope="module")
def node() -> str:
    """Install the tools where they are missing or older than the lock file; the path of node.

    Skips where there is no node, unless this is a CI, which must have it.
    """
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        if os.environ.get("CI"):
            pytest.fail("node and npm are not installed, and in a CI they must be")
        pytest.skip("node and npm are not installed")
    installed = MODULES / ".package-lock.json"
    if not installed.is_file() or installed.stat().st_mtime < LOCK.stat().st_mtime:
        run(npm, "ci", "--no-audit", "--no-fund", cwd=HERE)
    return node


def run(*command: str, cwd: Path) -> None:
    """Run a command; fail with all that it printed if it fails."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr


def test_types(node: str) -> None:
    run(node, str(MODULES / "typescript" / "bin" / "tsc"), "--project", str(HERE), cwd=HERE)


def test_lint(node: str) -> None:
    config = HERE / "eslint.config.mjs"
    run(
        *(node, str(MODULES / "eslint" / "bin" / "eslint.js"), "--config", str(config), "--max-warnings", "0"),
        *("web", "javascript"),
        cwd=ROOT,
    )


def test_the_lock_file_names_no_registry() -> None:
    """Whoever installs asks the registry that their npm is set to."""
    assert '"resolved"' not in LOCK.read_text(encoding="utf-8")
