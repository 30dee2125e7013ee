"""The rules of this codebase that can be counted, and that the counting is right."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.test_checkout import ROOT
from tools import structure

COUNTS = structure.count(ROOT) if (ROOT / "nodes").is_dir() else {}
MOST = {
    "files in d3po_core": 145,
    "Python files in the product": 214,
    "loose modules in d3po_core": 6,
    "the word Any": 180,
    "modules in import circles": 0,
    "imports of a host or a front end in d3po_core": 0,
    **{f"lines of {name}": 60 for name in structure.TRAINING_FILES},
}


@pytest.mark.skipif(not COUNTS, reason="not a checkout")
@pytest.mark.parametrize("name", MOST)
def test_the_house_stays_in_order(name: str) -> None:
    assert COUNTS[name] <= MOST[name]


@pytest.mark.skipif(not COUNTS, reason="not a checkout")
def test_docstrings_begin_with_a_verb() -> None:
    assert COUNTS["  of them that begin with a verb, in percent"] >= 90


def test_a_small_tree_is_counted(tmp_path: Path) -> None:
    """A core of two modules that import each other, one of them a host; beside it what does not count."""
    write(
        tmp_path / "d3po_core/a.py",
        '"""Head.\n\nMore."""\n\nfrom .b import f  # why\n\n\ndef g() -> Any:\n    f(\n        1\n    )\n',
    )
    write(
        tmp_path / "d3po_core/b.py",
        'def f(x):\n    """Draws x."""\n    from . import a\n    import comfy.sd\n\n\ndef h():\n    """One."""\n',
    )
    write(tmp_path / "d3po_core/room/__init__.py", "")
    write(tmp_path / "tests/test_a.py", "import d3po_core\n")
    write(tmp_path / "web/page.mjs", "// one\nexport {};\n")
    counts = structure.count(tmp_path)
    assert counts["files in d3po_core"] == counts["Python files in the product"] == 3
    assert counts["loose modules in d3po_core"] == 2
    assert counts["lines of Python"] == 11 + 8 and counts["  of them code"] == 5 + 4
    assert counts["lines of page scripts"] == 2 and counts["the word Any"] == 1
    assert counts["function docstrings"] == 2 and counts["  of them that begin with a verb, in percent"] == 50
    assert counts["modules in import circles"] == 2 and counts["imports of a host or a front end in d3po_core"] == 1


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
