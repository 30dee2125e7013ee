"""A round of teaching by a differentiable reward on the host's own model and VAE: the core's `RewardTrainer` inside one
sampling of the host's."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..d3po_core.evaluation.compare import drift_word, recommended_strength
from ..d3po_core.rewards import Reward
from ..d3po_core.run import Run
from ..d3po_core.settings import LoraSettings, RewardSettings, SampleSettings
from ..d3po_core.training.reports import Result
from ..d3po_core.training.reward_trainer import RewardCourse, RewardTrainer, StoppedReward
from ..d3po_core.training.round_trainer import save_round
from . import loras
from .host.memory import checkpointed, computed_twice, smallest_blocks
from .host.model import HostModel, RunModel, host_sampling
from .host.process import within_memory
from .host.vae import Decoder
from .progress import Working, send_event
from .training import show_round

RESUMED = "It went on as it was begun: changed settings and prompts are for the next round."


class RewardModel(HostModel):
    """See `HostModel`; gradients pass through `decode`, which works inside `host_sampling` only, beside `decoder`'s
    patcher."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.decoder = Decoder(self.vae)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents as the host's LATENT has them to images (B, 3, H, W) in [0, 1], float32, on the VAE's device."""
        return self.decoder(latents)


@dataclass(frozen=True)
class RewardTrainRequest:
    """What a round is taught with.

    Attributes:
        reward: differentiable.
        settings, lora: how.
        sample: how pictures are drawn.
        prompts: ids of those to draw for.
        finish: make a LoRA of what a stopped round has learnt, from whatever it has learnt it.
        before_and_after: draw pictures of before and after for the gallery, and a blind check.
        node: id of the node that teaches.
    """

    reward: Reward
    settings: RewardSettings
    lora: LoraSettings
    sample: SampleSettings
    prompts: list[int]
    finish: bool
    before_and_after: bool
    node: str


def train_by_reward(host: RewardModel, run: Run, lesson: RewardTrainRequest) -> tuple[str, list[float]]:
    """Teach one round and publish its LoRA. Interrupted, it keeps its state, and teaching again goes on from there.

    Args:
        host: MODEL and VAE, with the size to draw.
        run: with the prompts.
        lesson: how.

    Returns:
        A sentence on what came out, and minus the mean reward of all updates.

    Raises:
        D3POError: the reward is not differentiable or cannot tell pictures apart, memory ran out, or the disk is full.
    """
    return within_memory(
        lambda: _taught_and_shown(host, run, lesson),
        "Choose a smaller memory preset, 'draft-lv' with fewer noises, a tile of 256 or so, or smaller pictures.",
        "What was learnt so far is saved.",
    )


def _taught_and_shown(host: RewardModel, run: Run, lesson: RewardTrainRequest) -> tuple[str, list[float]]:
    with Working(run, lesson.node, "teaching", lesson.settings.updates) as work:
        course, losses = _taught(host, run, lesson, work)
        result = course.result()
        try:
            if lesson.before_and_after:
                shape = host.latent_shape()
                drawing = RunModel(host.patcher, run, host.vae, course.sample.eta, shape)
                show_round(run, drawing, course.sample, result, work)
        finally:
            send_event("d3po.taught", taste=run.run_id, lora=loras.listed(run))
    return said(result, course.reward_name, RESUMED if course.resumed and not lesson.finish else ""), losses


def _taught(host: RewardModel, run: Run, lesson: RewardTrainRequest, work: Working) -> tuple[RewardCourse, list[float]]:
    course, losses = _course(host, run, lesson), list[float]()
    work.say("Measuring drift" if lesson.finish else f"Measuring {lesson.reward.name} before")

    def steps() -> None:
        twice = lesson.settings.checkpointing
        network = host.decoder.network
        with (
            checkpointed(host.denoiser.module, twice),
            computed_twice(smallest_blocks(network) if twice else []),
            closing(course.steps()) as reports,
        ):
            for report in reports:
                losses.append(-report.reward)
                work.at(report.update, report.total, f"{lesson.reward.name} {report.reward:.4g}")

    rows = [run.prompts.conditioning(prompt.id) for prompt in course.prompts]
    try:
        host_sampling(host.denoiser, rows, host.latent_shape(), steps, beside=[host.decoder.patcher])
    finally:
        if not lesson.finish:  # which the reward has no part in
            _off_the_card(lesson.reward)
    loras.publish(run, save_round(course))
    return course, losses


def _course(host: RewardModel, run: Run, lesson: RewardTrainRequest) -> RewardCourse:
    if lesson.finish:
        return StoppedReward(run, host, lesson.settings, "hooks")
    settings = (lesson.settings, lesson.lora, lesson.sample)
    return RewardTrainer(run, host, lesson.reward, *settings, attachment="hooks", prompts=lesson.prompts)


@torch.no_grad()
def _off_the_card(reward: Reward) -> None:
    """A reward's network goes to where the pictures are that it sees. The host, which knows nothing of it, would find
    its graphics card full later."""
    reward(torch.linspace(0, 1, 3 * 64 * 64).view(1, 3, 64, 64), [""])


def said(result: Result, reward_name: str, more: str = "") -> str:
    """What came out, in a sentence or a few."""
    parts = ["Taught."]
    if result.figures:
        before, after = result.figures["reward_before"], result.figures["reward"]
        parts.append(f"Mean {reward_name} went from {before:.4g} to {after:.4g}.")
    if result.sweep:
        strength, (_, drift) = recommended_strength(result.sweep), result.sweep[0]
        gentler = "" if strength == 1 else f": use the LoRA at strength {strength:g}"
        parts.append(f"Drift from the original is {drift_word(drift)}{gentler}.")
    return " ".join([*parts, result.reason, *([more] if more else [])])
