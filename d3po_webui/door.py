"""What the web UI is given when it starts: a tab, the gallery's routes, and a page of settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from modules import script_callbacks, shared

from d3po_core.gallery import Shelf
from d3po_core.gallery.asgi import GalleryApp

from . import host
from .routes import MOUNT, Doorkeeper, passwords
from .tab import build
from .worker import LoadedModel, WebuiWorker

FOLDER = "d3po"
SETTING = "d3po_folder"
WEB = Path(__file__).resolve().parents[1] / "web"


def open_up() -> None:
    """Register everything with the host; it calls back when it is ready."""
    worker = WebuiWorker(LoadedModel())

    def tab() -> list[tuple[Any, str, str]]:
        return [(build(shelf(), worker, worker.cards), "D3PO", "d3po")]

    def started(_: Any, app: Any) -> None:
        gallery = GalleryApp(shelf(), worker, WEB)
        app.mount(MOUNT, Doorkeeper(gallery, app, passwords(shared.cmd_opts.api_auth)))
        worker.start()

    script_callbacks.on_ui_settings(settings)
    script_callbacks.on_ui_tabs(tab)
    script_callbacks.on_app_started(started)
    script_callbacks.on_script_unloaded(worker.close)


def settings() -> None:
    """Our page among the host's settings."""
    option = shared.OptionInfo("", "Folder of the tastes (empty: d3po in the data folder)", section=("d3po", "D3PO"))
    shared.opts.add_option(SETTING, option.needs_restart() if hasattr(option, "needs_restart") else option)


def shelf() -> Shelf:
    """All tastes."""
    chosen = getattr(shared.opts, SETTING, "") or ""
    return Shelf(Path(chosen).expanduser() if chosen.strip() else host.data_folder() / FOLDER)
