"""What README.md tells people to type works."""

from __future__ import annotations

import re
import runpy
import shlex
from importlib import import_module
from pathlib import Path

import pytest

from d3po_core.cli.flags import make_parser
from d3po_core.embedded import GARDEN_FOLDER

README = (Path(__file__).resolve().parents[1] / "README.md").read_text("utf-8")


@pytest.mark.parametrize("line", re.findall(r"^d3po .*$", README, re.M))
def test_every_command_is_understood(line):
    _, name, *arguments = shlex.split(line)
    make_parser(name, import_module(f"d3po_core.cli.{name}")).parse_args(arguments)


@pytest.mark.skipif(not (GARDEN_FOLDER / "unet").exists(), reason="the embedded model is not there")
def test_the_python_example_runs(tmp_path, monkeypatch, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.S)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "example.py").write_text(code.replace("groups=64", "groups=2, steps=6"))
    runpy.run_path("example.py")
    assert capsys.readouterr().out.strip().endswith(".safetensors")


def test_files_that_it_names_are_there():
    root = Path(__file__).resolve().parents[1]
    assert all((root / name).exists() for name in re.findall(r"\]\((?!http)([^)#]+)\)", README))
