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
from ..settings import LoraSettings, RewardSettings, SampleSettings
from . import common
from .flags import add_settings, preset_of, settings_of
from .sample import new_run, usual_prompts

if TYPE_CHECKING:
    from ..training.reports import RewardReport
    from ..training.reward_trainer import RewardTrainer
    from ..training.round_trainer import SavedRound

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
    return _finish(options) if options.finish else _train(options)


def _train(options: argparse.Namespace) -> int:
    from ..app.sampling import add_prompts
    from ..training.reward_trainer import RewardTrainer

    if not options.reward:
        raise D3POError("No reward is named.", "Add --reward and one of those that d3po draft --help lists.")
    reward = require_differentiable(get_reward(options.reward))
    old = common.open_if_there(options.run)
    earlier = old.settings if old else None
    sample = settings_of(options, SampleSettings, common.model_defaults(options, old), earlier)
    lora = settings_of(options, LoraSettings, earlier=earlier)
    settings = settings_of(options, RewardSettings, earlier=earlier)
    prompts = common.read_prompts(options) or usual_prompts(options, old)
    model = common.load(options, old)
    run = old or new_run(options, model, sample, preset_of(options))
    add_prompts(run, model, prompts, sample.negative)
    start = time.monotonic()
    try:
        trainer = RewardTrainer.open(run, model, reward, settings, lora, sample)
        if trainer.resumed:
            print(common.GOING_ON)
        saved = _trained(trainer, reward.name)
    except KeyboardInterrupt:
        return common.paused()
    return _report(saved, trainer.reward_name, options.run, start)


def _finish(options: argparse.Namespace) -> int:
    """Make a LoRA of a stopped round without the reward, which may be gone."""
    from ..app.training import Next, train_round
    from ..run import Run
    from ..training.reward_trainer import RewardTrainer

    run = Run.open(options.run)
    settings, start = settings_of(options, RewardSettings), time.monotonic()
    trainer = RewardTrainer.open_stopped(run, common.load(options, run), settings)
    saved = train_round(trainer, lambda report: Next.CONTINUE)
    assert saved is not None
    return _report(saved, trainer.reward_name, options.run, start)


def _trained(trainer: RewardTrainer, reward_name: str) -> SavedRound:
    """Train, showing a progress bar, and save the LoRA."""
    from ..app.training import Next, train_round

    with closing(common.ProgressBar("Teaching")) as bar:

        def after_update(report: RewardReport) -> Next:
            bar.show(report.update, report.total, f"{reward_name} {report.reward:.4g}")
            return Next.CONTINUE

        saved = train_round(trainer, after_update)
        assert saved is not None  # it is never paused
        return saved


def _report(saved: SavedRound, reward_name: str, folder: str, start: float) -> int:
    from ..app.training import round_outcome

    print(f"Round {saved.result.round} took {time.monotonic() - start:.0f} s.")
    print(round_outcome(saved.result, reward_name))
    common.print_lora(saved, folder)
    return 0
