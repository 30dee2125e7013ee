"""Teach: turn the picks of a run into a LoRA.

Half of the time goes into a check: the picks are halved, and each half is guessed by a LoRA taught on the other.
How often that goes right (chance: 50 %) says how long to teach and how far the result can be trusted; the LoRA that is
kept is taught on all picks. Ctrl+C keeps what was learnt, and the same command goes on from there.
"""

from __future__ import annotations

import argparse
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from . import common
from .flags import add_settings, settings_of
from .progress import Bar

if TYPE_CHECKING:
    from ..diffusion.image_model import ImageModel
    from ..rewards import Reward
    from ..run import Run
    from ..settings import LoraSettings, TrainSettings
    from ..training.reports import Result, StepReport

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
    from ..rewards import get_reward
    from ..run import Run

    run = Run.open(options.run)
    train, lora = (settings_of(options, section, earlier=run.settings) for section in ("train", "lora"))
    model = common.load(options, run)
    start = time.monotonic()
    reward = get_reward(options.reward) if options.reward else None
    taught = teach(run, model, train, lora, options.details, options.finish, reward)
    if taught is None:
        print("\nStopped; what was learnt is kept. The same command goes on from here, and with --finish it makes a")
        print("LoRA of what was learnt so far.")
        return 130
    result, path = taught
    print(f"Round {result.round} took {time.monotonic() - start:.0f} s. {result.reason}")
    print(describe(result))
    print(f"LoRA: {path}")
    print(f"Next: d3po evaluate --run {options.run} --scorer NAME, or d3po export --run {options.run} --to FILE")
    return 0


def teach(
    run: Run,
    model: ImageModel,
    train: TrainSettings,
    lora: LoraSettings,
    details: bool = False,
    finish: bool = False,
    reward: Reward | None = None,
) -> tuple[Result, Path] | None:
    """Teach a round and keep its LoRA, showing how far it has come.

    Args:
        run: with picks.
        model: the base model.
        train, lora: how.
        details: print figures of every epoch.
        finish: end after one more update.
        reward: judges all pictures in place of picks.

    Returns:
        What came out and where the LoRA lies; None if it was stopped by Ctrl+C, with the state kept in the run.
    """
    from ..training.round_trainer import save_round
    from ..training.trainer import Trainer

    trainer = Trainer(run, model.denoiser, train, lora, reward=reward)
    if trainer.resumed:
        print("Going on with the unfinished round, with the settings that it was begun with.")
    bar, phase = Bar(""), ""
    try:
        with closing(trainer.steps()) as reports:
            for report in reports:
                if report.phase != phase:
                    bar.close()
                    bar, phase = Bar(PHASES[report.phase]), report.phase
                note = f"guesses {report.hidden.accuracy:.0%} of hidden picks" if report.hidden else ""
                bar.show(report.update, report.total, note)
                if details and report.hidden:
                    bar.close()
                    print(_figures(report))
                if finish:
                    break
    except KeyboardInterrupt:
        return None
    finally:
        bar.close()
    return trainer.result(), save_round(trainer)


def describe(result: Result) -> str:
    """How well the taste was understood, in a sentence."""
    if not result.guessed_of:
        return "There were too few picks to hide some, so how well the taste was understood is unknown."
    share = result.guessed / result.guessed_of
    return f"Of {result.guessed_of} picks it had not seen it guessed {share:.0%} right (chance: 50 %)."


def _figures(report: StepReport) -> str:
    hidden = report.hidden
    assert hidden is not None
    line = f"{report.phase}, epoch {report.epoch + 1}: loss {report.training.loss:.4f}, "
    line += f"clipped {report.training.clip_fraction:.1%}, hidden loss {hidden.loss:.4f}, "
    line += f"hidden accuracy {hidden.accuracy:.3f}, hidden margin {hidden.margin:.3f}"
    if report.kl_base is not None:
        line += f", KL from base {report.kl_base:.2f}, from sampler {report.kl_sampler:.2f} nats per image"
    return line
