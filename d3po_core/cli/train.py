"""Teach: turn the picks of a run into a LoRA.

A judge is fitted to the picks first, in a second: how often it predicts picks that it has not seen (chance: 50%) says
whether there is a taste to learn; without one the model is left as it is. It then orders all pictures that were drawn,
also those that nobody saw, and D3PO learns from that. Ctrl+C keeps what was learnt, and the same command goes on.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ..settings import LoraSettings, TrainSettings
from . import common
from .flags import add_settings, settings_of

if TYPE_CHECKING:
    from ..run import Run

EXAMPLE = """  d3po train --run my-taste
  d3po train --run my-taste --rank 16 --epochs 4"""
OUT_OF_MEMORY = (
    "Lower --micro-batch (1 needs least), or add --checkpointing, then start again: it goes on where it was."
)


def add_arguments(parser: argparse.ArgumentParser, advanced: bool) -> None:
    common.add_run(parser)
    common.add_finish(parser)
    parser.add_argument("--reward", metavar="REWARD", help="let a program's scores of all pictures stand for picks")
    parser.add_argument("--details", action="store_true", help="print loss, accuracy and more of every update")
    common.add_model(parser)
    add_settings(parser, ("lora", "train"), advanced)


def run(options: argparse.Namespace) -> int:
    from ..app.handing_over import files_to_train, opened

    with opened(options.run, files_to_train, options.processes) as run:
        return _train(options, run)


def _train(options: argparse.Namespace, run: Run) -> int:
    from ..app.few_steps import method_warning, names_of
    from ..app.runs import newest_sample_settings
    from ..app.training import PicksRequest
    from ..rewards import get_reward
    from ..run.panel import check_people
    from .training import train_and_report

    train = settings_of(options, TrainSettings, earlier=run.settings)
    lora = settings_of(options, LoraSettings, earlier=run.settings)
    if not options.reward and run.rounds.stopped() is None:  # which has its picks
        check_people(run, train)
    reward = get_reward(options.reward, own_code=True) if options.reward else None
    model = common.load(options, run)
    if warning := method_warning(train.method, names_of(run), newest_sample_settings(run)):
        print(warning)
    return train_and_report(run, model, PicksRequest(train, lora, reward), options)
