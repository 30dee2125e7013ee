"""Pictures that show a person what teaching did: a before/after strip on fixed seeds, and a blind check's pairs."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from PIL import Image
from torch import Tensor

from .denoiser import ImageModel
from .evaluation.draw import deterministic, draw
from .evaluation.grid import to_image
from .lora import LoraWeights
from .policies import applied
from .rollout import generator
from .run import Run
from .settings import SampleSettings

STRIP = 4
"""Pictures in a strip; while no prompt is added, every round shows the same ones, so that rounds can be compared."""
PAIRS = 12
"""Before/after pairs in a blind check: ten of them, either way, are more than luck (less than 5 % by chance)."""
CHECK_SEEDS = 1_000_000
"""Seeds of blind checks begin here, far from those of any strip; no group of a run has one of them (see `draw`)."""


def show(
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
    texts = sorted({prompt.text for prompt in run.prompts()})
    strip = _chosen(texts, STRIP, run.run_id)
    asked = _chosen(texts, PAIRS, f"{run.run_id} {round}")
    jobs = [(prompt, seed) for seed, prompt in enumerate(strip)] + [
        (p, CHECK_SEEDS + PAIRS * round + i) for i, p in enumerate(asked)
    ]
    sides: list[list[Image.Image]] = []
    done, total = 0, 2 * len(jobs)
    for weights in (None, lora):
        images: list[Image.Image] = []
        with applied(model.denoiser, weights, attachment):
            for prompt, seed in jobs:
                images.append(to_image(_one(model, prompt, seed, settings)))
                done += 1
                yield done, total
        sides.append(images)
    before, after = sides
    run.save_strip(round, strip, before[: len(strip)], after[: len(strip)])
    run.add_check(round, asked, before[len(strip) :], after[len(strip) :])


def _one(model: ImageModel, prompt: str, seed: int, settings: SampleSettings) -> Tensor:
    ((_, images),) = draw(model, deterministic(model, settings), [prompt], 1, settings, first_seed=seed)
    return images[0]


def _chosen(texts: list[str], count: int, seed: str) -> list[str]:
    """So many prompts at random, each as often as the others."""
    order = [texts[i] for i in torch.randperm(len(texts), generator=generator(seed))]
    return [order[i % len(order)] for i in range(count)]
