"""Memory presets: what fits on graphics cards of usual sizes, chosen by the size of the one that is there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch

from ...d3po_core.settings import SampleSettings
from .process import total_memory
from .types import Patcher, Widgets

AUTO = "auto"
T = TypeVar("T")


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

    def images(self, candidates: int, chosen: int | None) -> int:
        """Return how many images to draw at once: one group, so that it is seen before the next.

        Args:
            candidates: images of a group.
            chosen: the widget's value, which wins where it is not the default.
        """
        return min(self.batch, candidates) if chosen in (None, SampleSettings().batch) else int(chosen)

    def training(self, values: Mapping[str, object]) -> Widgets:
        """Return a trainer's settings with what the preset asks for, where they were left as they are by default."""
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
MIN_GIB = {"24 GB": 20.0, "12 GB": 10.5, "8 GB": 0.0}
"""From how many GiB a preset is chosen."""


def preset_for(patcher: Patcher, name: str = AUTO) -> Preset:
    """Return a preset by its name or, for "auto", by the memory of the device that a MODEL runs on."""
    if name != AUTO:
        return PRESETS[name]
    total = total_memory(patcher.load_device) / 2**30
    return next(PRESETS[name] for name, least in MIN_GIB.items() if total >= least)


def large_blocks(module: torch.nn.Module) -> list[torch.nn.Module]:
    """Return the blocks of a network that the host's own trainer recomputes."""
    from comfy_extras.nodes_train import find_modules_at_depth

    return list(find_modules_at_depth(module, depth=2))


def smallest_blocks(module: torch.nn.Module) -> list[torch.nn.Module]:
    """Return the innermost parts of a network that are more than one layer.

    Of a VAE these are its residual blocks, attention and resizing. One of them at full size is the most that must be in
    memory, and the image stays the same, which it would not if the VAE decoded in tiles.
    """
    return [
        part
        for part in module.modules()
        if type(part).forward is not torch.nn.Module.forward
        and (children := list(part.children()))
        and not any(True for child in children for _ in child.children())
    ]


@contextmanager
def checkpointed(blocks: Sequence[torch.nn.Module]) -> Iterator[None]:
    """Keep no activations inside of these blocks for a while: they are computed again in the backward pass."""
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


def _on_copies(forward: Callable[..., T]) -> Callable[..., T]:
    """Return the same function on copies of its tensors: Flux's blocks add to theirs in place, and computed again they
    would begin where they ended."""

    def copied(value: object) -> object:
        return value.clone() if isinstance(value, torch.Tensor) and value.is_floating_point() else value

    def call(*args: object, **kwargs: object) -> T:
        return forward(*map(copied, args), **{name: copied(value) for name, value in kwargs.items()})

    return call
