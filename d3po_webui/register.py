"""What the web UI is given when it starts: a tab, the gallery's routes, and a page of settings."""

from __future__ import annotations

import functools
import secrets
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from modules import script_callbacks, shared

from d3po_core.gallery.asgi import GalleryApp
from d3po_core.run.library import RunLibrary

from . import host, settings
from .auth import MOUNT, AuthMiddleware, passwords
from .tab import build
from .worker import LoadedModel, WebuiWorker

FOLDER = "d3po"
WEB = Path(__file__).resolve().parents[1] / "web"


_opened_by: Path | None = None
"""The extension's folder that the host was given everything from; none before, and after the host let go of it."""


def register(folder: Path) -> None:
    """Register everything with the host; it calls back when it is ready.

    Args:
        folder: the extension's. Of two copies that are installed, the first one is at work.
    """
    global _opened_by
    if _opened_by:
        print(f"D3PO is installed twice. {_opened_by} is used; delete the other one, {folder}, and start again.")
        return
    _opened_by = folder
    worker, key = WebuiWorker(LoadedModel()), secrets.token_hex(16)

    @functools.cache
    def shelf() -> tuple[RunLibrary, str]:
        folder, problem = settings.folder(settings.chosen(shared.opts), host.data_folder() / FOLDER)
        return RunLibrary(folder), problem

    def tab() -> list[tuple[Any, str, str]]:
        found, problem = shelf()
        return [(build(found, worker, worker.cards, problem, key), "D3PO", "d3po")]

    def started(_: Any, app: Any) -> None:
        gallery = GalleryApp(shelf()[0], worker, WEB)
        app.mount(MOUNT, AuthMiddleware(gallery, app, passwords(shared.cmd_opts.api_auth), key))
        worker.start()

    def unloaded() -> None:
        global _opened_by
        _opened_by = None
        worker.close()
        shelf()[0].close()  # after the worker, which would open it again

    def register() -> None:
        script_callbacks.on_ui_settings(lambda: settings.add(shared.opts, shared.OptionInfo, worker))
        script_callbacks.on_ui_tabs(tab)
        script_callbacks.on_app_started(started)
        script_callbacks.on_script_unloaded(unloaded)

    # The host finds out who registers by `inspect.stack()`, which looks for every caller among all modules: 0.2 s for
    # each callback in Forge, 0.05 s in A1111. A thread's first call has next to no callers.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(register).result()
