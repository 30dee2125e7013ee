"""Sampling that a reward can be differentiated through (DRaFT, Clark et al. 2024, arXiv 2309.17400, algorithm 1).

`sample_through` has the paper's methods as values of two parameters, `last` (its K) and `stop` (its m): sampling runs
without gradient until the last K evaluations of the network, which carry one; the final evaluation is at step `stop`.

    DRaFT      last = all steps,  stop = the last step
    DRaFT-K    last = K,          stop = the last step
    ReFL       last = 1,          stop = one of the late steps, drawn at random for every update
               (Xu et al. 2023, arXiv 2304.05977: the clean latents are predicted from there in one step)
    DRaFT-LV   `renoised`, on finished latents: K = 1 at n fresh noises

Gradients pass through both branches of classifier-free guidance. Nothing here depends on the reward.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .denoiser import Conditioning, Denoiser, denoise
from .steps import LinearSteps, take_step


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
    """Sample clean latents, differentiable through the last evaluations of the network.

    Args:
        denoiser: the policy; gradients flow to the parameters of the active LoRA.
        steps: S steps.
        x: latents (B, ...) at the first step's noise level.
        noises: unit noise (B, ...) of each step; unused where a step's std is 0.
        conditioning: B rows.
        guidance_scale: classifier-free guidance.
        last: evaluations that carry gradient, 1 to stop + 1.
        stop: step (from 0) at which sampling ends: with that step if it is the last one (the default), with the
            denoised prediction there if it is an earlier one.
        checkpointing: keep only the latents between steps, and evaluate the network again in the backward pass. This
            takes the memory of one evaluation instead of `last`, and evaluates each of them twice.

    Returns:
        (B, ...), with gradient where it is enabled.
    """
    stop = len(steps) - 1 if stop is None else stop

    def advance(i: int, x: Tensor) -> Tensor:
        sigma = torch.full((len(x),), float(steps.sigma[i]), dtype=torch.float64)
        denoised = denoise(denoiser, x, sigma, conditioning, guidance_scale).guided
        if i == stop and stop < len(steps) - 1:
            return denoised
        return take_step(steps, i, x, denoised, lambda: noises[i].to(x))

    with torch.no_grad():
        for i in range(stop + 1 - last):
            x = advance(i, x)
    for i in range(stop + 1 - last, stop + 1):
        x = checkpoint(advance, i, x, use_reentrant=False) if checkpointing else advance(i, x)
    return x


def renoised(
    denoiser: Denoiser,
    clean: Tensor,
    sigma: float,
    noise: Tensor,
    conditioning: Conditioning,
    guidance_scale: float,
) -> Tensor:
    """Noise finished latents again to the last step's level and denoise them, differentiable (DRaFT-LV).

    An update averages the reward's gradient through this over n draws of `noise`. The sample itself is detached and
    does not count among the n: it costs no backward pass, and for a fixed sample the variance falls as 1/n.

    Args:
        denoiser: the policy.
        clean: finished latents (B, ...).
        sigma: noise level of the sampler's last step, in the family's own units.
        noise: unit noise (B, ...).
        conditioning: B rows.
        guidance_scale: the one that sampled.

    Returns:
        Denoised predictions (B, ...).
    """
    signal = 1.0 if denoiser.family == "diffusion" else 1 - sigma
    level = torch.full((len(clean),), sigma, dtype=torch.float64)
    return denoise(denoiser, signal * clean.detach() + sigma * noise, level, conditioning, guidance_scale).guided
