"""The web UI's functions that we call: all of them are listed, and one that takes other arguments is found."""

from __future__ import annotations

import ast
import contextlib
from pathlib import Path

import pytest

from d3po_webui.calls import CALLS, Call, differing, function, sentence

FOLDER = Path(__file__).parents[3] / "d3po_webui"
HOSTS = ("modules", "backend", "ldm_patched")
PLAIN = {"modules.paths_internal", "modules.devices:NansException"}
"""What is no function, or made by us alone."""


def called(file: Path) -> set[str]:
    """The host's functions that a file imports and calls, as `Call.where` has them."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in HOSTS and not node.level:
            inner = "." if node.module == "modules" else ":"
            names |= {each.asname or each.name: f"{node.module}{inner}{each.name}" for each in node.names}
    found = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name, _, rest = ast.unparse(node.func).partition(".")
        if name in names:
            found.add(names[name] + (f":{rest}" if rest else ""))
    return found


def test_every_function_that_is_called_is_listed() -> None:
    found = set().union(*map(called, FOLDER.glob("*.py")))
    assert len(found) > 15
    assert found - {call.where for call in CALLS} == set()


@pytest.mark.parametrize(
    ("call", "fitting"),
    [
        (Call("contextlib:redirect_stdout", 1), True),
        (Call("contextlib:redirect_stdout", 2), False),
        (Call("contextlib:redirect_stdout"), False),  # wants one
        (Call("contextlib:suppress", 9), True),
        (Call("contextlib:redirect_stdout", 0, ("new_target",)), True),
        (Call("contextlib:redirect_stdout", 1, ("other",)), False),
        (Call("contextlib:ExitStack.push", 2), True),
        (Call("contextlib:ExitStack.push", 1), False),  # the object is one
        (Call("contextlib:nothing_of_this_name"), False),
        (Call("contextlib:nothing_of_this_name", everywhere=False), True),
        (Call("no_module:of_this_name"), False),
        (Call("no_module:of_this_name", everywhere=False), True),
    ],
)
def test_what_a_function_takes_is_compared_with_what_we_give_it(call: Call, fitting: bool) -> None:
    assert differing([call]) == ([] if fitting else [call.where.partition(":")[2]])


def test_all_that_differ_are_named_in_one_sentence() -> None:
    assert function(Call("contextlib:suppress")) is contextlib.suppress
    names = differing([Call("contextlib:redirect_stdout", 5), Call("contextlib:nothing")])
    assert sentence(names) == "D3PO does not know this version of the web UI: redirect_stdout, nothing changed."
    assert sentence([]) == ""
