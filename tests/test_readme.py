"""What README.md tells people to type works, and it stays short."""

from __future__ import annotations

import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest

from d3po_core.cli.flags import make_parser

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text("utf-8")


@pytest.mark.parametrize("line", re.findall(r"^d3po .*$", README, re.M))
def test_every_command_is_understood(line):
    _, name, *arguments = shlex.split(line)
    make_parser(name, import_module(f"d3po_core.cli.{name}")).parse_args(arguments)


def test_it_is_read_in_one_sitting():
    assert len(README.splitlines()) <= 150
    assert len(README.split()) <= 1300


def test_it_shows_a_picture_before_anything_else():
    first = re.search(r"!\[[^\]]+\]\(([^)]+)\)", README)
    assert first and (ROOT / first[1]).is_file() and README[: first.start()].count("\n") < 10
