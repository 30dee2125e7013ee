"""A LoRA's values, apart from any network that it is attached to."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..diffusion.rollout import generator


@dataclass(frozen=True)
class LayerWeights:
    """A LoRA on one layer: adds alpha / rank * up(down(x)) to the layer's output.

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
"""A LoRA, by the dotted paths of its layers in the network."""


def rescaled(weights: LayerWeights, alpha: float) -> LayerWeights:
    """Change alpha and scale `up` so that the LoRA's effect stays; unchanged where alpha is equal already."""
    if alpha == weights.alpha:
        return weights
    return LayerWeights(weights.down, weights.up * (weights.alpha / alpha), alpha)


def scale_weights(weights: LoraWeights, strength: float) -> LoraWeights:
    """Scale a LoRA's effect, so that its strength 1 equals the given strength of the original."""
    return {path: LayerWeights(w.down, w.up * strength, w.alpha) for path, w in weights.items()}


def blend(start: LoraWeights, end: LoraWeights, share: float) -> LoraWeights:
    """Interpolate linearly between the values of two LoRAs of the same layers: `start` at share 0, `end` at 1."""

    def between(a: LayerWeights, b: LayerWeights) -> LayerWeights:
        return LayerWeights(torch.lerp(a.down, b.down, share), torch.lerp(a.up, b.up, share), b.alpha)

    return {path: between(start[path], weights) for path, weights in end.items()}


def reinitialised(weights: LoraWeights, seed: int) -> LoraWeights:
    """Draw a fresh LoRA of the same layers and sizes: random `down` of the same standard deviation, zero `up`."""
    rng = generator(seed, "unlearnt")

    def draw(w: LayerWeights) -> LayerWeights:
        down = torch.randn(w.down.shape, generator=rng) * w.down.std()
        return LayerWeights(down, torch.zeros_like(w.up), w.alpha)

    return {path: draw(w) for path, w in weights.items()}
