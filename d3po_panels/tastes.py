"""Beginning, estimating and deleting tastes."""

from __future__ import annotations

import dataclasses
import itertools
import os
import secrets
import shutil
from pathlib import Path

from d3po_core.app.sampling import check_drawable
from d3po_core.diffusion.image_model import ImageModel
from d3po_core.embedded import GARDEN
from d3po_core.errors import D3POError
from d3po_core.run import BaseModelFacts, Run, device_name
from d3po_core.run.files import move, writing
from d3po_core.run.library import RunLibrary
from d3po_core.settings import LoraSettings, SampleSettings, TrainSettings

from .worker import Worker

OF_ID = 6
"""Digits of a taste's id in lists."""


@dataclasses.dataclass(frozen=True)
class NewRun:
    """A taste to be begun.

    Attributes:
        name: on screen.
        source: of the model: "garden", or the absolute path of a checkpoint file or diffusers folder.
        prompts: at least one.
        base_config: a folder with the model's configuration, for a checkpoint without internet access.
        dtype: of the network.
    """

    name: str
    source: str
    prompts: tuple[str, ...]
    sample: SampleSettings
    train: TrainSettings
    lora: LoraSettings
    base_config: str | None = None
    dtype: str = "float32"


def begin_run(plan: NewRun, model: ImageModel, shelf: RunLibrary) -> Run:
    """Make the run of a new taste.

    Args:
        plan: what it is to be.
        model: loaded from `plan.source`.
        shelf: where all tastes lie.

    Raises:
        D3POError: the model cannot draw what is wanted, or the folder cannot be written to.
    """
    check_drawable(model, plan.sample)
    model.encode(list(plan.prompts), plan.sample.negative)  # a prompt that is empty or too long is told now
    sections = {name: dataclasses.asdict(getattr(plan, name)) for name in ("sample", "train", "lora")}
    facts = BaseModelFacts(
        identity=model.identity,
        source=plan.source,
        name=Path(plan.source).stem,
        family=model.denoiser.family,
        dtype=plan.dtype,
        base_config=plan.base_config,
        prediction_type=getattr(model, "prediction_type", ""),
    )
    run = Run.create(shelf.unused(plan.name), name=unused_name(plan.name, shelf), model=facts, settings=sections)
    for prompt in plan.prompts:
        run.prompts.add(prompt, plan.sample.negative)
    run.write_manifest(device=device_name(model.denoiser.device), seed=plan.sample.seed)
    return run


def unused_name(name: str, shelf: RunLibrary) -> str:
    """A name that no taste has yet: this one, or with a number behind it."""
    taken = {run.name for run in shelf.runs()}
    numbered = (f"{name} {number}" for number in itertools.count(2))
    return next(each for each in itertools.chain([name], numbered) if each not in taken)


def resolved(source: str) -> str:
    """A model's source as a taste keeps it."""
    source = source.strip().strip('"')
    return source if source == GARDEN else str(Path(os.path.expanduser(source)).resolve())


def prompts_of(text: str) -> tuple[str, ...]:
    """One prompt a line.

    Raises:
        D3POError: there is none.
    """
    found = tuple(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))
    if not found:
        raise D3POError("There is no prompt yet.", "Write at least one, one per line.")
    return found


def delete(run: Run, worker: Worker) -> None:
    """Delete a taste with everything in it, after what is being done for it.

    Raises:
        D3POError: another program teaches it, or the folder cannot be written to.
    """

    def do() -> None:
        with run.rounds.lock():
            pass
        run.close()
        gone = run.folder.with_name(f".deleted-{secrets.token_hex(4)}")
        with writing(run.folder):
            move(run.folder, gone)  # at once out of every list
            shutil.rmtree(gone)

    worker.stop(run)
    worker.call(do, free=True).result()


def labels(shelf: RunLibrary) -> dict[str, Run]:
    """Tastes by what a list calls them, the newest first: each its name and the beginning of its id.

    Plain texts, because lists of gradio before 3.42 know no others. A page may show a list that is old by now, so a
    label never comes to mean another taste, whatever was begun, renamed or deleted since.
    """
    return {f"{run.name} #{run.run_id[:OF_ID]}": run for run in shelf.runs()}


def find(shelf: RunLibrary, label: str | None) -> Run | None:
    """The taste that a list calls so, or called so before it was renamed."""
    _, mark, start = (label or "").rpartition("#")
    found = [run for run in shelf.runs() if mark and len(start) == OF_ID and run.run_id.startswith(start)]
    return found[0] if len(found) == 1 else None


def chosen(shelf: RunLibrary, label: str | None) -> Run:
    """The taste that a list calls so.

    Raises:
        D3POError: there is none.
    """
    run = find(shelf, label)
    if run is None:
        raise D3POError("There is no such taste.", "Choose one from the list, or begin one.")
    return run
