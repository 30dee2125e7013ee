"""Teach by a reward: turn a program's liking of pictures into a LoRA, without picks.

The reward's gradient is followed through the last sampling step (DRaFT-LV, the default), the last few, or all of them;
so the reward must be differentiable. Sizes, steps and guidance are those that the run draws with. Ctrl+C keeps what was
learnt, and the same command goes on from there.
"""

from __future__ import annotations

import argparse
import time
from contextlib import closing
from typing import TYPE_CHECKING

from ..errors import D3POError
from ..rewards import REWARDS, get_reward, require_differentiable
from . import common
from .flags import add_settings, preset_of, settings_of
from .progress import Bar
from .sample import new_run, usual_prompts

if TYPE_CHECKING:
    from ..training.reward_trainer import RewardCourse, RewardTrainer

EXAMPLE = """  d3po draft --run warmer --model garden --reward warmth
  d3po draft --run mine --reward "picks:mine.safetensors + 0.2*contrast" --updates 100"""
OUT_OF_MEMORY = "Lower --micro-batch (1 needs least) or --last, then start again: it goes on where it was."


def add_arguments(parser: argparse.ArgumentParser, advanced: bool) -> None:
    common.add_run(parser)
    likes = "\n".join(f"  {name}: Likes {reward.likes}" for name, reward in REWARDS.items() if reward.differentiable)
    group = parser.add_argument_group("the reward", description=likes)
    group.add_argument(
        "--reward",
        metavar="REWARD",
        help="one of these, clip:FOLDER, pickscore:FOLDER, hpsv2:FOLDER, aesthetic:FOLDER, picks:FILE, or a weighted "
        "sum such as 0.5*warmth + contrast; with --finish none is needed",
    )
    parser.add_argument("--finish", action="store_true", help="make a LoRA of what a stopped round has learnt so far")
    common.add_model(parser)
    common.add_prompts(parser, "the run's own; with the embedded model its 44 training prompts")
    add_settings(parser, ("lora", "reward"), advanced)


def run(options: argparse.Namespace) -> int:
    return _finish(options) if options.finish else _teach(options)


def _teach(options: argparse.Namespace) -> int:
    from ..app.sampling import add_prompts
    from ..training.reward_trainer import RewardTrainer

    if not options.reward:
        raise D3POError("No reward is named.", "Add --reward and one of those that d3po draft --help lists.")
    reward = require_differentiable(get_reward(options.reward))
    old = common.open_if_there(options.run)
    earlier = old.settings if old else None
    sample = settings_of(options, "sample", common.model_defaults(options, old), earlier)
    lora, settings = (settings_of(options, section, earlier=earlier) for section in ("lora", "reward"))
    prompts = common.read_prompts(options) or usual_prompts(options, old)
    model = common.load(options, old)
    run = old or new_run(options, model, sample, preset_of(options))
    add_prompts(run, model, prompts, sample.negative)
    start = time.monotonic()
    trainer = RewardTrainer(run, model, reward, settings, lora, sample)
    if not _taught(trainer):
        print("\nStopped; what was learnt is kept. The same command goes on from here, and with --finish it makes a")
        print("LoRA of what was learnt so far.")
        return 130
    return _kept(trainer, options.run, start)


def _finish(options: argparse.Namespace) -> int:
    """Without the reward, which may be gone."""
    from ..run import Run
    from ..training.reward_trainer import StoppedReward

    run = Run.open(options.run)
    settings, start = settings_of(options, "reward"), time.monotonic()
    stopped = StoppedReward(run, common.load(options, run), settings)
    for _ in stopped.steps():
        pass
    return _kept(stopped, options.run, start)


def _kept(course: RewardCourse, folder: str, start: float) -> int:
    from ..training.round_trainer import save_round

    result, path = course.result(), save_round(course)
    print(f"Round {result.round} took {time.monotonic() - start:.0f} s. {result.reason}")
    if result.figures:
        print("Mean {0} went from {reward_before:.4g} to {reward:.4g}.".format(course.reward_name, **result.figures))
    print(f"LoRA: {path}")
    print(f"Next: d3po evaluate --run {folder} --scorer NAME, or d3po export --run {folder} --to FILE")
    return 0


def _taught(trainer: RewardTrainer) -> bool:
    """Train, showing how far it has come; False if it was stopped by Ctrl+C."""
    if trainer.resumed:
        print("Going on with the unfinished round, with the settings that it was begun with.")
    bar = Bar("Teaching")
    try:
        with closing(trainer.steps()) as reports, closing(bar):
            for report in reports:
                bar.show(report.update, report.total, f"{trainer.reward.name} {report.reward:.4g}")
    except KeyboardInterrupt:
        return False
    return True
