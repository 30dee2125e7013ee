"""This project's training steps for `benchmarks.others`: the updates of its trainers, without run and reports."""

from __future__ import annotations

import argparse
import dataclasses

from benchmarks.others.meter import Meter, options
from benchmarks.random_models import draw_group
from d3po_core.diffusion.rollout import make_plan
from d3po_core.lora import attach
from d3po_core.models import DiffusersModel, load_model
from d3po_core.rewards import get_reward
from d3po_core.settings import (
    PUBLISHED,
    LoraSettings,
    RewardSettings,
    SampleSettings,
    TrainSettings,
    fill_in,
    replace,
)
from d3po_core.training.passes import BatchLimits, LoraOptimizer
from d3po_core.training.preference_optimizer import PreferenceOptimizer
from d3po_core.training.reward_gradient import PromptSample, RewardGradient
from d3po_core.training.rows import Reference

PROMPT = "a flower"
LORA = LoraSettings(rank=4, alpha=4.0, targets="attention")
OWN = TrainSettings(epochs=1000)
WAYS = {
    "default": OWN,
    "published": replace(OWN, {**PUBLISHED["train"], "trained_steps": 1, "epochs": 1000, "batch": 1}),
    "diffusion-dpo": dataclasses.replace(OWN, method="diffusion-dpo", draws=1),
}
"""One step of one pair an update, as the others have it."""


def picks(model: DiffusersModel, way: str, asked: argparse.Namespace) -> None:
    """Draw a pair, and train on one step of it at a time."""
    sample = SampleSettings(steps=asked.steps, guidance_scale=asked.guidance, candidates=2, window="all", noise="all")
    denoiser, meter = model.denoiser, Meter(asked.intervals, 1, rows=2)
    meter.begin()
    group = draw_group(denoiser, model.latent_shape()[-1], sample, 0)
    lora = attach(denoiser.module, LORA)
    reference = Reference("base", denoiser, lora.off, 2)
    trainer = PreferenceOptimizer(
        denoiser,
        lora.parameters(),
        {group.id: len(group.pairs)},
        {},
        {group.id: group}.__getitem__,
        reference,
        fill_in(WAYS[way]),
        BatchLimits(2, 2),
    )
    while True:
        trainer.update()
        meter.tick()


def reward(model: DiffusersModel, way: str, asked: argparse.Namespace) -> None:
    """Follow a reward, two pictures an update."""
    settings = RewardSettings(variant=way, last=asked.followed)
    steps = make_plan(model.denoiser, SampleSettings(steps=asked.steps, guidance_scale=asked.guidance)).steps
    samples = [PromptSample(PROMPT, model.encode([PROMPT])[0], number) for number in range(2)]
    meter = Meter(asked.intervals, 1, rows=2 * asked.steps)
    meter.begin()
    lora = attach(model.denoiser.module, LORA)
    optimizer = LoraOptimizer(
        model.denoiser, lora.parameters(), settings.learning_rate, settings.warmup, settings.grad_clip
    )
    gradient = RewardGradient(model, get_reward("warmth"), steps, model.latent_shape(), asked.guidance, settings)
    done = 0
    while True:
        optimizer.zero_grad()
        gradient.backward(samples, done, len(samples), optimizer.scale)
        optimizer.step(done)
        done += 1
        meter.tick()


def main() -> None:
    asked = options(__doc__)
    model = load_model(asked.pipeline, device="cpu")
    (picks if asked.way in WAYS else reward)(model, asked.way, asked)


if __name__ == "__main__":
    main()
