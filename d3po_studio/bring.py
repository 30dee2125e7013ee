"""The panel that brings pictures into a taste which exist already."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from d3po_core.errors import D3POError
from d3po_core.gallery import Shelf
from d3po_core.run import Run

from . import tastes
from .run_settings import train_settings
from .told import told
from .words import WORDS
from .worker import Worker
from .zips import plain, unpacked

if TYPE_CHECKING:
    from d3po_core.imported import Found, Imported

ZIP = ".zip"
WHO = "imported"
MOST_TOLD = 12
"""Of what was left out."""


def bring(shelf: Shelf, worker: Worker, taste: Any) -> None:
    """A path or a file, and a button."""
    gr.Markdown(WORDS["bring_help"])
    with gr.Row():
        with gr.Column():
            place = gr.Textbox(
                label=WORDS["bring_place"], info=WORDS["bring_place_help"], max_lines=1, elem_id="d3po_bring_place"
            )
            who = gr.Textbox(label=WORDS["bring_who"], max_lines=1, elem_id="d3po_bring_who")
        file = gr.File(label=WORDS["bring_file"], file_types=[ZIP, ".jsonl"])
    button = gr.Button(WORDS["bring_button"], variant="primary", elem_id="d3po_bring_button")
    outcome = gr.Markdown(elem_id="d3po_brought")

    @told
    def come(taste: str, place: str, file: Any, who: str) -> str:
        return brought(tastes.chosen(shelf, taste), worker, _path(place or "", file), who.strip() or WHO)

    button.click(come, [taste, place, file, who], outcome)


def brought(run: Run, worker: Worker, path: Path, who: str) -> str:
    """Bring what lies at a path into a taste; what came of it, as Markdown.

    Raises:
        D3POError: nothing of it can be used, or it was stopped.
    """
    from d3po_core.imported import read_source

    is_zip = path.suffix.lower() == ZIP and path.is_file()
    with unpacked(path) if is_zip else nullcontext(path) as source:
        found = read_source(source)
        folder = source if source.is_dir() else source.parent
        if is_zip:
            _keep_inside(found, folder)
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
        lines += [f"- {each}" for each in said.left_out[:MOST_TOLD]]
        if len(said.left_out) > MOST_TOLD:
            lines.append("- " + WORDS["bring_more"].format(n=len(said.left_out) - MOST_TOLD))
    return "\n".join(lines)


def _path(place: str, file: Any) -> Path:
    """What was chosen; gradio 3 hands over an object with the path, later ones the path."""
    place = place.strip().strip('"')
    if place:
        return Path(os.path.expanduser(place))  # which leaves a name such as ~old.zip as it is
    if file is None:
        raise D3POError("No pictures are named.", "Write where they lie, or upload a zip.")
    return Path(getattr(file, "name", file))


def _keep_inside(found: Found, folder: Path) -> None:
    """Leave out what a zip's lines name elsewhere: it came from somebody else, perhaps.

    Raises:
        D3POError: nothing else is left.
    """
    outside = D3POError("It names a picture that is not in the zip.", "Pack it anew, with all its pictures.")
    for group in list(found.groups):
        if not all(path.resolve().is_relative_to(folder) for path in group.pictures):
            found.groups.remove(group)
            found.leave_out(group.where, outside)
    if not found:
        raise D3POError(f"Nothing in it can be used. {found.left_out[0]}", safe="Nothing was imported.")
