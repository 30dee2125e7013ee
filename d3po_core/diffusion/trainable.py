"""Gradients through networks whose weights a host made for inference only (ComfyUI, the Forge family)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

PLAIN = (Tensor, torch.nn.Parameter)
"""Classes of ordinary tensors, which have storage of their own."""
ROTARY = [
    f"{what}{layout}{one}" for what in ("apply_rope", "rms_rope") for layout in ("", "_split_half") for one in ("", "1")
]
"""Kernels of comfy_kitchen without a gradient: rotary embedding of queries and keys, with or without the norm before.
Most of ComfyUI's networks leave them out in training by themselves, but not Cosmos-Predict2's, Anima's, JoyImage's and
Ernie's, and none of Forge Neo's."""
OF_HOSTS = ("comfy", "backend")
"""How names of modules begin in which hosts have their networks, and comfy_kitchen's."""
TensorStore = dict[str, Any]
"""Where a module or one of the host's objects keeps its tensors, by name."""


@contextmanager
def trainable_tensors(modules: Iterable[torch.nn.Module]) -> Iterator[None]:
    """Let gradients flow through networks that the host has loaded, until the context ends.

    The host makes its weights in inference mode, and autograd refuses such tensors. Each is replaced by an ordinary
    tensor on the same storage, which takes no memory and requires no gradient; afterwards every one is put back.
    Nothing may be loaded, moved or patched meanwhile.
    """
    every = list({id(each): each for root in modules for each in root.modules()}.values())
    adapters = [(store, store["weights"]) for module in every for store in _bypass_adapters(module)]
    try:
        for store, weights in adapters:
            store["weights"] = _alias_nested(weights)
        with replaced_tensors(every, _frozen_alias):
            yield
    finally:
        for store, weights in adapters:
            store["weights"] = weights


@contextmanager
def replaced_tensors(
    modules: Iterable[torch.nn.Module], replacement: Callable[[Tensor], Tensor | None]
) -> Iterator[None]:
    """Replace parameters and buffers of these modules until the context ends; those for which it is None stay."""
    before: list[tuple[TensorStore, str, Tensor]] = []
    try:
        for module in modules:
            stores: tuple[TensorStore, ...] = (module._parameters, module._buffers)
            for store in stores:
                for name, value in store.items():
                    if value is not None and (new := replacement(value)) is not None:
                        before.append((store, name, value))
                        store[name] = new
        yield
    finally:
        for store, name, value in before:
            store[name] = value


@contextmanager
def plain_kernels() -> Iterator[None]:
    """Let plain torch functions of comfy_kitchen's own compute what hosts fuse by it, until the context ends.

    Modules of the host's that have imported the kernels by name get them, too. Hosts without the package stay as they
    are.
    """
    if "comfy_kitchen" not in sys.modules:
        yield
        return
    import comfy_kitchen
    from comfy_kitchen.backends.eager import rope

    fused = {
        name: getattr(comfy_kitchen, name) for name in ROTARY if hasattr(comfy_kitchen, name) and hasattr(rope, name)
    }
    spaces = [vars(module) for name, module in list(sys.modules.items()) if name.startswith(OF_HOSTS)]
    places = [(space, name) for space in spaces for name, kernel in fused.items() if space.get(name) is kernel]
    try:
        for space, name in places:
            space[name] = getattr(rope, name)
        yield
    finally:
        for space, name in places:
            space[name] = fused[name]


def _bypass_adapters(module: torch.nn.Module) -> Iterator[TensorStore]:
    """Yield the attributes of the adapters that the host's bypassing LoRA loaders have put around a layer.

    Such adapters replace the layer's `forward`, one around the other.
    """
    wrapper: Any = getattr(module.__dict__.get("forward"), "__self__", None)
    while hasattr(wrapper, "original_forward"):
        if "weights" in vars(wrapper.adapter):
            yield vars(wrapper.adapter)
        wrapper = getattr(wrapper.original_forward, "__self__", None)


def _alias_nested(weights: object) -> object:
    """Alias every tensor in nested lists and tuples; other values stay."""
    if isinstance(weights, list | tuple):
        return type(weights)(_alias_nested(each) for each in weights)
    return _same_storage(weights) if isinstance(weights, Tensor) else weights


def _frozen_alias(value: Tensor) -> Tensor | None:
    if not (value.is_inference() or value.requires_grad):
        return None
    if isinstance(value, torch.nn.Parameter):
        return torch.nn.Parameter(_same_storage(value), requires_grad=False)
    return _same_storage(value)


def _same_storage(value: Tensor) -> Tensor:
    """Make an ordinary tensor on the storage of another.

    Of a tensor that wraps others (the host's quantized weights) the inner ones are replaced. A tensor class of the
    host's own without them (GGUF's) is left alone: its layers produce ordinary tensors.
    """
    if type(value) in PLAIN:
        alias = torch.empty(0, dtype=value.dtype, device=value.device)
        return alias.set_(value.untyped_storage(), value.storage_offset(), value.shape, value.stride())
    if hasattr(value, "__tensor_flatten__"):
        names, context = value.__tensor_flatten__()
        inner = {name: _same_storage(getattr(value, name)) for name in names}
        wrapper: Any = type(value)
        return wrapper.__tensor_unflatten__(inner, context, value.shape, value.stride())
    return value
