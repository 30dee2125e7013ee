"""The panel that imports images which exist already into a taste."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path

import gradio as gr

from d3po_core.app.runs import import_outcome, train_settings
from d3po_core.errors import D3POError
from d3po_core.importing import read_source
from d3po_core.run import Run
from d3po_core.run.database import IMPORTED
from d3po_core.run.run import RunLibrary

from . import tastes
from .controls import Component, Upload, path_of, show_errors
from .words import WORDS
from .worker import Worker
from .zips import rename_folder, unpacked

ZIP = ".zip"
MAX_LEFT_OUT = 12
"""Lines about what was left out."""


def import_panel(library: RunLibrary, worker: Worker, taste: Component) -> None:
    """Make the panel: a file or a path, and a button.

    A page that is open to others has no field for a path, so none can be sent.
    """
    others = worker.host.open_to_others
    gr.Markdown(WORDS["bring_help"] + (f"\n\n{WORDS['bring_only']}" if others else ""))
    with gr.Row():
        with gr.Column():
            places = [] if others else [_place()]
            who = gr.Textbox(label=WORDS["bring_who"], max_lines=1, elem_id="d3po_bring_who")
        label = WORDS["bring_zip" if others else "bring_file"]
        file = gr.File(label=label, file_types=[ZIP] if others else [ZIP, ".jsonl"])
    button = gr.Button(WORDS["bring_button"], variant="primary", elem_id="d3po_bring_button")
    outcome = gr.Markdown(elem_id="d3po_brought")

    @show_errors
    def import_images(taste: str, file: Upload, who: str, place: str = "") -> str:
        path = _uploaded_zip(file) if others else _path(place or "", file)
        return import_path(tastes.chosen(library, taste), worker, path, who.strip() or IMPORTED)

    button.click(import_images, [taste, file, who, *places], outcome)


def _place() -> Component:
    return gr.Textbox(
        label=WORDS["bring_place"], info=WORDS["bring_place_help"], max_lines=1, elem_id="d3po_bring_place"
    )


def import_path(run: Run, worker: Worker, path: Path, who: str) -> str:
    """Import what is at a path into a taste, and return what came of it, as Markdown.

    Args:
        run: the taste.
        worker: does it in its turn.
        path: a folder, a .jsonl file or a zip.
        who: whose picks they are, where the source does not say.

    Raises:
        D3POError: nothing of it can be used, or it was stopped.
    """
    is_zip = path.suffix.lower() == ZIP and path.is_file()
    with unpacked(path) if is_zip else nullcontext(path) as source:
        images = read_source(source, confined=is_zip)  # a zip may come from somebody else
        folder = source if source.is_dir() else source.parent
        imported = worker.import_images(run, images, who).result()
    text, left_out = import_outcome(imported, train_settings(run).method, MAX_LEFT_OUT)
    outcome = "\n".join([text, *(["", *(f"- {line}" for line in left_out)] if left_out else [])])
    return rename_folder(outcome, folder, path.name) if is_zip else outcome


def _path(place: str, file: Upload) -> Path:
    """Return the path that was written, else that of the uploaded file."""
    place = place.strip().strip('"')
    if place:
        return Path(os.path.expanduser(place))  # which leaves a name such as ~old.zip as it is
    if file is None:
        raise D3POError("No pictures are named.", "Write where they are, or upload a zip.")
    return path_of(file)


def _uploaded_zip(file: Upload) -> Path:
    """Return the zip that was uploaded to a page that is open to others; other files could name files of this computer.

    Raises:
        D3POError: it is no zip, or nothing.
    """
    if file is None:
        raise D3POError("No pictures are named.", "Upload a zip.")
    path = path_of(file)
    if path.suffix.lower() != ZIP:
        raise D3POError(
            f"This page is open to other computers, and {path.name} could name pictures on this one.",
            "Pack it into a zip, together with its pictures.",
        )
    return path
