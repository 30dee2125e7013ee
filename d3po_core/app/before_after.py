"""Images of the same prompts and seeds without and with a LoRA."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..diffusion.image_model import ImageModel
from ..evaluation.evaluate import DrawProgress
from ..evaluation.images import deterministic, draw
from ..lora import LoraWeights
from ..lora.attach import applied
from ..settings import SampleSettings


@dataclass(frozen=True)
class BeforeAfter:
    """Images (P, S, 3, H, W) in [0, 1] of P prompts and S seeds, by the base model and with the LoRA."""

    before: Tensor
    after: Tensor


def draw_before_after(
    model: ImageModel,
    lora: LoraWeights,
    prompts: Sequence[str],
    seeds: int,
    settings: SampleSettings,
    attachment: str = "peft",
    first_seed: int = 0,
) -> Iterator[DrawProgress | BeforeAfter]:
    """Draw by an ordinary deterministic sampler, without the LoRA and with it; the last thing yielded is the outcome.

    Args:
        model: the base model.
        lora: used as it is; see `lora.weights.scale_weights` for another strength.
        prompts: P of them.
        seeds: images for each prompt, S.
        settings: as the run is sampled.
        attachment: how a LoRA is attached to this model.
        first_seed: seeds count from here.
    """
    plan, sides, total = deterministic(model, settings), list[Tensor](), 2 * len(prompts) * seeds
    for weights in (None, lora):
        parts: list[Tensor] = []
        with applied(model.denoiser, weights, attachment):
            for at, images in draw(model, plan, list(prompts), seeds, settings, first_seed=first_seed):
                parts.append(images)
                yield DrawProgress(len(sides) * total // 2 + at + len(images), total)
        sides.append(torch.cat(parts).unflatten(0, (len(prompts), seeds)))
    yield BeforeAfter(*sides)
