"""LoRA by forward hooks, for networks that a host owns, moves between devices and stores in its own dtypes.

No parameter or submodule is added to the host's modules and none of their weights is changed or read, so fp8 storage,
offloading and the host's own patches keep working. A hook computes in float32, or in autocast's dtype under autocast,
and returns the layer's own dtype. Neither peft nor diffusers is needed.

Inputs of norms are protected against the host's in-place operations, because that is where hosts use them; other
in-place operations on tensors that the backward pass needs are not handled.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from .targets import Layer, layers
from .weights import LayerWeights, Lora, LoraWeights


class HookLora(Lora):
    """See `Lora`. Parameters are made on the device of the layer's weight; each use moves them to the input's."""

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
            norm.register_forward_pre_hook(_copy_input)
            for norm in module.modules()
            if hasattr(norm, "normalized_shape")
        ]

    def _hook(self, path: str, layer: Layer) -> Callable[..., Tensor | None]:
        def add(_module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
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


def _copy_input(_norm: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
    """Copy the tokens (B, T, C) that a norm keeps for the backward pass.

    Hosts write their networks for inference: Flux's blocks later add to those tokens in place. Autograd refuses that,
    and under gradient checkpointing would silently use the changed values. Queries and keys of heads (4-d) are not
    copied.
    """
    x = args[0]
    return (x.clone(), *args[1:]) if x.dim() == 3 and x.requires_grad and torch.is_grad_enabled() else None


def _placed(weights: LayerWeights, layer: Layer, trainable: bool) -> LayerWeights:
    """Make float32 parameters on the device of the layer's weight; on the CPU if it has no weight yet."""
    device = getattr(layer.weight, "device", torch.device("cpu"))
    if device.type == "meta":
        device = torch.device("cpu")
    down, up = (
        nn.Parameter(value.detach().to(device, torch.float32, copy=True), requires_grad=trainable)
        for value in (weights.down, weights.up)
    )
    return LayerWeights(down, up, weights.alpha)


def _low_rank(x: Tensor, weights: LayerWeights, layer: Layer) -> Tensor:
    """Compute up(down(x)), unscaled."""
    down, up = weights.down.to(x.device), weights.up.to(x.device)
    x = x.to(down.dtype)
    if down.dim() == 2:
        return F.linear(F.linear(x, down), up)
    return F.conv2d(F.conv2d(x, down, None, layer.stride, layer.padding, layer.dilation), up)
