"""How many rows to evaluate at once: what fits, and what is quick."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..denoiser import Denoiser
from .groups import Rows
from .passes import Room, row_log_ratios

SHARE = 0.5
"""Of the free memory, what activations may take."""
PROCESSOR_BYTES = 2**29
"""Activations that a processor has at once, where it has the choice: larger batches gain it nothing, and moving their
memory costs."""


def activation_bytes(denoiser: Denoiser, rows: Rows) -> int:
    """Bytes that autograd keeps for one row's backward pass, parameters left out: counted, not guessed."""
    kept: dict[int, int] = {}
    parameters = {p.untyped_storage().data_ptr() for p in denoiser.module.parameters()}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # an operation that kept its own result would hold itself, and its memory, for ever

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        ratios = row_log_ratios(denoiser, rows[slice(0, 1)])
    del ratios
    return sum(kept.values())


def free_bytes(device: torch.device) -> int:
    """Memory that can still be taken on a device."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    import psutil  # every host has it; the standalone extra lists it

    return psutil.virtual_memory().available


def room_for(denoiser: Denoiser, rows: Rows, most: int = 0) -> Room:
    """Room on the denoiser's device.

    Args:
        denoiser: the policy.
        rows: at least one, of the kind to be evaluated.
        most: given by the user; 0 finds it by the free memory.
    """
    if most and denoiser.device.type != "cpu":
        return Room(most, most)
    each = max(1, activation_bytes(denoiser, rows))
    most = most or max(1, int(SHARE * free_bytes(denoiser.device) / each))
    quick = max(1, PROCESSOR_BYTES // each) if denoiser.device.type == "cpu" else most
    return Room(most, min(most, quick))


@contextmanager
def checkpointing(module: Any, on: bool) -> Iterator[None]:
    """Gradient checkpointing by the module's own switch, if it has one (diffusers); hosts bring their own."""
    switch = on and hasattr(module, "enable_gradient_checkpointing") and not module.is_gradient_checkpointing
    if switch:
        module.enable_gradient_checkpointing()
    try:
        yield
    finally:
        if switch:
            module.disable_gradient_checkpointing()
