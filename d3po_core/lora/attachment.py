"""A LoRA attached to a network: by PEFT (peft.py), or by forward hooks, for networks that a host owns.

A host moves its networks between devices and stores them in its own dtypes. So with hooks no parameter or submodule is
added to its modules and none of their weights is changed or read: fp8 storage, offloading and the host's own patches
keep working. A hook computes in float32, or in autocast's dtype under autocast, and returns the layer's own dtype.
Neither peft nor diffusers is needed. Inputs of norms are protected against the host's in-place operations, because that
is where hosts use them; other in-place operations on tensors that the backward pass needs are not handled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from ..diffusion.denoiser import Denoiser
from ..errors import D3POError
from ..settings import LoraSettings, validate
from .file import import_lora
from .targets import Layer, fitted, initial_weights, layers
from .weights import LayerWeights, Lora, LoraWeights


def attach(
    module: nn.Module,
    settings: LoraSettings,
    *,
    kind: str = "peft",
    start: LoraWeights | None = None,
    reference: LoraWeights | None = None,
    seed: int = 0,
) -> Lora:
    """Attach a trainable LoRA to a network.

    Args:
        module: UNet or transformer, with diffusers' or with original (ldm) names.
        settings: rank, alpha, targets.
        kind: "peft" for diffusers modules, or "hooks" for modules that a host owns; hooks need neither peft nor
            diffusers.
        start: a LoRA to continue training. Its layers keep their rank and effect; targeted layers that it lacks start
            fresh.
        reference: a LoRA for `Lora.reference`, frozen.
        seed: of the fresh layers.

    Raises:
        D3POError: settings out of range, no layer matches, `start` or `reference` does not fit the network, or (peft)
            a LoRA is fused into the network, one is being trained there already, or peft is missing.
    """
    weights = initial_weights(module, validate(settings), start, seed)
    return _attach(module, kind, weights, fitted(reference or {}, module))


def _attach(module: nn.Module, kind: str, weights: LoraWeights, frozen: LoraWeights) -> Lora:
    """Attach weights that fit the network, on their own layers."""
    if kind == "hooks" or hasattr(module, "hf_device_map"):  # accelerate's hooks move a layer's input, not PEFT's
        return HookLora(module, weights, frozen)
    if kind == "peft":
        from .peft import PeftLora  # hosts need not have peft

        return PeftLora(module, weights, frozen)
    raise D3POError(f"'{kind}' is not a way to attach a LoRA.", "Use peft or hooks.")


@contextmanager
def applied(denoiser: Denoiser, lora: LoraWeights | Path | None, kind: str = "peft") -> Iterator[None]:
    """Apply a LoRA, or none, to the denoiser at strength 1 until the context ends; `kind` is as in `attach`.

    Raises:
        D3POError: the LoRA cannot be read, or does not fit the network.
    """
    weights = lora if lora is None or isinstance(lora, dict) else import_lora(lora, denoiser.module)
    if not weights:
        yield
        return
    attached = _attach(denoiser.module, kind, fitted(weights, denoiser.module), {})
    try:
        yield
    finally:
        attached.remove()


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
            return (output + _low_rank(args[0].to(output.device), weights, layer) * scale).to(output.dtype)

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
    """Make float32 parameters on the device of the layer's weight; on the CPU if it has no weight yet.

    Parameters without values (on the meta device) stay so.
    """
    device = getattr(layer.weight, "device", torch.device("cpu"))
    if device.type == "meta" and not weights.down.is_meta:
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
