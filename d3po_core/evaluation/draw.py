"""Pictures for a comparison: fixed prompts and fixed seeds, drawn by an ordinary deterministic sampler."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch
from torch import Tensor

from ..image_model import ImageModel
from ..rollout import CandidateNoise, Plan, make_plan
from ..settings import SampleSettings
from ..steps import make_steps


def deterministic(model: ImageModel, settings: SampleSettings) -> Plan:
    """The same schedule with no noise after the start (consistency models keep theirs)."""
    plan = make_plan(model.denoiser, settings)
    sigmas = model.denoiser.sigmas(settings.steps, settings.schedule)
    steps = make_steps(settings.sampler, model.denoiser.family, sigmas, torch.zeros(settings.steps))
    return dataclasses.replace(plan, steps=steps)


def draw(
    model: ImageModel, plan: Plan, prompts: list[str], seeds: int, settings: SampleSettings, first_seed: int = 0
) -> Iterator[tuple[int, Tensor]]:
    """Draw `seeds` images for each prompt.

    Seeds are shared between prompts and never coincide with a run's groups, whatever the run's seed.

    Yields:
        The first flat index (prompt-major) and images (b, 3, H, W) in [0, 1] on the CPU, `settings.batch` at a time.
    """
    shape = model.latent_shape(settings.height, settings.width)
    encoded = model.encode(prompts, settings.negative)
    flat = [(prompt, seed) for prompt in range(len(prompts)) for seed in range(seeds)]
    for at in range(0, len(flat), settings.batch):
        part = flat[at : at + settings.batch]
        noises = [CandidateNoise(settings.seed, -1 - first_seed - seed, 0, shape, "same") for _, seed in part]
        conditioning = [encoded[prompt] for prompt, _ in part]
        trajectory = model.sample(plan, noises, conditioning, settings.guidance_scale)
        yield at, model.decode(trajectory.latents).cpu()
