"""Sampling that a reward can be differentiated through (DRaFT, Clark et al. 2024, arXiv 2309.17400, algorithm 1).

The paper's unifying view in one function with two parameters, `last` (its K) and `stop` (its m): sampling runs without
gradient, then `last` evaluations of the network carry one, and the final one of them is at step `stop`.

    DRaFT      last = all steps,  stop = the last step
    DRaFT-K    last = K,          stop = the last step
    ReFL       last = 1,          stop = one of the late steps, chosen at random for every update
               (Xu et al. 2023, arXiv 2304.05977: the clean latents are predicted from there in one go)
    DRaFT-LV   `renoised`, of finished latents: K = 1 at n fresh noises

Gradients pass through both branches of classifier-free guidance. Nothing here knows what the reward is.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .denoiser import Conditioning, Denoiser
from .steps import LinearSteps


def starting_latents(denoiser: Denoiser, noise: Tensor, sigma: float) -> Tensor:
    """Unit noise (B, ...) as latents of the highest noise level, in the model family's own space."""
    return noise * (1 + sigma**2) ** 0.5 if denoiser.family == "diffusion" else noise


def sample_through(
    denoiser: Denoiser,
    steps: LinearSteps,
    x: Tensor,
    noises: Sequence[Tensor],
    conditioning: Conditioning,
    guidance_scale: float,
    last: int,
    stop: int | None = None,
    checkpointing: bool = False,
) -> Tensor:
    """Clean latents, differentiable through the last evaluations of the network.

    Args:
        denoiser: the policy; gradients flow to the parameters of whatever LoRA is active.
        steps: S steps.
        x: latents (B, ...) at the first step's noise level.
        noises: unit noise (B, ...) of each step; not looked at where a step's std is 0.
        conditioning: B rows.
        guidance_scale: classifier-free guidance.
        last: evaluations that carry gradient, 1 to stop + 1.
        stop: step (from 0) at which sampling ends: with that step if it is the last one (the default), with the
            denoised prediction there if it is an earlier one.
        checkpointing: keep only the latents between steps, and evaluate the network again in the backward pass: memory
            for one evaluation instead of `last`, for one more evaluation each.

    Returns:
        (B, ...), with gradient where it is enabled.
    """
    stop = len(steps) - 1 if stop is None else stop

    def evaluated(i: int, x: Tensor) -> Tensor:
        sigma = torch.full((len(x),), float(steps.sigma[i]), dtype=torch.float64)
        denoised = denoiser(x, sigma, conditioning, guidance_scale).guided
        if i == stop and stop < len(steps) - 1:
            return denoised
        x = float(steps.x_coef[i]) * x + float(steps.denoised_coef[i]) * denoised
        return x + float(steps.std[i]) * noises[i].to(x) if steps.std[i] > 0 else x

    with torch.no_grad():
        for i in range(stop + 1 - last):
            x = evaluated(i, x)
    for i in range(stop + 1 - last, stop + 1):
        x = checkpoint(evaluated, i, x, use_reentrant=False) if checkpointing else evaluated(i, x)
    return x


def renoised(
    denoiser: Denoiser,
    clean: Tensor,
    sigma: float,
    noise: Tensor,
    conditioning: Conditioning,
    guidance_scale: float,
) -> Tensor:
    """Finished latents, noised anew to the last step's level and denoised again, differentiable (DRaFT-LV).

    The reward's gradient through this, averaged over n draws of `noise`, is the update's. The sample itself is detached
    and does not count among the n: it costs no backward pass, and at a fixed sample the variance falls as 1/n.

    Args:
        denoiser: the policy.
        clean: finished latents (B, ...).
        sigma: noise level of the sampler's last step, in the family's own units.
        noise: unit noise (B, ...).
        conditioning: B rows.
        guidance_scale: as sampled.

    Returns:
        Denoised predictions (B, ...).
    """
    signal = 1.0 if denoiser.family == "diffusion" else 1 - sigma
    level = torch.full((len(clean),), sigma, dtype=torch.float64)
    return denoiser(signal * clean.detach() + sigma * noise, level, conditioning, guidance_scale).guided
