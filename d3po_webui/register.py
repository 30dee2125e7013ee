"""Give the web UI our tab, the gallery's routes and a page of settings when it starts."""

from __future__ import annotations

import functools
import secrets
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, cast

from modules import script_callbacks, shared
from starlette.types import ASGIApp

from d3po_core.gallery.requests import GalleryApp
from d3po_core.run.run import RunLibrary
from d3po_panels.controls import Component
from d3po_panels.worker import Worker

from . import calls, flow, host, settings
from .auth import MOUNT, AuthMiddleware, GradioApp, passwords
from .cards import Cards
from .queue_host import WebuiHost
from .tab import build

FOLDER = "d3po"
WEB = Path(__file__).resolve().parents[1] / "web"


class HostApp(GradioApp, Protocol):
    """The host's web application: gradio's, which is a FastAPI one."""

    def mount(self, path: str, app: ASGIApp) -> None:
        """Serve an application under a path."""


_registered: Path | None = None
"""The folder of the extension that is registered; None before, and after the host unloaded it."""


def register(folder: Path) -> None:
    """Register everything with the host; it calls back when it is ready.

    Args:
        folder: the extension's. Of two copies that are installed, the first one is at work.
    """
    global _registered
    if _registered:
        print(f"D3PO is installed twice. {_registered} is used; delete the other one, {folder}, and start again.")
        return
    _registered = folder
    webui_host, key = WebuiHost(Cards(*host.lora_folders())), secrets.token_hex(16)
    worker = Worker(webui_host)

    @functools.cache
    def library() -> tuple[RunLibrary, str]:
        folder, problem = settings.folder(settings.chosen(shared.opts), host.data_folder() / FOLDER)
        return RunLibrary(folder), problem

    def tab() -> list[tuple[Component, str, str]]:
        runs, problem = library()
        host.make_temporary_folder()
        if differing := calls.differing():  # now that every extension of the host's own is loaded
            problem = f"{calls.sentence(differing)} {calls.UPDATE} {problem}".strip()
            print(problem)
        schedules = flow.schedules() if host.has_flow_models() else []
        page = build(runs, worker, webui_host.cards, problem, key, schedules)
        return [(page, "D3PO", "d3po")]

    def started(_: object, app: HostApp) -> None:
        gallery = cast("ASGIApp", GalleryApp(library()[0], worker, WEB))
        app.mount(MOUNT, AuthMiddleware(gallery, app, passwords(shared.cmd_opts.api_auth), key))
        worker.start()

    def unloaded() -> None:
        global _registered
        _registered = None
        worker.close()
        library()[0].close()  # after the worker, which would open it again

    def register() -> None:
        script_callbacks.on_ui_settings(lambda: settings.add(shared.opts, shared.OptionInfo, webui_host))
        script_callbacks.on_ui_tabs(tab)
        script_callbacks.on_app_started(started)
        script_callbacks.on_script_unloaded(unloaded)

    # The host finds out who registers by `inspect.stack()`, which searches all modules for every caller: 0.2 s for each
    # callback in Forge, 0.05 s in A1111. A thread's first call has next to no callers.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(register).result()
