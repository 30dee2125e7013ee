"""An anchor for the steps that are not trained.

The loss sees the window alone, yet the LoRA acts in every step. What it does to the late ones is a side effect that
nobody asked for: colours and shapes that the prompt named get lost. So clean latents are noised anew to levels below
the window, and the change of the network's output there is penalised.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from ..denoiser import Denoiser, stack
from ..logratio import per_row
from .groups import TrainingGroup

LOWEST = 0.05
"""Noise-to-signal ratio below which a change would not be seen."""


def backward(
    denoiser: Denoiser,
    base: Callable[[], AbstractContextManager[None]],
    groups: Sequence[TrainingGroup],
    weight: float,
    micro_batch: int,
    chance: torch.Generator,
) -> None:
    """Accumulate the gradient of weight * mean |(D_theta - D_base) / sigma|^2, a mean over images and elements.

    (D_theta - D_base) / sigma is the change of the predicted noise (diffusion) or velocity (flow).

    Args:
        denoiser: the policy.
        base: context manager in which it is the base model.
        groups: whose finished latents are noised anew, each to a level of its own, log-uniform below its window.
        weight: of the penalty.
        micro_batch: images per backward pass.
        chance: draws levels and noise, on the CPU.
    """
    device, flow = denoiser.device, denoiser.family == "flow"
    clean = torch.cat([group.latents for group in groups])
    top = torch.cat([_ratio(group.steps.sigma_next[-1:], flow).expand(group.shape[0]) for group in groups])
    ratio = (torch.rand(len(clean), generator=chance) * (top / LOWEST).log().clamp(min=0) + math.log(LOWEST)).exp()
    sigma = ratio / (1 + ratio) if flow else ratio
    noise = torch.randn(clean.shape, generator=chance)
    noisy = (1 - per_row(sigma, clean) if flow else 1.0) * clean + per_row(sigma, clean) * noise
    conditioning = stack(
        [{name: v.expand(g.shape[0], *v.shape[1:]) for name, v in g.conditioning.items()} for g in groups]
    )
    for at in range(0, len(clean), micro_batch):
        part = slice(at, at + micro_batch)
        x, level = noisy[part].to(device), sigma[part].to(device)
        prompt = {name: value[part].to(device) for name, value in conditioning.items()}
        with torch.no_grad(), base():
            reference = denoiser(x, level, prompt, 1.0).cond
        change = (denoiser(x, level, prompt, 1.0).cond - reference) / per_row(level, x)
        (weight * change.square().flatten(1).mean(1).sum() / len(clean)).backward()


def _ratio(sigma: Tensor, flow: bool) -> Tensor:
    return sigma / (1 - sigma) if flow else sigma
