"""What a LoRA is, apart from any network that it is attached to."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..diffusion.rollout import generator


@dataclass(frozen=True)
class LayerWeights:
    """A LoRA on one layer, which adds alpha / rank * up(down(x)) to the layer's output.

    Attributes:
        down: (rank, inputs), for a convolution (rank, inputs, height, width).
        up: (outputs, rank), for a convolution (outputs, rank, 1, 1).
        alpha: scale, in units of 1 / rank.
    """

    down: Tensor
    up: Tensor
    alpha: float

    @property
    def rank(self) -> int:
        return self.down.shape[0]


LoraWeights = dict[str, LayerWeights]
"""A LoRA by the dotted paths of the layers inside the network."""


def rescaled(weights: LayerWeights, alpha: float) -> LayerWeights:
    """The same LoRA with another alpha, `up` making up for it; untouched where alpha is the same already."""
    if alpha == weights.alpha:
        return weights
    return LayerWeights(weights.down, weights.up * (weights.alpha / alpha), alpha)


def scale_weights(weights: LoraWeights, strength: float) -> LoraWeights:
    """A LoRA whose whole strength is another's part of it."""
    return {path: LayerWeights(w.down, w.up * strength, w.alpha) for path, w in weights.items()}


def blend(start: LoraWeights, end: LoraWeights, share: float) -> LoraWeights:
    """The way from one LoRA to another of the same layers, gone by `share`."""

    def between(a: LayerWeights, b: LayerWeights) -> LayerWeights:
        return LayerWeights(torch.lerp(a.down, b.down, share), torch.lerp(a.up, b.up, share), b.alpha)

    return {path: between(start[path], weights) for path, weights in end.items()}


def reinitialised(weights: LoraWeights, seed: int) -> LoraWeights:
    """A LoRA of the same layers and sizes that changes nothing and remembers nothing."""
    chance = generator(seed, "unlearnt")

    def forget(w: LayerWeights) -> LayerWeights:
        down = torch.randn(w.down.shape, generator=chance) * w.down.std()
        return LayerWeights(down, torch.zeros_like(w.up), w.alpha)

    return {path: forget(w) for path, w in weights.items()}
