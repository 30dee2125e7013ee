"""Memory presets: what fits on graphics cards of usual sizes, chosen by the size of the one that is there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from ...d3po_core.settings import SampleSettings
from .process import total_memory

AUTO = "auto"


@dataclass(frozen=True)
class Preset:
    """What is done to fit.

    Attributes:
        batch: images drawn at once, at most.
        checkpointing: activations are computed again in the backward pass.
        micro_batch: rows for each backward pass; 0 as many as fit.
        trade: what it costs, in words.
    """

    batch: int
    checkpointing: bool
    micro_batch: int
    trade: str

    def images(self, candidates: int, wanted: int | None) -> int:
        """Images to draw at once, unless somebody chose otherwise: one group, so that it is seen before the next."""
        return min(self.batch, candidates) if wanted in (None, SampleSettings().batch) else int(wanted)

    def training(self, values: dict[str, Any]) -> dict[str, Any]:
        """A trainer's settings with what the preset asks for, where they were left as they are by default."""
        return {
            **values,
            "checkpointing": values.get("checkpointing") or self.checkpointing,
            "micro_batch": values.get("micro_batch") or self.micro_batch,
        }


PRESETS = {
    "8 GB": Preset(2, True, 1, "one image at a time, activations computed twice: the slowest"),
    "12 GB": Preset(4, True, 0, "activations computed twice: slower"),
    "24 GB": Preset(8, False, 0, "nothing is traded"),
}
SMALLEST = {"24 GB": 20.0, "12 GB": 10.5, "8 GB": 0.0}
"""From how many GiB a preset is chosen."""


def preset_name(patcher: Any, wanted: str = AUTO) -> str:
    """Which preset: the one that is wanted or, for "auto", by the memory of the device that a MODEL runs on."""
    if wanted != AUTO:
        return wanted
    total = total_memory(patcher.load_device) / 2**30
    return next(name for name, least in SMALLEST.items() if total >= least)


def preset_for(patcher: Any, wanted: str = AUTO) -> Preset:
    """See `preset_name`."""
    return PRESETS[preset_name(patcher, wanted)]


@contextmanager
def checkpointed(module: torch.nn.Module, on: bool) -> Iterator[None]:
    """Gradient checkpointing of a host's network, block by block, as the host's own trainer does it."""
    from comfy_extras.nodes_train import find_modules_at_depth

    with computed_twice(find_modules_at_depth(module, depth=2) if on else []):
        yield


def smallest_blocks(module: torch.nn.Module) -> list[torch.nn.Module]:
    """The innermost parts of a network that are more than one layer. Of a VAE these are its residual blocks, attention
    and resizing; one of them at full size is the most that must be in memory, and the picture stays the same, which it
    would not if the VAE were cut into tiles."""
    return [
        part
        for part in module.modules()
        if type(part).forward is not torch.nn.Module.forward
        and (children := list(part.children()))
        and not any(True for child in children for _ in child.children())
    ]


@contextmanager
def computed_twice(blocks: Sequence[torch.nn.Module]) -> Iterator[None]:
    """For a while, nothing is kept inside of these blocks: they are computed again in the backward pass."""
    from comfy_extras.nodes_train import patch, unpatch

    try:
        for block in blocks:
            block.forward = _on_copies(block.forward)
            patch(block)
        yield
    finally:
        for block in blocks:
            unpatch(block)
            del block.forward  # which uncovers the class's own


def _on_copies(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Flux's blocks add to what they are given in place; computed again, they would begin where they ended."""

    def copied(value: Any) -> Any:
        return value.clone() if isinstance(value, torch.Tensor) and value.is_floating_point() else value

    def call(*args: Any, **kwargs: Any) -> Any:
        return forward(*map(copied, args), **{name: copied(value) for name, value in kwargs.items()})

    return call
