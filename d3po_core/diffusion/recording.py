"""Recorded trajectories as the tensors that a run stores, and back."""

from __future__ import annotations

import torch
from torch import Tensor

from .rollout import SamplingPlan, Trajectory
from .steps import LinearSteps

STORE_DTYPE = torch.float16
"""Of stored latents and predictions."""
RECORDED = ("x", "cond", "guided", "latents")


def to_tensors(trajectory: Trajectory, part: slice, plan: SamplingPlan) -> dict[str, Tensor]:
    """Pack one group's share of a trajectory for storage.

    Args:
        trajectory: of B images.
        part: the group's C images among them.
        plan: the plan that drew them, with K trained steps.

    Returns:
        "x" (C, K + 1, ...), "cond" and "guided" (C, K, ...) and "latents" (C, ...) in STORE_DTYPE, and "steps" (5, K),
        float64: the fields of `LinearSteps` in order.
    """
    steps = plan.steps[: plan.trained]
    numbers = torch.stack([steps.sigma, steps.sigma_next, steps.x_coef, steps.denoised_coef, steps.std])
    tensors = {name: getattr(trajectory, name)[part].to(STORE_DTYPE) for name in RECORDED}
    return {**tensors, "steps": numbers}


def from_tensors(tensors: dict[str, Tensor]) -> tuple[Trajectory, LinearSteps]:
    """Unpack a stored group: its trajectory in float32, and its K trained steps.

    Args:
        tensors: from `to_tensors`; of imported images "latents" alone, which gives K = 0 steps.
    """
    latents = tensors["latents"].float()
    no_steps = latents[:, None][:, :0]
    x, cond, guided = (tensors[name].float() if name in tensors else no_steps for name in ("x", "cond", "guided"))
    steps = LinearSteps(*tensors.get("steps", torch.zeros(5, 0)).double())
    return Trajectory(x, cond, guided, latents), steps
