"""The checkout as hosts and tools meet it: doors harmless, requirements modest, wheel clean, any folder name."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HOST_PACKAGES = {"filelock", "numpy", "pillow", "safetensors"}
VERSIONS = ["pinned.txt", "oldest.txt"]
HEAVY = {"torch", "diffusers", "transformers", "peft", "gradio", "PIL", "numpy"}


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[<>=!~; \[]", line)[0].lower() for line in requirements if line and not line.startswith("#")}


def pyproject() -> dict:
    tomllib = pytest.importorskip("tomllib" if sys.version_info >= (3, 11) else "tomli")
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.mark.parametrize("door", ["__init__.py", "install.py"])
def test_doors_load_nothing(door):
    code = (
        "import importlib.util, sys; before = set(sys.modules); "
        f"spec = importlib.util.spec_from_file_location('/a/comfyui-d3po.x', {str(ROOT / door)!r}); "
        "spec.loader.exec_module(importlib.util.module_from_spec(spec)); "
        "print(*sorted(m.partition('.')[0] for m in set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert not HEAVY & set(done.stdout.split())


def test_importing_the_package_and_its_command_line_loads_no_heavy_library():
    """A host must not start slower, and `d3po --help` must answer at once."""
    code = "import sys, d3po_core, d3po_core.cli; print(*{m.partition('.')[0] for m in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert not HEAVY & set(done.stdout.split())


def test_hosts_are_asked_for_nothing_new():
    assert names((ROOT / "requirements.txt").read_text().splitlines()) == HOST_PACKAGES
    assert names(pyproject()["project"]["dependencies"]) == HOST_PACKAGES


@pytest.mark.parametrize("versions", VERSIONS)
def test_everything_that_is_installed_is_pinned(versions):
    project = pyproject()["project"]
    pinned = names((ROOT / "requirements" / versions).read_text().splitlines())
    extras = project["optional-dependencies"]
    assert names(project["dependencies"] + extras["standalone"] + extras["test"]) | {"torch"} <= pinned


def test_lower_bounds_are_the_oldest_versions_that_are_tested():
    oldest = dict(re.findall(r"^([\w-]+)==([\d.]+)", (ROOT / "requirements" / "oldest.txt").read_text(), re.M))
    standalone = pyproject()["project"]["optional-dependencies"]["standalone"]
    bounds = dict(re.match(r"([\w-]+)>=([\d.]+)", requirement).groups() for requirement in standalone)
    assert {name: oldest[name] for name, low in bounds.items() if not f"{oldest[name]}.".startswith(f"{low}.")} == {}


@pytest.mark.parametrize("versions", VERSIONS)
def test_no_python_gets_two_versions_of_one_package(versions):
    lines = [line for line in (ROOT / "requirements" / versions).read_text().splitlines() if "==" in line]
    for python in ("old", "new"):
        skip = 'python_version >= "3.11"' if python == "old" else 'python_version < "3.11"'
        chosen = [line.partition("==")[0] for line in lines if skip not in line]
        assert len(chosen) == len(set(chosen))


def test_nothing_in_the_core_reads_pickles_or_knows_a_host():
    hosts = "comfy|folder_paths|nodes|server|execution|modules|gradio"
    forbidden = re.compile(rf"^\s*(?:import|from) +(?:{hosts}|pickle)\b|(?<!safetensors\.)torch\.load\(", re.M)
    guilty = [path for path in (ROOT / "d3po_core").rglob("*.py") if forbidden.search(path.read_text("utf-8"))]
    assert guilty == []


@pytest.mark.parametrize("folder", ["comfyui-d3po.x", "d3po"])
def test_pytest_works_in_a_clone_of_any_name(tmp_path, folder):
    """ComfyUI packs are cloned under all kinds of names; the root __init__.py must not make pytest stumble."""
    clone = tmp_path / folder
    keep_out = shutil.ignore_patterns("garden", "__pycache__", ".*", "d3po-runs", "benchmarks", "docs")
    shutil.copytree(ROOT, clone, ignore=keep_out)
    chosen = [
        "tests/test_settings.py",
        "tests/training/test_passes.py",
        "-k",
        "check",
    ]  # the second imports from a neighbour
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *chosen]
    done = subprocess.run(command, capture_output=True, text=True, cwd=clone)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout


def test_version_has_one_source():
    spec = importlib.util.spec_from_file_location("d3po_version", ROOT / "d3po_core" / "__init__.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert f"version: {module.__version__}" in (ROOT / "CITATION.cff").read_text()
    assert f"## {module.__version__}" in (ROOT / "CHANGELOG.md").read_text()
