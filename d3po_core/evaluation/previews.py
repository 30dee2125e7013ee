"""Pictures that show a person what teaching did: a before/after strip on fixed seeds, and a blind check's pairs."""

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
"""Pictures in a strip; while no prompt is added, every round shows the same ones, so that rounds can be compared."""
CHECK_PAIRS = 12
"""Before/after pairs in a blind check: ten of them, either way, are more than luck (less than 5 % by chance)."""
CHECK_SEEDS = 1_000_000
"""Seeds of blind checks begin here, far from those of any strip; no group of a run has one of them (see `draw`)."""


def draw_previews(
    run: Run, model: ImageModel, round: int, lora: LoraWeights, settings: SampleSettings, attachment: str = "peft"
) -> Iterator[tuple[int, int]]:
    """Draw a round's strip and blind check into the run.

    Args:
        run: with prompts.
        model: the base model.
        round: number of the finished round.
        lora: what it taught.
        settings: as the run is sampled.
        attachment: how a LoRA is attached to this model.

    Yields:
        How many pictures are done, and of how many.
    """
    texts = sorted({prompt.text for prompt in run.prompts.to_show()})
    strip = _chosen(texts, STRIP_IMAGES, run.run_id)
    asked = _chosen(texts, CHECK_PAIRS, f"{run.run_id} {round}")
    jobs = [(prompt, seed) for seed, prompt in enumerate(strip)] + [
        (p, CHECK_SEEDS + CHECK_PAIRS * round + i) for i, p in enumerate(asked)
    ]
    whole, *gentler = STRENGTHS
    sides: dict[str, tuple[LoraWeights | None, int]] = {
        "before": (None, len(jobs)),
        strip_side(whole): (lora, len(jobs)),
    }
    sides |= {strip_side(strength): (scale_weights(lora, strength), len(strip)) for strength in gentler}
    pictures: dict[str, list[Image.Image]] = {side: [] for side in sides}
    total = sum(count for _, count in sides.values())
    for side, (weights, count) in sides.items():
        with applied(model.denoiser, weights, attachment):
            for prompt, seed in jobs[:count]:
                pictures[side].append(to_image(_one(model, prompt, seed, settings)))
                yield sum(map(len, pictures.values())), total
        if side != "before":  # at once: what comes after may be stopped
            run.previews.save(round, strip, {each: images[: len(strip)] for each, images in pictures.items()})
        if side == strip_side(whole):
            run.blind_checks.add(round, asked, *(pictures[each][len(strip) :] for each in ("before", side)))


def _one(model: ImageModel, prompt: str, seed: int, settings: SampleSettings) -> Tensor:
    ((_, images),) = draw(model, deterministic(model, settings), [prompt], 1, settings, first_seed=seed)
    return images[0]


def _chosen(texts: list[str], count: int, seed: str) -> list[str]:
    """So many prompts at random, each as often as the others."""
    order = [texts[i] for i in torch.randperm(len(texts), generator=generator(seed))]
    return [order[i % len(order)] for i in range(count)]
