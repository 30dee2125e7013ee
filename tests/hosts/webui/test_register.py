"""What the extension registers with a host, and what happens when it is unloaded. The host here only takes notes."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest

from d3po_core.run import Run
from tests.run_helpers import MODEL

NEEDS_HOST = ("host", "denoiser", "model", "gradients", "queue_host", "register")
MODULES = ("call_queue", "devices", "paths_internal", "progress", "prompt_parser", "script_callbacks", "shared")


class Callbacks:
    """The host's list of what to call, by kind."""

    def __init__(self) -> None:
        self.kept: dict[str, list[Any]] = {}

    def __getattr__(self, kind: str) -> Any:
        return lambda callback: self.kept.setdefault(kind, []).append(callback)


@pytest.fixture
def callbacks() -> Callbacks:
    return Callbacks()


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch, callbacks: Callbacks, tmp_path: Path) -> Any:
    for name in ("modules", *(f"modules.{name}" for name in MODULES)):
        monkeypatch.setitem(sys.modules, name, MagicMock())
    for name in NEEDS_HOST:
        monkeypatch.delitem(sys.modules, f"d3po_webui.{name}", raising=False)
    import d3po_webui
    from d3po_webui import register

    monkeypatch.setattr(register, "script_callbacks", callbacks)
    monkeypatch.setattr(register, "shared", SimpleNamespace(opts=SimpleNamespace(d3po_folder=str(tmp_path))))
    monkeypatch.setattr(register, "WebuiHost", MagicMock())
    monkeypatch.setattr(register, "Cards", MagicMock())
    monkeypatch.setattr(register, "Worker", MagicMock())
    yield register
    for name in NEEDS_HOST:
        sys.modules.pop(f"d3po_webui.{name}", None)
        vars(d3po_webui).pop(name, None)


def test_a_second_copy_is_refused_in_a_sentence(register: Any, callbacks: Callbacks, capsys: Any) -> None:
    register.register(Path("extensions/d3po"))
    given = {kind: len(found) for kind, found in callbacks.kept.items()}
    assert set(given.values()) == {1} and capsys.readouterr().out == ""
    register.register(Path("extensions/d3po-main"))
    assert {kind: len(found) for kind, found in callbacks.kept.items()} == given
    (line,) = capsys.readouterr().out.splitlines()
    assert str(Path("extensions/d3po-main")) in line and "installed twice" in line


def test_what_was_unloaded_can_be_registered_again(register: Any, callbacks: Callbacks, capsys: Any) -> None:
    for times in (1, 2):
        register.register(Path("extensions/d3po"))
        assert len(callbacks.kept["on_ui_tabs"]) == times
        callbacks.kept["on_script_unloaded"][-1]()
    assert capsys.readouterr().out == ""


def test_a_host_that_we_do_not_know_is_told_of_when_it_starts(
    register: Any, callbacks: Callbacks, monkeypatch: Any, capsys: Any
) -> None:
    shown: list[str] = []
    monkeypatch.setattr(register.calls, "differing", lambda: ["load_networks"])
    monkeypatch.setattr(register, "build", lambda library, worker, cards, problem, *_: shown.append(problem))
    register.register(Path("extensions/d3po"))
    callbacks.kept["on_ui_tabs"][0]()
    said = "D3PO does not know this version of the web UI: load_networks changed. Update D3PO, or the web UI."
    assert shown == [said] and capsys.readouterr().out == f"{said}\n"


@pytest.mark.parametrize("others", [False, True])
def test_the_queue_knows_whether_the_page_is_open_to_others(register: Any, others: bool, tmp_path: Path) -> None:
    from d3po_webui import cards, host, queue_host

    host.shared.cmd_opts = SimpleNamespace(webui_is_non_local=others)
    assert queue_host.WebuiHost(cards.Cards(tmp_path)).open_to_others is others


def test_all_is_closed_after_the_worker(register: Any, callbacks: Callbacks, monkeypatch: Any, tmp_path: Path) -> None:
    Run.create(tmp_path / "one", name="One", model=MODEL, settings={}).close()
    ended: list[str] = []
    monkeypatch.setattr(Run, "close", lambda run: ended.append(run.name))
    register.Worker.return_value.close = lambda: ended.append("worker")
    monkeypatch.setattr(register, "build", lambda library, *_: library.runs())
    register.register(Path("extensions/d3po"))
    callbacks.kept["on_ui_tabs"][0]()
    assert ended == []
    callbacks.kept["on_script_unloaded"][0]()
    assert ended == ["worker", "One"]
