"""A LoRA's values, apart from any network, and the interface of one that is attached to a network.

There are two attachments: PEFT, and forward hooks on modules that a host owns. Both compute the same numbers from the
same initial values, with parameters in the same order. While a LoRA is attached the network's own parameters are
frozen; `remove` undoes everything.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from ..errors import D3POError


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


Mode = Literal["policy", "reference", "off"]


class Lora(ABC):
    """A LoRA attached to a network: active at strength 1, unless inside one of the context managers.

    The context managers nest: the innermost decides, and each restores the previous state, after an exception too.
    """

    _trained: LoraWeights
    """The trainable adapter; its tensors are float32 parameters."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._thawed = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self._mode: Mode = "policy"
        self._strength = 1.0

    def parameters(self) -> list[nn.Parameter]:
        """Return the trainable parameters, float32 whatever the network's dtype: down, up, layer by layer."""
        return [p for w in self._trained.values() for p in (w.down, w.up) if isinstance(p, nn.Parameter)]

    def weights(self) -> LoraWeights:
        """Copy the trained values to the CPU."""
        return {
            path: LayerWeights(w.down.detach().to("cpu", copy=True), w.up.detach().to("cpu", copy=True), w.alpha)
            for path, w in self._trained.items()
        }

    @torch.no_grad()
    def load(self, weights: LoraWeights) -> None:
        """Copy values into every layer, in place.

        Raises:
            D3POError: the layers or their sizes differ from this LoRA's.
        """
        if weights.keys() != self._trained.keys():
            raise D3POError(f"The LoRA to load has {len(weights)} layers, not these {len(self._trained)}.")
        for path, own in self._trained.items():
            values = rescaled(weights[path], own.alpha)
            if values.down.shape != own.down.shape or values.up.shape != own.up.shape:
                raise D3POError(f"The LoRA to load has another size or rank in {path}.")
            own.down.copy_(values.down)
            own.up.copy_(values.up)

    @contextmanager
    def off(self) -> Iterator[None]:
        """Switch to the base policy, bit-identical to the untouched network, until the context ends."""
        with self._switched("off", self._strength):
            yield

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Switch to the frozen reference adapter until the context ends; to the base policy if there is none."""
        with self._switched("reference", self._strength):
            yield

    @contextmanager
    def scale(self, strength: float) -> Iterator[None]:
        """Scale the trained adapter until the context ends; 1 is as trained. The reference keeps strength 1."""
        with self._switched(self._mode, strength):
            yield

    @contextmanager
    def _switched(self, mode: Mode, strength: float) -> Iterator[None]:
        before = self._mode, self._strength
        self._mode, self._strength = mode, strength
        self._apply()
        try:
            yield
        finally:
            self._mode, self._strength = before
            self._apply()

    def remove(self) -> None:
        """Detach without a trace: no hooks, no changed modules, names or `requires_grad`."""
        self._detach()
        self._module.requires_grad_(False)
        for parameter in self._thawed:
            with torch.inference_mode(parameter.is_inference()):  # inference tensors refuse it outside
                parameter.requires_grad_(True)

    @abstractmethod
    def _apply(self) -> None:
        """Switch the network's layers to `_mode` and `_strength`."""

    @abstractmethod
    def _detach(self) -> None:
        """Give the network its own layers back."""
