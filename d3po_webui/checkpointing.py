"""Gradient checkpointing of a host's networks: less memory, one more forward pass (Chen et al., arXiv 1604.06174)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


@contextmanager
def checkpointed(layers: Iterable[nn.Module]) -> Iterator[None]:
    """For a while, let a network keep only what goes into these layers, and compute the rest again in the backward
    pass."""
    layers = list(layers)
    try:
        for layer in layers:
            layer.forward = _again(layer.forward)  # type: ignore[method-assign]
        yield
    finally:
        for layer in layers:
            del layer.forward  # which uncovers the class's own


def unet_layers(module: nn.Module) -> Iterator[nn.Module]:
    """Of `input_blocks`, `middle_block` and `output_blocks`: the Forge family calls them one by one, and A1111 block by
    block."""
    blocks: list[Any] = [*module.input_blocks, module.middle_block, *module.output_blocks]  # type: ignore[misc]
    for block in blocks:
        yield from block


def decoder_layers(decoder: nn.Module) -> Iterator[nn.Module]:
    """Of a VAE's decoder: blocks, attention and enlarging. Of a small one in another form (TAESD) none: it needs
    little."""
    for stage in [decoder.mid, *decoder.up] if hasattr(decoder, "mid") else []:  # type: ignore[misc]
        for part in stage.children():
            yield from part if isinstance(part, nn.ModuleList) else [part]


def _again(forward: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        return checkpoint(lambda: forward(*map(_copy, args), **kwargs), use_reentrant=False)

    return call


def _copy(value: Any) -> Any:
    """Layers may add to what they are given in place; computed again, they would begin where they ended."""
    return value.clone() if isinstance(value, torch.Tensor) and value.is_floating_point() else value
