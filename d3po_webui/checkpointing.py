"""Gradient checkpointing of a host's networks: less memory, one more forward pass (Chen et al., arXiv 1604.06174)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar, cast

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

R = TypeVar("R")


@contextmanager
def checkpointed(layers: Iterable[nn.Module]) -> Iterator[None]:
    """Let a network keep only the inputs of these layers for the backward pass, which computes the rest again."""
    layers = list(layers)
    try:
        for layer in layers:
            layer.forward = _checkpointing(layer.forward)
        yield
    finally:
        for layer in layers:
            del layer.forward  # which uncovers the class's own


def unet_layers(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the layers of a UNet's blocks; the Forge family calls them one by one, and A1111 block by block."""
    inputs, outputs = (cast("nn.ModuleList", blocks) for blocks in (module.input_blocks, module.output_blocks))
    for block in (*inputs, cast("nn.Module", module.middle_block), *outputs):
        yield from cast("nn.Sequential", block)


def decoder_layers(decoder: nn.Module) -> Iterator[nn.Module]:
    """Yield the blocks, attention and upsampling of a VAE's decoder.

    A small one of another form (TAESD) has none to yield, and needs little memory.
    """
    for stage in [decoder.mid, *decoder.up] if hasattr(decoder, "mid") else []:  # type: ignore[misc]
        for part in stage.children():
            yield from part if isinstance(part, nn.ModuleList) else [part]


def _checkpointing(forward: Callable[..., R]) -> Callable[..., R]:
    def call(*args: object, **kwargs: object) -> R:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        return checkpoint(lambda: forward(*map(_copy, args), **kwargs), use_reentrant=False)

    return call


def _copy(value: object) -> object:
    """Copy a tensor: layers may change their inputs in place, and would begin with the changed ones the second time."""
    return value.clone() if isinstance(value, torch.Tensor) and value.is_floating_point() else value
