"""The Studio's web server: the gallery's API and files, and the gradio page around them, on this computer only."""

from __future__ import annotations

import socket
import threading
import webbrowser
from pathlib import Path
from typing import Any

from d3po_core.embedded import GARDEN, GARDEN_DEFAULTS
from d3po_core.embedded.prompts import split_prompts
from d3po_core.errors import D3POError
from d3po_core.gallery.asgi import GalleryApp
from d3po_core.run.library import RunLibrary
from d3po_core.settings import LoraSettings, SampleSettings, TrainSettings
from d3po_panels import tastes
from d3po_panels.worker import Worker

from .local_only import LocalOnlyMiddleware
from .models import Models

MOUNT = "/d3po"


def web_folder() -> Path:
    """Where the page's files are: beside this package in a checkout, inside it in a wheel."""
    here = Path(__file__).resolve().parent
    return next(folder for folder in (here / "web", here.parent / "web") if folder.is_dir())


def make_app(folder: Path, worker: Worker, port: int) -> Any:
    """The whole page as an ASGI application."""
    import gradio
    from fastapi import FastAPI

    from .page import HEAD, build

    shelf = RunLibrary(folder)
    app = FastAPI(openapi_url=None)
    gallery: Any = GalleryApp(shelf, worker, web_folder())
    app.mount(MOUNT, gallery)
    page = build(shelf, worker)
    return LocalOnlyMiddleware(gradio.mount_gradio_app(app, page, path="/", head=HEAD, footer_links=[]), port)


def first_taste(shelf: RunLibrary, models: Models) -> None:
    """Somebody who comes for the first time finds a taste begun, with the embedded model."""
    if shelf.runs():
        return
    sample = SampleSettings(**GARDEN_DEFAULTS)
    prompts = tuple(split_prompts()[0])
    plan = tastes.NewRun("Garden", GARDEN, prompts, sample, TrainSettings(), LoraSettings())
    tastes.begin_run(plan, models.get(GARDEN), shelf)


def free_port(first: int) -> int:
    """The first free port from here on.

    Raises:
        D3POError: none of the next 50 is free.
    """
    for port in range(first, first + 50):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise D3POError(f"No port from {first} to {first + 49} is free.", "Close other servers, or name one with --port.")


def serve(folder: Path, port: int, open_page: bool) -> None:
    """Run the Studio until Ctrl+C.

    Args:
        folder: where tastes lie.
        port: to listen on, at 127.0.0.1.
        open_page: open it in the browser.
    """
    import uvicorn

    models = Models()
    worker = Worker(models).start()
    first = worker.call(lambda: first_taste(RunLibrary(folder), models))  # loads while the page is being built
    address = f"http://127.0.0.1:{port}/"
    config = uvicorn.Config(
        make_app(folder, worker, port), "127.0.0.1", port, log_level="warning", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    first.result()
    print(f"The Studio is at {address} (Ctrl+C ends it; all picks are saved).", flush=True)
    if open_page:
        threading.Timer(0.5, webbrowser.open, [address]).start()
    try:
        server.run()
    finally:
        worker.close()
