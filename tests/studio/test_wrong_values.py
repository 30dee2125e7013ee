"""Every option of d3po-studio with wrong values: one sentence, exit status 2, nothing left behind, no page built.

The options come from the command's own parser, so a new one without a wrong value fails here.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("gradio")
from d3po_studio import app
from d3po_studio.__main__ import main, make_parser
from tests.run_helpers import make_run

EMPTY = "Argument --folder: the value is empty."
WRONG = {
    "--folder": [
        *[("", EMPTY), (" ", EMPTY), ("notes.txt", "notes.txt is a file"), ("notes.txt/new", "notes.txt is a file")],
        *[("taste", "taste is a taste itself. Name the folder that it is in: "), ("n" * 300, "File name too long")],
    ],
    "--port": [
        *[
            ("", "--port is ''. It must be a whole number."),
            ("many", "--port is 'many'."),
            ("78.5", "--port is '78.5'."),
        ],
        *[("0", "There is no port 0."), ("-1", "There is no port -1."), ("65536", "There is no port 65536.")],
    ],
    "--no-browser": [("yes", "ignored explicit argument 'yes'")],
}


def cases() -> Iterator[tuple[str, str]]:
    """Yield options with wrong values, and with none, each with a part of the message."""
    for action in make_parser()._actions:
        flag = next(each for each in action.option_strings if each.startswith("--"))
        if not isinstance(action, argparse._HelpAction):
            yield from [(f"{flag}={value}", message) for value, message in WRONG[flag]]
            yield from [(flag, f"Argument {flag}: expected one argument.")] if action.nargs != 0 else []


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        *cases(),
        *[("taste", "Unrecognized arguments: taste."), ("--fold=d", "Unrecognized arguments: --fold=d.")],
        ("--folder=caf\udce9", "'--folder=caf?' is not valid UTF-8."),
    ],
    ids=ascii,
)
def test_a_wrong_value(
    argument: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(app, "make_app", lambda *_: pytest.fail("The page is built first."))
    make_run(tmp_path / "taste").close()
    (tmp_path / "notes.txt").write_text("mine")
    before = {path.name for path in tmp_path.rglob("*")}
    assert main([argument]) == 2
    out, error = capsys.readouterr()
    assert out == "" and error.startswith("d3po-studio: ") and error.count("\n") == 1
    assert message in error
    assert {path.name for path in tmp_path.rglob("*")} == before


def test_help_is_no_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0 and "--folder" in capsys.readouterr().out
