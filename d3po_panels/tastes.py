"""Begin, list and delete tastes."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path

from d3po_core.app.runs import NewRun, begin_run, model_facts, unused_name
from d3po_core.diffusion.image_model import ImageModel
from d3po_core.embedded import GARDEN
from d3po_core.errors import D3POError
from d3po_core.run import Run
from d3po_core.run.files import move, writing
from d3po_core.run.run import RunLibrary
from d3po_core.settings import LoraSettings, SampleSettings, TrainSettings

from .worker import Worker

ID_DIGITS = 6
"""Digits of a taste's id in lists."""


def begin(
    library: RunLibrary,
    model: ImageModel,
    source: str,
    name: str,
    prompts: tuple[str, ...],
    sample: SampleSettings,
    train: TrainSettings,
    lora: LoraSettings,
    more: Mapping[str, object] | None = None,
) -> Run:
    """Begin a taste, under a name that no other has.

    Args:
        library: of all tastes.
        model: loaded from `source`.
        source: "garden", the absolute path of a checkpoint file or diffusers folder, or a checkpoint's file name.
        name: on screen.
        prompts: at least one.
        sample, train, lora: how it is drawn and trained.
        more: further entries of its settings, of the host.

    Raises:
        D3POError: see `begin_run`.
    """
    new = NewRun(unused_name(name, library), model_facts(model, source), sample, train, lora, prompts, more or {})
    return begin_run(library.unused(name), new, model)


def source_of(written: str) -> str:
    """Return a model's source as a taste keeps it, from what a person wrote.

    Raises:
        D3POError: nothing was written, which would be this program's folder.
    """
    source = written.strip().strip('"').strip()
    if not source:
        raise D3POError("No model is named.", f"Write {GARDEN}, or the path of a checkpoint or a diffusers folder.")
    return source if source == GARDEN else str(Path(os.path.expanduser(source)).resolve())


def prompts_of(text: str) -> tuple[str, ...]:
    """Return the prompts of a text with one per line.

    Raises:
        D3POError: there is none.
    """
    prompts = tuple(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))
    if not prompts:
        raise D3POError("There is no prompt yet.", "Write at least one, one per line.")
    return prompts


def delete(run: Run, worker: Worker) -> None:
    """Delete a taste with everything in it, once the present job for it is stopped.

    Raises:
        D3POError: another program trains it, or the folder cannot be written to.
    """

    def do() -> None:
        with run.rounds.lock():
            pass
        run.close()
        deleted = run.folder.with_name(f".deleted-{secrets.token_hex(4)}")
        with writing(run.folder):
            move(run.folder, deleted)  # at once out of every list
            shutil.rmtree(deleted)

    worker.stop(run)
    worker.queue.call(do, needs_model=False).result()


def labels(library: RunLibrary) -> dict[str, Run]:
    """Return all tastes by their labels in lists, the newest first: each its name and the beginning of its id.

    Labels are plain texts, because lists of gradio before 3.42 know no others. A page may show a list that is old by
    now, so a label never comes to mean another taste, whatever was begun, renamed or deleted since.
    """
    return {f"{run.name} #{run.run_id[:ID_DIGITS]}": run for run in library.runs()}


def find(library: RunLibrary, label: str | None) -> Run | None:
    """Return the taste that has this label, or had it before it was renamed; None if there is none."""
    _, mark, start = (label or "").rpartition("#")
    runs = [run for run in library.runs() if mark and len(start) == ID_DIGITS and run.run_id.startswith(start)]
    return runs[0] if len(runs) == 1 else None


def chosen(library: RunLibrary, label: str | None) -> Run:
    """Return the taste that has this label.

    Raises:
        D3POError: there is none.
    """
    run = find(library, label)
    if run is None:
        raise D3POError("There is no such taste.", "Choose one from the list, or begin one.")
    return run
