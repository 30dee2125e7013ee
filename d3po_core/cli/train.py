"""Teach: turn the picks of a run into a LoRA.

Half of the time goes into a check: the picks are halved, and each half is predicted by a LoRA trained on the other.
How often that goes right (chance: 50%) says how long to train and how far the result can be trusted; the LoRA that is
kept is trained on all picks. Ctrl+C keeps what was learnt, and the same command goes on from there.
"""

from __future__ import annotations

import argparse
import time
from contextlib import closing
from typing import TYPE_CHECKING

from tqdm import tqdm

from ..settings import LoraSettings, TrainSettings
from . import common
from .flags import add_settings, settings_of

if TYPE_CHECKING:
    from ..app.training import Next
    from ..diffusion.image_model import ImageModel
    from ..rewards import Reward
    from ..run import Run
    from ..training.reports import StepReport
    from ..training.round_trainer import SavedRound

EXAMPLE = """  d3po train --run my-taste
  d3po train --run my-taste --rank 16 --epochs 8"""
OUT_OF_MEMORY = (
    "Lower --micro-batch (1 needs least), or add --checkpointing, then start again: it goes on where it was."
)
PHASES = {"check A": "Checking, first half", "check B": "Checking, second half", "teach": "Teaching"}


def add_arguments(parser: argparse.ArgumentParser, advanced: bool) -> None:
    common.add_run(parser)
    parser.add_argument("--finish", action="store_true", help="make a LoRA of what a stopped round has learnt so far")
    parser.add_argument("--reward", metavar="REWARD", help="let a program's reward of every picture stand for picks")
    parser.add_argument(
        "--details", action="store_true", help="print loss, margin, KL and clip fraction of every epoch"
    )
    common.add_model(parser)
    add_settings(parser, ("lora", "train"), advanced)


def run(options: argparse.Namespace) -> int:
    from ..app.training import understanding
    from ..rewards import get_reward
    from ..run import Run

    run = Run.open(options.run)
    train = settings_of(options, TrainSettings, earlier=run.settings)
    lora = settings_of(options, LoraSettings, earlier=run.settings)
    model = common.load(options, run)
    start = time.monotonic()
    reward = get_reward(options.reward) if options.reward else None
    saved = train_run(run, model, train, lora, options.details, options.finish, reward)
    if saved is None:
        return common.paused()
    print(f"Round {saved.result.round} took {time.monotonic() - start:.0f} s. {saved.result.reason}")
    print(understanding(saved.result))
    common.print_lora(saved, options.run)
    return 0


def train_run(
    run: Run,
    model: ImageModel,
    train: TrainSettings,
    lora: LoraSettings,
    details: bool = False,
    finish: bool = False,
    reward: Reward | None = None,
) -> SavedRound | None:
    """Train a round and save its LoRA, showing a progress bar.

    Args:
        run: with picks.
        model: the base model.
        train, lora: how.
        details: print figures of every epoch.
        finish: end after one more update.
        reward: scores all images in place of picks.

    Returns:
        The saved round; None if it was stopped by Ctrl+C, with the state kept in the run.
    """
    from ..app.training import Next, train_round
    from ..training.trainer import Trainer

    with closing(_Progress(details)) as progress:

        def after_update(report: StepReport) -> Next:
            progress.show(report)
            return Next.FINISH if finish else Next.CONTINUE

        try:
            trainer = Trainer.open(run, model.denoiser, train, lora, reward=reward)
            if trainer.resumed:
                print(common.GOING_ON)
            return train_round(trainer, after_update)
        except KeyboardInterrupt:
            return None


class _Progress:
    """A bar for each phase, and figures of every epoch if --details asks for them."""

    def __init__(self, details: bool) -> None:
        self._details, self._phase, self._bar = details, "", common.ProgressBar("")

    def show(self, report: StepReport) -> None:
        if report.phase != self._phase:
            self._bar.close()
            self._bar, self._phase = common.ProgressBar(PHASES[report.phase]), report.phase
        note = f"predicts {report.hidden.accuracy:.0%} of hidden picks" if report.hidden else ""
        self._bar.show(report.update, report.total, note)
        if self._details and report.hidden:
            tqdm.write(_figures(report))

    def close(self) -> None:
        self._bar.close()


def _figures(report: StepReport) -> str:
    hidden = report.hidden
    assert hidden is not None
    line = f"{report.phase}, epoch {report.epoch + 1}: loss {report.training.loss:.4f}, "
    line += f"clipped {report.training.clip_fraction:.1%}, hidden loss {hidden.loss:.4f}, "
    line += f"hidden accuracy {hidden.accuracy:.3f}, hidden margin {hidden.margin:.3f}"
    if report.kl_base is not None:
        line += f", KL from base {report.kl_base:.2f}, from sampler {report.kl_sampler:.2f} nats per image"
    return line
