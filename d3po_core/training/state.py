"""A trainer's state as tensors: LoRA parameters and AdamW's moments, so that a killed round goes on where it was."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

MOMENTS = ("exp_avg", "exp_avg_sq", "step")


def pack_optimizer(optimizer: torch.optim.Optimizer, parameters: Sequence[torch.nn.Parameter]) -> dict[str, Tensor]:
    """Parameters and moments by number; before the first step there are no moments."""
    tensors = {f"{i}.parameter": p.detach().clone() for i, p in enumerate(parameters)}
    for i, parameter in enumerate(parameters):
        for name in MOMENTS:
            if name in optimizer.state[parameter]:
                tensors[f"{i}.{name}"] = optimizer.state[parameter][name].clone()
    return tensors


@torch.no_grad()
def unpack_parameters(tensors: dict[str, Tensor], parameters: Sequence[torch.nn.Parameter]) -> None:
    """The parameters alone, in place."""
    for i, parameter in enumerate(parameters):
        parameter.copy_(tensors[f"{i}.parameter"])


def unpack_optimizer(
    tensors: dict[str, Tensor], optimizer: torch.optim.Optimizer, parameters: Sequence[torch.nn.Parameter]
) -> None:
    """The inverse of `pack_optimizer`, in place."""
    unpack_parameters(tensors, parameters)
    for i, parameter in enumerate(parameters):
        moments = {name: tensors[f"{i}.{name}"] for name in MOMENTS if f"{i}.{name}" in tensors}
        if moments:
            step = moments.pop("step")
            optimizer.state[parameter] = {"step": step, **{n: m.to(parameter.device) for n, m in moments.items()}}
