"""What a LoRA is, apart from any network that it is attached to."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


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
