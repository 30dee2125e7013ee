"""Samplers as linear Gaussian steps in the model's own sigma space. Every sampler trained here has the form

    x_next = x_coef * x  +  denoised_coef * D(x, sigma)  +  std * eps,      eps ~ N(0, I),

where D is the denoised prediction. A sampler is therefore three numbers per step, and nothing else in the core knows
which sampler it was. The numbers are float64: they are few, and small differences between them matter.

Diffusion models use k-diffusion's space (x = x0 + sigma*n), where a variance-preserving DDIM step is the same step
times a constant. Multistep and second-order samplers are not of this form and are left out on purpose.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import D3POError


@dataclass(frozen=True)
class LinearSteps:
    """Noise levels of S steps and their three numbers, each float64 of shape (S,).

    Indexing by a tensor of B step numbers gives one step for each row of a batch: fields (B,). A step with std 0 is
    deterministic: it has no density and is never trained.
    """

    sigma: Tensor
    sigma_next: Tensor
    x_coef: Tensor
    denoised_coef: Tensor
    std: Tensor

    def __len__(self) -> int:
        return len(self.sigma)

    def __getitem__(self, index: int | slice | Tensor) -> LinearSteps:
        """Select steps: a slice, one for each row of a batch (a tensor of step numbers, (B,)), or one (fields ())."""
        return LinearSteps(*(numbers[index] for numbers in vars(self).values()))


def per_row(value: Tensor, like: Tensor) -> Tensor:
    """Reshape a number per row (B,), or one for all rows (), to multiply `like` (B, ...), in its dtype and device."""
    return value.to(like).reshape(-1, *[1] * (like.dim() - 1))


def step_mean(steps: LinearSteps, x: Tensor, denoised: Tensor) -> Tensor:
    """Return the mean of x_next, x_coef * x + denoised_coef * denoised, (B, ...).

    Args:
        steps: one step for each row, fields (B,), or one for all rows, fields ().
        x: latents before the step, (B, ...).
        denoised: the prediction D(x, sigma), (B, ...).
    """
    return per_row(steps.x_coef, x) * x + per_row(steps.denoised_coef, x) * denoised


def take_step(steps: LinearSteps, i: int, x: Tensor, denoised: Tensor, noise: Callable[[], Tensor]) -> Tensor:
    """Take step i: return x_next = x_coef * x + denoised_coef * denoised + std * noise, (B, ...).

    Args:
        steps: S steps.
        i: number of the step, from 0.
        x: latents before the step, (B, ...).
        denoised: the prediction D(x, sigma_i), (B, ...).
        noise: draws unit noise (B, ...) on x's device; not called where the step is deterministic (std = 0).
    """
    mean = step_mean(steps[i], x, denoised)
    return mean + float(steps.std[i]) * noise() if steps.std[i] > 0 else mean


def ancestral(sigmas: Tensor, eta: Tensor) -> LinearSteps:
    """Compute ancestral Euler steps: DDIM(eta) (Song et al. 2021, arXiv 2010.02502, eq. 16) without the VP rescale.

    Args:
        sigmas: noise levels, descending, (S + 1,).
        eta: share of the ancestral noise, (S,) in [0, 1]; 0 is the deterministic Euler (DDIM) step.
    """
    sigma, sigma_next = sigmas[:-1].double(), sigmas[1:].double()
    posterior = (sigma_next**2 * (sigma**2 - sigma_next**2) / sigma**2).clamp(min=0).sqrt()
    up = torch.minimum(sigma_next, eta.double() * posterior)
    down = (sigma_next**2 - up**2).clamp(min=0).sqrt()
    return LinearSteps(sigma, sigma_next, down / sigma, 1 - down / sigma, up)


def flow_ancestral(sigmas: Tensor, eta: Tensor) -> LinearSteps:
    """Compute ancestral Euler steps for rectified flow, as ComfyUI's `euler_ancestral` takes them.

    Step down to sigma_down = sigma' * (1 + (sigma'/sigma - 1) * eta), then renoise so that signal and noise fit sigma'
    again.

    Args:
        sigmas: noise levels in [0, 1], descending, (S + 1,).
        eta: share of noise, (S,), at least 0; 0 is the deterministic Euler step.
    """
    sigma, sigma_next = sigmas[:-1].double(), sigmas[1:].double()
    down = sigma_next * (1 + (sigma_next / sigma - 1) * eta.double())
    scale = (1 - sigma_next) / (1 - down)
    std = (sigma_next**2 - (down * scale) ** 2).clamp(min=0).sqrt()
    return LinearSteps(sigma, sigma_next, scale * down / sigma, scale * (1 - down / sigma), std)


def flow_sde(sigmas: Tensor, eta: Tensor) -> LinearSteps:
    """Compute Euler-Maruyama steps of the flow's SDE (Flow-GRPO, Liu et al. 2025, arXiv 2505.05470, eq. 9).

    Its diffusion coefficient is s = a * sqrt(sigma / (1 - sigma)); at sigma = 1, where that is singular, the next level
    replaces sigma inside s, as in the authors' code. The last step, to sigma 0, is taken without noise.

    Args:
        sigmas: noise levels in [0, 1], descending, (S + 1,).
        eta: the paper's noise level a, (S,), at least 0; 0 is the deterministic Euler step.
    """
    sigma, sigma_next = sigmas[:-1].double(), sigmas[1:].double()
    dt = sigma_next - sigma
    a = torch.where(sigma_next > 0, eta.double(), 0.0)
    s2 = a**2 * sigma / (1 - torch.where(sigma < 1, sigma, sigma_next))
    velocity = dt / sigma * (1 + s2 * (1 - sigma) / (2 * sigma))  # times (x - D)
    return LinearSteps(sigma, sigma_next, 1 + s2 * dt / (2 * sigma) + velocity, -velocity, (s2 * dt.abs()).sqrt())


def lcm(sigmas: Tensor, eta: Tensor) -> LinearSteps:
    """Compute steps of consistency sampling (Luo et al. 2023, arXiv 2310.04378, algorithm 3): predict, renoise.

    For diffusion models. `eta` is accepted for a common signature and unused: these models need fresh noise in every
    step.
    """
    sigma, sigma_next = sigmas[:-1].double(), sigmas[1:].double()
    return LinearSteps(sigma, sigma_next, torch.zeros_like(sigma), torch.ones_like(sigma), sigma_next.clone())


SAMPLERS: dict[str, Callable[[Tensor, Tensor], LinearSteps]] = {
    "ancestral": ancestral,
    "flow_ancestral": flow_ancestral,
    "flow_sde": flow_sde,
    "lcm": lcm,
}


def make_steps(sampler: str, family: str, sigmas: Tensor, eta: Tensor) -> LinearSteps:
    """Compute the steps of a named sampler.

    Args:
        sampler: one of `SAMPLERS`; "ancestral" means `flow_ancestral` on a flow model.
        family: of the model, "diffusion" or "flow".
        sigmas: noise levels, descending, (S + 1,).
        eta: share of noise in each step, (S,).

    Raises:
        D3POError: the sampler does not fit the family, or the noise levels do not fall.
    """
    if sampler == "ancestral" and family == "flow":
        sampler = "flow_ancestral"
    if sampler.startswith("flow") != (family == "flow"):
        raise D3POError(
            f"Sampler '{sampler}' does not fit this {family} model.",
            f"Use '{'flow_sde' if family == 'flow' else 'lcm'}' or 'ancestral'.",
        )
    if not bool((sigmas[1:] < sigmas[:-1]).all()):
        raise D3POError("The noise levels of this schedule do not fall from step to step.", "Choose fewer steps.")
    return SAMPLERS[sampler](sigmas, eta)


def early_window(sigmas: Tensor, family: str, threshold: float) -> Tensor:
    """Mark the steps that start at or above a noise level, and the first in any case.

    Training on these alone is what makes a small number of picks teach anything: the last steps dominate the log-ratio
    ((denoised_coef/std)^2 spans five orders of magnitude) and hardly change the image.

    Args:
        sigmas: noise levels, descending, (S + 1,).
        family: "diffusion", or "flow", whose levels are compared by their noise-to-signal ratio sigma / (1 - sigma).
        threshold: noise-to-signal ratio, in diffusion's sigma.

    Returns:
        bool (S,).
    """
    start = sigmas[:-1].double()
    ratio = start / (1 - start) if family == "flow" else start
    mask = ratio >= threshold
    mask[0] = True
    return mask


def first_window(sigmas: Tensor, fraction: float) -> Tensor:
    """Mark the first `fraction` of the S steps between sigmas (S + 1,), at least one: bool (S,)."""
    count = len(sigmas) - 1
    return torch.arange(count) < max(1, round(fraction * count))
