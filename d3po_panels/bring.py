"""The panel that brings pictures into a taste which exist already."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from d3po_core.errors import D3POError
from d3po_core.run import Run
from d3po_core.run.library import RunLibrary

from . import tastes
from .controls import show_errors
from .run_settings import train_settings
from .words import WORDS
from .worker import Worker
from .zips import plain, unpacked

if TYPE_CHECKING:
    from d3po_core.importing import Imported

ZIP = ".zip"
WHO = "imported"
MAX_TOLD = 12
"""Of what was left out."""


def bring(shelf: RunLibrary, worker: Worker, taste: Any) -> None:
    """A file or a path, and a button. A page that is open to others has no field for a path, so none can be sent."""
    others = worker.open_to_others
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
    def come(taste: str, file: Any, who: str, place: str = "") -> str:
        path = _uploaded(file) if others else _path(place or "", file)
        return brought(tastes.chosen(shelf, taste), worker, path, who.strip() or WHO)

    button.click(come, [taste, file, who, *places], outcome)


def _place() -> Any:
    return gr.Textbox(
        label=WORDS["bring_place"], info=WORDS["bring_place_help"], max_lines=1, elem_id="d3po_bring_place"
    )


def brought(run: Run, worker: Worker, path: Path, who: str) -> str:
    """Bring what lies at a path into a taste; what came of it, as Markdown.

    Raises:
        D3POError: nothing of it can be used, or it was stopped.
    """
    from d3po_core.importing import read_source

    is_zip = path.suffix.lower() == ZIP and path.is_file()
    with unpacked(path) if is_zip else nullcontext(path) as source:
        found = read_source(source, confined=is_zip)  # which came from somebody else, perhaps
        folder = source if source.is_dir() else source.parent
        outcome = told_of(run, worker.bring(run, found, who).result())
    return plain(outcome, folder, path.name) if is_zip else outcome


def told_of(run: Run, said: Imported) -> str:
    """What was brought in and what was left out, as Markdown."""
    from d3po_core.training.methods import METHODS

    method = train_settings(run)[0].method
    parts = [WORDS["bring_one" if said.added == 1 else "bring_added"].format(n=said.added)]
    if said.known:
        parts.append(WORDS["bring_known"].format(n=said.known))
    parts += said.notes
    if METHODS[method].rows == "steps":
        parts.append(WORDS["bring_method"].format(method=method))
    lines = [" ".join(parts)]
    if said.left_out:
        lines.append("\n" + WORDS["bring_left_out"].format(n=sum(each.groups for each in said.left_out)))
        lines += [f"- {each}" for each in said.left_out[:MAX_TOLD]]
        if len(said.left_out) > MAX_TOLD:
            lines.append("- " + WORDS["bring_more"].format(n=len(said.left_out) - MAX_TOLD))
    return "\n".join(lines)


def _path(place: str, file: Any) -> Path:
    """What was chosen; gradio 3 hands over an object with the path, later ones the path."""
    place = place.strip().strip('"')
    if place:
        return Path(os.path.expanduser(place))  # which leaves a name such as ~old.zip as it is
    if file is None:
        raise D3POError("No pictures are named.", "Write where they lie, or upload a zip.")
    return Path(getattr(file, "name", file))


def _uploaded(file: Any) -> Path:
    """What was uploaded to a page that is open to others: anything but a zip would name files of this computer.

    Raises:
        D3POError: it is no zip, or nothing.
    """
    if file is None:
        raise D3POError("No pictures are named.", "Upload a zip.")
    path = Path(getattr(file, "name", file))
    if path.suffix.lower() != ZIP:
        raise D3POError(
            f"This page is open to other computers, and {path.name} could name pictures that lie on this one.",
            "Pack it into a zip, together with its pictures.",
        )
    return path
