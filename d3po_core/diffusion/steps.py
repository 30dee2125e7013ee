"""Step families: every sampler trained here is a linear Gaussian step in the model's own sigma space,

    x_next = x_coef * x  +  denoised_coef * D(x, sigma)  +  std * eps,      eps ~ N(0, I),

where D is the denoised prediction. A sampler is therefore three numbers per step, and nothing else in the core knows
which sampler it was. Written in float64: the numbers are few and small differences between them matter.

Diffusion models live in k-diffusion's space (x = x0 + sigma*n), where a variance-preserving DDIM step is the same step
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
    """A schedule and its three numbers per step, each float64 of shape (S,).

    A step with std 0 is deterministic: it has no density and is never trained.
    """

    sigma: Tensor
    sigma_next: Tensor
    x_coef: Tensor
    denoised_coef: Tensor
    std: Tensor

    def __len__(self) -> int:
        return len(self.sigma)

    def __getitem__(self, index: slice | Tensor) -> LinearSteps:
        """Some of the steps; by a tensor of step numbers (B,), one step for each row of a batch."""
        return LinearSteps(
            self.sigma[index], self.sigma_next[index], self.x_coef[index], self.denoised_coef[index], self.std[index]
        )


def ancestral(sigmas: Tensor, eta: Tensor) -> LinearSteps:
    """Ancestral Euler steps, which are DDIM(eta) (Song et al. 2021, arXiv 2010.02502, eq. 16) without the VP rescale.

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
    """Ancestral Euler steps for rectified flow, as ComfyUI's `euler_ancestral` takes them: step down to
    sigma_down = sigma' * (1 + (sigma'/sigma - 1) * eta), then renoise so that signal and noise fit sigma' again.

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
    """Euler-Maruyama steps of the flow's SDE (Flow-GRPO, Liu et al. 2025, arXiv 2505.05470, eq. 9).

    Its diffusion coefficient is s = a * sqrt(sigma / (1 - sigma)); at sigma = 1, where that is singular, the next level
    stands in for sigma inside s, as in the authors' code. The last step, to sigma 0, is taken without noise.

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
    """Consistency sampling for diffusion models (Luo et al. 2023, arXiv 2310.04378, algorithm 3): predict, renoise.

    `eta` is accepted for a common signature and unused: these models need fresh noise in every step.
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
    """The steps of a named sampler on a model of the given family ("diffusion" or "flow").

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
    """Which steps belong to the early window: those that start at or above a noise level. (S,) bool, never empty.

    The window is what makes a small number of picks teach anything: the last steps rule the log-ratio
    ((denoised_coef/std)^2 spans five orders of magnitude) and hardly change the picture.

    Args:
        sigmas: noise levels, descending, (S + 1,).
        family: "diffusion", or "flow", whose levels are compared by their noise-to-signal ratio sigma / (1 - sigma).
        threshold: noise-to-signal ratio, in diffusion's sigma.
    """
    start = sigmas[:-1].double()
    ratio = start / (1 - start) if family == "flow" else start
    mask = ratio >= threshold
    mask[0] = True
    return mask


def first_window(sigmas: Tensor, fraction: float) -> Tensor:
    """The first `fraction` of the steps, at least one. (S,) bool."""
    count = len(sigmas) - 1
    return torch.arange(count) < max(1, round(fraction * count))
