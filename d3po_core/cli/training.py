"""Train a round in a terminal: a bar, Ctrl+C, and what came out."""

from __future__ import annotations

import argparse
import time
from contextlib import suppress

from tqdm import tqdm

from ..app.runs import sample_settings
from ..app.training import Next, PicksRequest, RewardRequest, round_outcome, settle_round
from ..diffusion.image_model import ImageModel
from ..processes import ALONE, Processes
from ..run import Run
from ..training.reports import Report, StepReport
from ..training.round_trainer import SavedRound
from .common import ProgressBar, quoted


def train(
    run: Run,
    model: ImageModel,
    request: PicksRequest | RewardRequest,
    finish: bool = False,
    details: bool = False,
    processes: Processes = ALONE,
) -> SavedRound | None:
    """Train a round with a bar, save its LoRA, and return it; None if Ctrl+C paused it, and in all but one process.

    With `finish` it ends after one more update; `details` prints all figures of every update.
    """
    saved = None
    with ProgressBar(shown=processes.first) as bar, suppress(KeyboardInterrupt):  # what there is then is saved

        def after_update(report: Report) -> Next:
            bar.show(report.update, report.total, report.note, "Teaching")
            if details and isinstance(report, StepReport):
                tqdm.write(report.details)
            return Next.FINISH if finish else Next.CONTINUE

        saved = request.train(run, model, "peft", after_update, bar.looking, processes, tqdm.write)
        saved = saved and settle_round(run, model, saved, sample_settings(run), "peft", bar.comparing)
    return saved


def train_and_report(
    run: Run, model: ImageModel, request: PicksRequest | RewardRequest, options: argparse.Namespace
) -> int:
    """Train a round, print what came out of it and what to do next, and return the exit status."""
    start = time.monotonic()
    saved = train(run, model, request, options.finish, getattr(options, "details", False), options.processes)
    if saved is None:
        print("\nStopped; what was learnt is kept. The same command goes on from here; --finish makes a LoRA of it.")
        return 130
    print(f"Round {saved.result.round} took {time.monotonic() - start:.0f} s. {round_outcome(saved)}")
    print(f"LoRA: {saved.path}")
    folder = quoted(options.run)
    print(f"Next: d3po evaluate --run {folder} --scorer NAME, or d3po export --run {folder} --to FILE")
    return 0
