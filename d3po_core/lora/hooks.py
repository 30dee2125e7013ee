"""LoRA by forward hooks, for networks that a host owns, moves between devices and keeps in dtypes of its own.

Nothing is registered in the host's modules and no weight of theirs is touched or read, so fp8 storage, offloading and
the host's own patches keep working. A hook computes in float32, or in autocast's dtype where autocast is on, and hands
back the layer's own dtype. Neither peft nor diffusers is needed.

Left out: every other operation in place that a host might do on what backward needs. Norms are where they do it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from .interface import Lora
from .targets import layers
from .weights import LayerWeights, LoraWeights


class HookLora(Lora):
    """See `Lora`. The parameters live where the layer's weight was; each use moves them to the input's device."""

    def __init__(self, module: nn.Module, weights: LoraWeights, reference: LoraWeights) -> None:
        super().__init__(module)
        module.requires_grad_(False)
        known = layers(module)
        self._trained = {path: _placed(w, known[path], True) for path, w in weights.items()}
        self._reference = {path: _placed(w, known[path], False) for path, w in reference.items()}
        self._active: LoraWeights = self._trained
        self._handles: list[RemovableHandle] = [
            module.get_submodule(path).register_forward_hook(self._hook(path, known[path]))
            for path in known
            if path in weights or path in reference
        ] + [
            norm.register_forward_pre_hook(_own_input) for norm in module.modules() if hasattr(norm, "normalized_shape")
        ]

    def _hook(self, path: str, layer: Any) -> Callable[..., Tensor | None]:
        def add(_module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
            weights = self._active.get(path)
            if weights is None:
                return None
            scale = weights.alpha / weights.rank * (self._strength if self._mode == "policy" else 1.0)
            return (output + _low_rank(args[0], weights, layer) * scale).to(output.dtype)

        return add

    def _apply(self) -> None:
        self._active = {"policy": self._trained, "reference": self._reference, "off": {}}[self._mode]

    def _detach(self) -> None:
        for handle in self._handles:
            handle.remove()


def _own_input(_norm: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """A copy of the tokens that a norm is given, where it keeps them for backward.

    Hosts write their networks for inference: Flux's blocks go on to add to those tokens in place, which autograd
    refuses, or under gradient checkpointing takes for what they were. A head's queries and keys are left as they are.
    """
    x = args[0]
    return (x.clone(), *args[1:]) if x.dim() == 3 and x.requires_grad and torch.is_grad_enabled() else None


def _placed(weights: LayerWeights, layer: Any, trainable: bool) -> LayerWeights:
    """Parameters in float32 on the device of the layer's weight, if it has any yet."""
    device = getattr(layer.weight, "device", torch.device("cpu"))
    if device.type == "meta":
        device = torch.device("cpu")
    down, up = (
        nn.Parameter(value.detach().to(device, torch.float32, copy=True), requires_grad=trainable)
        for value in (weights.down, weights.up)
    )
    return LayerWeights(down, up, weights.alpha)


def _low_rank(x: Tensor, weights: LayerWeights, layer: Any) -> Tensor:
    """up(down(x)), not yet scaled."""
    down, up = weights.down.to(x.device), weights.up.to(x.device)
    x = x.to(down.dtype)
    if down.dim() == 2:
        return F.linear(F.linear(x, down), up)
    return F.conv2d(F.conv2d(x, down, None, layer.stride, layer.padding, layer.dilation), up)
