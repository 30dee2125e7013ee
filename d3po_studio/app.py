"""The Studio's web server: the gallery's API and files, and the gradio page around them, on this computer only."""

from __future__ import annotations

import socket
import threading
import webbrowser
from concurrent.futures import wait
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, cast

import gradio as gr

from d3po_core.embedded import GARDEN, GARDEN_DEFAULTS, split_prompts
from d3po_core.errors import D3POError
from d3po_core.gallery.requests import GalleryApp
from d3po_core.gallery.serving import bind, web_folder
from d3po_core.run.run import RunLibrary
from d3po_core.settings import LoraSettings, SampleSettings, TrainSettings
from d3po_panels import panels, tastes
from d3po_panels.controls import Component, Update
from d3po_panels.host import WAIT_SECONDS, Models
from d3po_panels.tabs import PANELS, gallery_element, panel_tabs
from d3po_panels.words import WORDS
from d3po_panels.worker import Worker

from .host import StudioHost
from .invite import Serving
from .local_only import LocalOnlyMiddleware

if TYPE_CHECKING:
    from starlette.types import ASGIApp

MOUNT = "/d3po"
PICK = "pick"
"""Id of the tab with the gallery."""


def make_app(folder: Path, worker: Worker, port: int) -> ASGIApp:
    """Make the page as an ASGI application."""
    import gradio
    from fastapi import FastAPI

    library = RunLibrary(folder)
    app = FastAPI(openapi_url=None)
    app.mount(MOUNT, cast("ASGIApp", GalleryApp(library, worker, web_folder())))
    page = build(library, worker)
    mounted = gradio.mount_gradio_app(app, page, path="/", head=HEAD, footer_links=[], theme=theme())
    return LocalOnlyMiddleware(mounted, port)


def theme() -> gr.themes.Base:
    """Return gradio's look with its bold fonts: of the semi-bold ones that it takes, two letters are there."""
    text, code = (gr.themes.LocalFont(name, weights=(400, 700)) for name in ("Source Sans Pro", "IBM Plex Mono"))
    return gr.themes.Default(
        font=(text, "ui-sans-serif", "system-ui", "sans-serif"),
        font_mono=(code, "ui-monospace", "Consolas", "monospace"),
    )


def begin_first_taste(library: RunLibrary, models: Models) -> None:
    """Begin a taste with the embedded model if there is none yet, for somebody who opens the Studio the first time."""
    if library.runs():
        return
    settings = (SampleSettings(**GARDEN_DEFAULTS), TrainSettings(), LoraSettings())
    tastes.begin(library, models.get(GARDEN), GARDEN, "Garden", tuple(split_prompts()[0]), *settings)


FIRST_PORT, PORTS = 7870, 50


def listen(port: int | None) -> socket.socket:
    """Bind a socket at 127.0.0.1, so that no address is printed that cannot be served.

    Args:
        port: to listen on; None for the first free one from `FIRST_PORT`.

    Raises:
        D3POError: there is no such port, or it is in use.
    """
    if port is None:
        for number in range(FIRST_PORT, FIRST_PORT + PORTS):
            with suppress(OSError):
                return bind("127.0.0.1", number)
        last = FIRST_PORT + PORTS - 1
        raise D3POError(
            f"No port from {FIRST_PORT} to {last} is free.", "Close other servers, or name one with --port."
        )
    if not 1 <= port <= 65535:
        raise D3POError(f"There is no port {port}.", "Choose one from 1024 to 65535.")
    try:
        return bind("127.0.0.1", port)
    except OSError as error:
        raise D3POError(
            f"Port {port} cannot be listened on ({error.strerror}).", "Close the server that uses it, or name another."
        ) from error


def serve(folder: Path, port: int | None, open_page: bool) -> None:
    """Run the Studio at 127.0.0.1 until Ctrl+C; for the port and what is raised see `listen`."""
    import uvicorn

    opened = listen(port)
    port = opened.getsockname()[1]
    host = StudioHost()
    worker = Worker(host).start()
    try:
        # Loads the model while the page is being built.
        first = worker.queue.call(lambda: begin_first_taste(RunLibrary(folder), host.models))
        address = f"http://127.0.0.1:{port}/"
        config = uvicorn.Config(
            make_app(folder, worker, port), "127.0.0.1", port, log_level="warning", timeout_graceful_shutdown=1
        )
        server = uvicorn.Server(config)
        while not wait([first], WAIT_SECONDS).done:  # on Windows Ctrl+C is heard between two waits only
            pass
        first.result()
        print(f"The Studio is at {address} (Ctrl+C ends it; all picks are saved).", flush=True)
        if open_page:
            threading.Timer(0.5, webbrowser.open, [address]).start()
        server.run(sockets=[opened])
    finally:
        worker.close()


HEAD = """
<script type="module" src="/d3po/web/gallery.mjs"></script>
<style>
  d3po-gallery { display: block; height: calc(100vh - 200px); min-height: 420px; }
  .d3po-grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(260px, 100%), 1fr)); }
  .d3po-grid { align-items: end; gap: 16px; }
  .d3po-grid > .form { display: contents; }
</style>
"""


def build(library: RunLibrary, worker: Worker) -> Component:
    """Make the page; the choice of taste at its top rules all panels."""
    with gr.Blocks(title="D3PO Studio", fill_width=True) as page:
        taste = gr.Dropdown(label=WORDS["taste"], choices=[], interactive=True)
        with gr.Tabs() as tabs:
            with gr.Tab(WORDS["pick"], id=PICK):
                gallery = gr.HTML()  # filled when the page is opened: only then is it known whether there is a taste
            with gr.Tab(WORDS["new"]):
                begun = panels.new_taste(library, worker, taste)
            panel_tabs(library, worker, taste, {}, {**PANELS, "invite": Serving().panel})
        begun.success(lambda: gr.update(selected=PICK), None, tabs, show_progress="hidden")
        taste.change(lambda taste: gallery_element(library, taste), taste, gallery, show_progress="hidden")
        page.load(lambda: opened(library), None, [taste, gallery], show_progress="hidden")
    return page


def opened(library: RunLibrary) -> tuple[Update, str]:
    """Return the list of tastes and the gallery as a page shows them first."""
    return panels.choose_taste(library), gallery_element(library, next(iter(tastes.labels(library)), None))
