"""Sampling groups of candidates while recording everything that training needs.

A group is drawn for one prompt. Its candidates start from related noises (or, as a setting, from the same one, or each
from its own) and differ by the noise injected in the window too. Each candidate has its own generator, so it can be
drawn again alone.

Beside that: which candidates of a group a person could not tell apart, and trajectories as the tensors that a run
stores.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import D3POError
from ..settings import SampleSettings
from .denoiser import Conditioning, Denoiser, denoise, starting_latents
from .steps import LinearSteps, early_window, first_window, make_steps, take_step


@dataclass(frozen=True)
class SamplingPlan:
    """A sampler's steps. The first `trained` of them carry noise, are recorded and can be trained."""

    steps: LinearSteps
    trained: int


@dataclass(frozen=True)
class Trajectory:
    """B sampled images with a record of their K trained steps.

    Attributes:
        x: latents before each trained step, and after the last, (B, K + 1, ...).
        cond, guided: the sampling policy's denoised predictions, (B, K, ...).
        latents: the finished latents, (B, ...).
    """

    x: Tensor
    cond: Tensor
    guided: Tensor
    latents: Tensor


def make_plan(denoiser: Denoiser, settings: SampleSettings) -> SamplingPlan:
    """Compute the steps for a model and how many of them are trained.

    Raises:
        D3POError: the sampler does not fit the model, or no step of the window carries noise.
    """
    sigmas = denoiser.sigmas(settings.steps, settings.schedule)
    if settings.window == "early":
        window = early_window(sigmas, denoiser.family, settings.window_sigma)
    else:
        window = first_window(sigmas, 1.0 if settings.window == "all" else settings.window_fraction)
    noisy = window if settings.noise == "window" else torch.ones_like(window)
    steps = make_steps(settings.sampler, denoiser.family, sigmas, settings.eta * noisy.double())
    trained = int((window & (steps.std > 0)).long().cumprod(0).sum())
    if trained == 0:
        raise D3POError("No step of this schedule carries noise, so there is nothing to train.", "Use 2 steps or more.")
    return SamplingPlan(steps, trained)


def generator(*parts: int | str) -> torch.Generator:
    """Seed a CPU generator by a path such as (run seed, group number, candidate)."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


class CandidateNoise:
    """The noise of one candidate: its start, then one draw per step; the same on every device and in every batch.

    Args:
        seed: of the run.
        number: of the group.
        candidate: its number in the group.
        shape: of the latents, without batch.
        start: "same" for the start that all candidates of the group share, "independent" for its own, "related" for
            one of which the group shares half of the variance.
    """

    def __init__(self, seed: int, number: int, candidate: int, shape: tuple[int, ...], start: str) -> None:
        self._shape, self._kind = shape, start
        self._steps = generator(seed, number, candidate)
        self._shared = generator(seed, number, "start")

    def start(self) -> Tensor:
        """Draw unit noise to start from, on the CPU."""
        if self._kind == "same":
            return torch.randn(self._shape, generator=self._shared)
        own = self.step()
        if self._kind == "related":
            return (torch.randn(self._shape, generator=self._shared) + own) / math.sqrt(2)
        return own

    def step(self) -> Tensor:
        """Draw unit noise of the next step, on the CPU."""
        return torch.randn(self._shape, generator=self._steps)


@torch.no_grad()
def sample(
    denoiser: Denoiser,
    plan: SamplingPlan,
    noises: Sequence[CandidateNoise],
    conditioning: Conditioning,
    guidance_scale: float,
) -> Trajectory:
    """Draw one image per noise, all in one batch, and record the trained steps.

    Args:
        denoiser: the sampling policy, including the active LoRA.
        plan: steps and window.
        noises: B sources of noise.
        conditioning: B rows.
        guidance_scale: classifier-free guidance.

    Returns:
        The trajectory, float32 on the denoiser's device.
    """
    device, steps = denoiser.device, plan.steps
    start = torch.stack([noise.start() for noise in noises]).to(device)
    x = starting_latents(denoiser, start, float(steps.sigma[0]))

    def step_noise() -> Tensor:
        return torch.stack([noise.step() for noise in noises]).to(device)

    xs, cond, guided = [x], [], []
    for i in range(len(steps)):
        sigma = torch.full((len(noises),), float(steps.sigma[i]), dtype=torch.float64)
        prediction = denoise(denoiser, x, sigma, conditioning, guidance_scale)
        x = take_step(steps, i, x, prediction.guided, step_noise)
        if i < plan.trained:
            xs.append(x)
            cond.append(prediction.cond)
            guided.append(prediction.guided)
    return Trajectory(torch.stack(xs, 1), torch.stack(cond, 1), torch.stack(guided, 1), x)


DUPLICATE_DISTANCE = 0.1
"""Root mean square difference of final latents, in their standard deviations, below which two images look the same.

Measured on the embedded model with pairs that share their start, at eta from 0.01 to 1 (benchmarks/near.py): below 0.1
the decoded images differ by 0.2 to 3.2 of 255 (root mean square), at eta 1 by 18 to 38.
"""


def distances(latents: Tensor) -> Tensor:
    """Compute root mean square differences (B, B) of latents (B, C, ...), in units of their standard deviation."""
    flat = latents.float().flatten(1)
    return torch.cdist(flat, flat) / flat.shape[1] ** 0.5 / flat.std()


def duplicates(latents: Tensor) -> list[int]:
    """Find the candidates that look like an earlier one.

    Args:
        latents: final latents (C, ...) of one group.

    Returns:
        Their numbers, ascending.
    """
    distance = distances(latents)
    kept: list[int] = []
    for candidate in range(len(latents)):
        if all(distance[candidate, other] >= DUPLICATE_DISTANCE for other in kept):
            kept.append(candidate)
    return [candidate for candidate in range(len(latents)) if candidate not in kept]


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
    numbers = torch.stack(list(vars(steps).values()))
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
