"""Timestep and preconditioning of a diffusion network at each noise level.

Diffusion models are converted to k-diffusion's space, x = x0 + sigma*n, where sigma = sqrt((1 - abar) / abar).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

PredictionType = Literal["epsilon", "v_prediction", "sample"]
SMALLEST_ALPHA = 2.0**-24
"""Replaces abar = 0 where betas are rescaled to zero terminal SNR (Lin et al. 2023, arXiv 2305.08891), as in
diffusers' EulerDiscreteScheduler: the noise level is then 4096 instead of infinite."""


@dataclass(frozen=True)
class Scaling:
    """Preconditioning D = skip * x + out * F(into * x, t), Karras et al. 2022 (arXiv 2206.00364) eq. 7.

    Each field is float64 (B,).
    """

    into: Tensor
    skip: Tensor
    out: Tensor


class NoiseSchedule:
    """The noise level of each timestep of a network.

    Args:
        alphas_cumprod: abar at each timestep, descending, (T,).
        prediction: what the network predicts.
    """

    def __init__(self, alphas_cumprod: Tensor, prediction: PredictionType) -> None:
        self.table, self.prediction = sigma_of(alphas_cumprod), prediction

    def timestep(self, sigma: Tensor) -> Tensor:
        """Return the network's timestep at noise levels (B,), float64.

        Interpolates log sigma in the table, as k-diffusion does. A level that equals one of the table in float32's
        precision gives exactly its integer; levels outside the table give its ends.
        """
        log, table = sigma.clamp(self.table[0], self.table[-1]).log(), self.table.log()
        high = torch.searchsorted(table, log).clamp(1, len(table) - 1)
        low = high - 1
        t = low + (log - table[low]) / (table[high] - table[low])
        return torch.where((t - t.round()).abs() < 1e-3, t.round(), t)

    def scaling(self, sigma: Tensor) -> Scaling:
        """Return the preconditioning at noise levels (B,)."""
        into = (1 + sigma**2).rsqrt()
        if self.prediction == "epsilon":
            return Scaling(into, torch.ones_like(sigma), -sigma)
        if self.prediction == "v_prediction":
            return Scaling(into, into**2, -sigma * into)
        return Scaling(into, torch.zeros_like(sigma), torch.ones_like(sigma))

    def levels(self, steps: int) -> Tensor:
        """Return noise levels at evenly spaced timesteps from last to first, then 0, as k-diffusion's `get_sigmas`.

        Returns:
            float64 (steps + 1,), descending.
        """
        t = torch.linspace(len(self.table) - 1, 0, steps, dtype=torch.float64)
        low, high = t.floor().long(), t.ceil().long()
        return torch.cat([torch.lerp(self.table.log()[low], self.table.log()[high], t.frac()).exp(), t.new_zeros(1)])


def sigma_of(alpha_bar: Tensor) -> Tensor:
    """Compute the noise level sqrt((1 - abar) / abar), float64."""
    alpha_bar = alpha_bar.double()
    alpha_bar = torch.where(alpha_bar > 0, alpha_bar, SMALLEST_ALPHA)
    return ((1 - alpha_bar) / alpha_bar).sqrt()


def karras(levels: Tensor, rho: float = 7.0) -> Tensor:
    """Return levels with the same first and last, spaced by Karras et al. 2022 (arXiv 2206.00364) eq. 5, then 0.

    Args:
        levels: a schedule without its end, descending, (S,).
        rho: exponent of the spacing.

    Returns:
        float64 (S + 1,), descending.
    """
    ramp = torch.linspace(0, 1, len(levels), dtype=torch.float64)
    high, low = levels[0] ** (1 / rho), levels[-1] ** (1 / rho)
    return torch.cat([(high + ramp * (low - high)) ** rho, ramp.new_zeros(1)])
