"""Images that show a person what a round changed: a before/after strip, and the pairs of a blind check."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from PIL import Image
from torch import Tensor

from ..diffusion.image_model import ImageModel
from ..diffusion.rollout import generator
from ..lora import LoraWeights
from ..lora.attach import applied
from ..lora.weights import scale_weights
from ..run import Run
from ..run.images import to_image
from ..run.previews import strip_side
from ..settings import SampleSettings
from .drift import STRENGTHS
from .images import deterministic, draw

STRIP_IMAGES = 4
"""Images in a strip. They have the same prompts and seeds in every round, unless prompts are added to the run."""
CHECK_PAIRS = 12
"""Before/after pairs in a blind check; by chance alone, ten or more on either side have a probability below 5%."""
CHECK_SEEDS = 1_000_000
"""First seed of blind checks, far above those of strips; no group of a run has one of either (see `draw`)."""


def draw_previews(
    run: Run, model: ImageModel, round: int, lora: LoraWeights, settings: SampleSettings, attachment: str = "peft"
) -> Iterator[tuple[int, int]]:
    """Draw a round's strip and blind check, and save them in the run as soon as each is complete.

    Args:
        run: with prompts.
        model: the base model.
        round: number of the finished round.
        lora: weights that the round trained.
        settings: as the run is sampled.
        attachment: how a LoRA is attached to this model, "peft" or "hooks".

    Yields:
        How many images are drawn, and of how many.
    """
    texts = sorted({prompt.text for prompt in run.prompts.to_show()})
    strip = _choose_prompts(texts, STRIP_IMAGES, run.run_id)
    check = _choose_prompts(texts, CHECK_PAIRS, f"{run.run_id} {round}")
    jobs = [(prompt, seed) for seed, prompt in enumerate(strip)] + [
        (p, CHECK_SEEDS + CHECK_PAIRS * round + i) for i, p in enumerate(check)
    ]
    full, *weaker = STRENGTHS  # the blind check is drawn at full strength alone
    sides: dict[str, tuple[LoraWeights | None, int]] = {
        "before": (None, len(jobs)),
        strip_side(full): (lora, len(jobs)),
    }
    sides |= {strip_side(strength): (scale_weights(lora, strength), len(strip)) for strength in weaker}
    images: dict[str, list[Image.Image]] = {side: [] for side in sides}
    total = sum(count for _, count in sides.values())
    for side, (weights, count) in sides.items():
        with applied(model.denoiser, weights, attachment):
            for prompt, seed in jobs[:count]:
                images[side].append(to_image(_draw_one(model, prompt, seed, settings)))
                yield sum(map(len, images.values())), total
        if side != "before":  # not at the end, as the caller may stop before
            run.previews.save(round, strip, {name: drawn[: len(strip)] for name, drawn in images.items()})
        if side == strip_side(full):
            run.blind_checks.add(round, check, *(images[name][len(strip) :] for name in ("before", side)))


def _draw_one(model: ImageModel, prompt: str, seed: int, settings: SampleSettings) -> Tensor:
    ((_, images),) = draw(model, deterministic(model, settings), [prompt], 1, settings, first_seed=seed)
    return images[0]


def _choose_prompts(texts: list[str], count: int, seed: str) -> list[str]:
    """Choose `count` prompts at random, each as often as the others, give or take one."""
    order = [texts[i] for i in torch.randperm(len(texts), generator=generator(seed))]
    return [order[i % len(order)] for i in range(count)]
