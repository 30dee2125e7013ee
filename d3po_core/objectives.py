"""Preference objectives: pure functions of log-ratios, each beside its paper.

Log-ratios come in as means over latent elements, so that beta means the same at every image size: for a fixed change
of the picture the sum grows with the number of elements, 1,024 in a toy and 16,384 in SD1.5.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def d3po(winner: Tensor, loser: Tensor, beta: float, clip: float = 0.0, label_smoothing: float = 0.0) -> Tensor:
    """Direct preference for denoising diffusion policy optimisation (Yang et al. 2024, arXiv 2311.13231, eq. 14).

    -log sigmoid(beta * (r_w - r_l)), with r the log-ratio of policy to reference. Given log-ratios of single steps it
    is the published loss; given sums over a trajectory it is DPO on whole trajectories. As in the authors' code the
    ratio exp(r) may be clamped to 1 +/- clip: then |beta * (r_w - r_l)| <= beta * log((1 + clip) / (1 - clip)).

    Args:
        winner, loser: log-ratios, mean over latent elements, any one shape.
        beta: inverse temperature.
        clip: half-width of the clamp on the ratio; 0 is off.
        label_smoothing: share of pairs taken to be swapped (conservative DPO, Mitchell 2023); 0 is the paper's loss.

    Returns:
        Loss of the same shape.
    """
    if clip:
        winner, loser = _clamp(winner, clip), _clamp(loser, clip)
    logit = beta * (winner - loser)
    return -(1 - label_smoothing) * F.logsigmoid(logit) - label_smoothing * F.logsigmoid(-logit)


def _clamp(log_ratio: Tensor, clip: float) -> Tensor:
    return log_ratio.clamp(math.log1p(-clip) if clip < 1 else -math.inf, math.log1p(clip))


def clipped(log_ratio: Tensor, clip: float) -> Tensor:
    """Share of log-ratios at which the clamp of `d3po` bites, so that they contribute no gradient. ()"""
    return (_clamp(log_ratio, clip) != log_ratio).float().mean() if clip else torch.zeros(())
