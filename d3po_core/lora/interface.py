"""One LoRA interface for both attachments: PEFT on diffusers modules, forward hooks on modules that a host owns.

Both compute the same numbers, from the same start, in the same order of parameters. While a LoRA is attached the
network's own parameters are frozen; `remove` undoes everything.
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
    """A LoRA attached to a network: on, unless one of the context managers says otherwise.

    The context managers nest, the innermost deciding, and put back what was before them after an exception too.
    """

    _trained: LoraWeights
    """The trainable adapter; its tensors are the parameters themselves, float32."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._thawed = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self._mode: Mode = "policy"
        self._strength = 1.0

    def parameters(self) -> list[nn.Parameter]:
        """The trainable parameters, float32 whatever the network's dtype: down, up, layer by layer."""
        return [p for w in self._trained.values() for p in (w.down, w.up) if isinstance(p, nn.Parameter)]

    def weights(self) -> LoraWeights:
        """A copy of what was learnt, on the CPU."""
        return {
            path: LayerWeights(w.down.detach().to("cpu", copy=True), w.up.detach().to("cpu", copy=True), w.alpha)
            for path, w in self._trained.items()
        }

    @torch.no_grad()
    def load(self, weights: LoraWeights) -> None:
        """Take over values for every layer, in place.

        Raises:
            D3POError: the layers or their sizes differ from this LoRA's.
        """
        if weights.keys() != self._trained.keys():
            raise D3POError(f"The LoRA to load has {len(weights)} layers, not these {len(self._trained)}.")
        for path, own in self._trained.items():
            given = rescaled(weights[path], own.alpha)
            if given.down.shape != own.down.shape or given.up.shape != own.up.shape:
                raise D3POError(f"The LoRA to load has another size or rank in {path}.")
            own.down.copy_(given.down)
            own.up.copy_(given.up)

    @contextmanager
    def off(self) -> Iterator[None]:
        """The base policy: bit-identical to the untouched network."""
        with self._switched("off", self._strength):
            yield

    @contextmanager
    def reference(self) -> Iterator[None]:
        """The frozen second adapter instead of the trained one; the base policy if there is none."""
        with self._switched("reference", self._strength):
            yield

    @contextmanager
    def scale(self, strength: float) -> Iterator[None]:
        """The trained adapter at another strength; 1 is as trained. The reference keeps its own."""
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
            with torch.inference_mode(parameter.is_inference()):  # such tensors do not let it be done elsewhere
                parameter.requires_grad_(True)

    @abstractmethod
    def _apply(self) -> None:
        """Make the network what `_mode` and `_strength` say."""

    @abstractmethod
    def _detach(self) -> None:
        """Give the network its own layers back."""
