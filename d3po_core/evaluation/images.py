"""Images for comparisons: fixed prompts and fixed seeds, drawn by an ordinary deterministic sampler."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from ..diffusion.image_model import ImageModel
from ..diffusion.rollout import CandidateNoise, SamplingPlan, make_plan
from ..diffusion.steps import make_steps
from ..lora import LoraWeights
from ..lora.attachment import applied
from ..run.run import to_image
from ..settings import SampleSettings


def deterministic(model: ImageModel, settings: SampleSettings) -> SamplingPlan:
    """Return the sampler of these settings, without noise after the start (except for lcm, which needs it)."""
    plan = make_plan(model.denoiser, settings)
    sigmas = model.denoiser.sigmas(settings.steps, settings.schedule)
    steps = make_steps(settings.sampler, model.denoiser.family, sigmas, torch.zeros(settings.steps))
    return dataclasses.replace(plan, steps=steps)


def draw(
    model: ImageModel, plan: SamplingPlan, prompts: list[str], seeds: int, settings: SampleSettings, first_seed: int = 0
) -> Iterator[tuple[int, Tensor]]:
    """Draw `seeds` images for each prompt.

    Seeds are shared by the prompts, and never coincide with those of a run's groups, whatever the run's seed is.

    Args:
        model: draws the images, with the LoRA that is active now.
        plan: the sampler.
        prompts: P texts.
        seeds: S, images per prompt.
        settings: size, guidance, negative prompt, batch and seed.
        first_seed: number of the first seed.

    Yields:
        Batches of at most `settings.batch`, prompt by prompt: the number of the batch's first image out of P * S, and
        the images (b, 3, H, W) in [0, 1] on the CPU.
    """
    shape = model.latent_shape(settings.height, settings.width)
    encoded = model.encode(prompts, settings.negative)
    flat = [(prompt, seed) for prompt in range(len(prompts)) for seed in range(seeds)]
    for first in range(0, len(flat), settings.batch):
        part = flat[first : first + settings.batch]
        noises = [CandidateNoise(settings.seed, -1 - first_seed - seed, 0, shape, "same") for _, seed in part]
        conditioning = [encoded[prompt] for prompt, _ in part]
        trajectory = model.sample(plan, noises, conditioning, settings.guidance_scale)
        yield first, model.decode(trajectory.latents).cpu()


Show = Callable[[int, int], object]
"""Called with how many images are drawn, and how many there will be. Drawing may be stopped by what it raises."""


def draw_all(
    model: ImageModel,
    lora: LoraWeights | Path | None,
    plan: SamplingPlan,
    prompts: list[str],
    seeds: int,
    settings: SampleSettings,
    attachment: str,
    drawn: Callable[[int], object],
    first_seed: int = 0,
) -> Tensor:
    """Draw `seeds` images for each prompt with a LoRA, as `draw` does, and return them, (P, S, 3, H, W) in [0, 1].

    Args:
        model, plan, prompts, seeds, settings, first_seed: as for `draw`.
        lora: weights or a file; None for the base model.
        attachment: how a LoRA is attached to this model, "peft" or "hooks".
        drawn: called with the number of images of every batch.
    """
    parts: list[Tensor] = []
    with applied(model.denoiser, lora, attachment):
        for _, images in draw(model, plan, prompts, seeds, settings, first_seed):
            parts.append(images)
            drawn(len(images))
    return torch.cat(parts).unflatten(0, (len(prompts), seeds))


def counted(show: Show, total: int) -> Callable[[int], None]:
    """Return a function that takes the number of images of every batch and shows how far drawing has come."""
    done = 0

    def drawn(images: int) -> None:
        nonlocal done
        done += images
        show(done, total)

    return drawn


GAP, HEADING, MIN_WIDTH = 4, 18, 96
"""Pixels of a grid: between images, above them for the labels, and to which small images are enlarged."""


def before_after(before: Tensor, after: Tensor) -> Image.Image:
    """Return a grid of images of the same prompts and seeds, before and after side by side, a prompt in each row.

    Args:
        before, after: (P, S, 3, H, W) in [0, 1].
    """
    prompts, seeds, _, height, width = before.shape
    scale = max(1, round(MIN_WIDTH / width))
    w, h = width * scale, height * scale
    half = seeds * (w + GAP)
    sheet = Image.new("RGB", (2 * half + 3 * GAP, prompts * (h + GAP) + HEADING + GAP), "white")
    pen = ImageDraw.Draw(sheet)
    for side, (images, label) in enumerate(((before, "before"), (after, "after"))):
        left = GAP + side * (half + GAP)
        pen.text((left, 2), label, fill="black")
        for p in range(prompts):
            for s in range(seeds):
                tile = to_image(images[p, s]).resize((w, h), Image.Resampling.NEAREST)
                sheet.paste(tile, (left + s * (w + GAP), HEADING + p * (h + GAP)))
    return sheet
