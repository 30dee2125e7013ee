"""Teach by a reward: turn a program's liking of pictures into a LoRA, without picks.

The reward's gradient is followed through the last sampling step (DRaFT-LV, the default), the last few, or all of them;
so the reward must be differentiable. Sizes, steps and guidance are those that the run draws with. Ctrl+C keeps what was
learnt, and the same command goes on from there.
"""

from __future__ import annotations

import argparse

from ..errors import D3POError
from ..rewards import REWARDS, get_reward, require_differentiable
from ..settings import LoraSettings, RewardSettings, SampleSettings
from . import common
from .flags import add_settings, preset_of, settings_of
from .sample import new_run, usual_prompts

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
        help="one of these, clip:FOLDER, pickscore:FOLDER, hpsv2:FOLDER, aesthetic:FOLDER, picks:FILE, a function "
        "of your own as my_rewards.py:likes, or a weighted "
        "sum such as 0.5*warmth + contrast; with --finish none is needed",
    )
    common.add_finish(parser)
    common.add_model(parser)
    common.add_prompts(parser, "the run's own; with the embedded model its 44 training prompts")
    add_settings(parser, ("lora", "reward"), advanced)


def run(options: argparse.Namespace) -> int:
    from ..app.handing_over import files_to_draft, opened
    from ..app.sampling import add_prompts
    from ..app.training import RewardRequest
    from ..planning.loaded import reward_memory
    from ..run import Run
    from .training import train_and_report

    if not options.processes.first:
        return _help(options)
    old = common.open_if_there(options.run)
    earlier = old.settings if old else None
    sample = settings_of(options, SampleSettings, common.model_defaults(options, old), earlier)
    lora = settings_of(options, LoraSettings, earlier=earlier)
    settings = settings_of(options, RewardSettings, earlier=earlier)
    if options.finish:
        run = Run.open(options.run)
        request = RewardRequest(settings, lora, sample, None)  # without the reward, which may be gone
        return train_and_report(run, common.load(options, run), request, options)
    if not options.reward:
        raise D3POError("No reward is named.", "Add --reward and one of those that d3po draft --help lists.")
    reward = require_differentiable(get_reward(options.reward, own_code=True))
    prompts = common.read_prompts(options) or usual_prompts(options, old)
    model = common.load(options, old)
    common.say_plain_words(model, [*prompts, sample.negative])
    run = old or new_run(options, model, sample, preset_of(options), prompts)
    add_prompts(run, model, prompts, sample.negative)
    if memory := reward_memory(model, sample, settings, lora):
        print(memory)
    with opened(options.run, files_to_draft, options.processes) as run:
        return train_and_report(run, model, RewardRequest(settings, lora, sample, reward), options)


def _help(options: argparse.Namespace) -> int:
    """Train with the first process, as it says; to finish a round takes no help."""
    from ..app.handing_over import files_to_draft, opened
    from ..app.training import RewardRequest
    from .training import train_and_report

    if options.finish:
        return 0
    reward = require_differentiable(get_reward(options.reward or "", own_code=True))
    model = common.load(options, None)
    request = RewardRequest(RewardSettings(), LoraSettings(), SampleSettings(), reward)
    with opened(options.run, files_to_draft, options.processes) as run:  # which the first one may have begun
        return train_and_report(run, model, request, options)
