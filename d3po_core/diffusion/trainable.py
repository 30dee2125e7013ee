"""Weights that autograd may look at, in networks that a host made for inference only (ComfyUI, the Forge family)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

PLAIN = (Tensor, torch.nn.Parameter)


@contextmanager
def trainable_tensors(modules: Iterable[torch.nn.Module]) -> Iterator[None]:
    """For a while, let gradients pass through networks that the host has loaded.

    The host makes its weights in inference mode, and such tensors can take no part in gradients. Each is replaced by an
    ordinary tensor on the same storage, which takes no memory and asks for no gradient; then every one is put back.
    Nothing may be loaded, moved or patched meanwhile.
    """
    before: list[tuple[dict[str, Any], str, Any]] = []
    try:
        for module in {id(each): each for root in modules for each in root.modules()}.values():
            for store in (module._parameters, module._buffers):
                for name, value in store.items():
                    if value is not None and (value.is_inference() or value.requires_grad):
                        before.append((store, name, value))
                        store[name] = _alias(value)
            for store in _bypassing(module):
                before.append((store, "weights", store["weights"]))
                store["weights"] = _each(store["weights"])
        yield
    finally:
        for store, name, value in reversed(before):
            store[name] = value


def _bypassing(module: torch.nn.Module) -> Iterator[dict[str, Any]]:
    """What the host's bypassing LoRA loaders have put around a layer: they replace its `forward`, one after the
    other."""
    around: Any = getattr(module.__dict__.get("forward"), "__self__", None)
    while hasattr(around, "original_forward"):
        if "weights" in vars(around.adapter):
            yield vars(around.adapter)
        around = getattr(around.original_forward, "__self__", None)


def _each(weights: Any) -> Any:
    if isinstance(weights, list | tuple):
        return type(weights)(_each(each) for each in weights)
    return _same_storage(weights) if isinstance(weights, Tensor) else weights


def _alias(value: Any) -> Any:
    if isinstance(value, torch.nn.Parameter):
        return torch.nn.Parameter(_same_storage(value), requires_grad=False)
    return _same_storage(value)


def _same_storage(value: Any) -> Any:
    """An ordinary tensor on another's storage. Of one that wraps others (the host's quantized weights) these are
    replaced; a class of its own making (GGUF's) is left alone: its layers hand out ordinary tensors."""
    if type(value) in PLAIN:
        other = torch.empty(0, dtype=value.dtype, device=value.device)
        return other.set_(value.untyped_storage(), value.storage_offset(), value.shape, value.stride())
    if hasattr(value, "__tensor_flatten__"):
        names, about = value.__tensor_flatten__()
        inner = {name: _same_storage(getattr(value, name)) for name in names}
        return type(value).__tensor_unflatten__(inner, about, value.shape, value.stride())
    return value
