"""The interface of an attached LoRA, for both attachments: PEFT, and forward hooks on modules that a host owns.

Both compute the same numbers from the same initial values, with parameters in the same order. While a LoRA is attached
the network's own parameters are frozen; `remove` undoes everything.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import nn

from ..errors import D3POError
from .weights import LayerWeights, LoraWeights, rescaled

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
