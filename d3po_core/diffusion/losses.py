"""Preference objectives: pure functions of log-ratios, each beside its paper.

Log-ratios are means over latent elements, so that beta means the same at every image size: for a fixed change of the
image the sum grows with the number of elements (16,384 in SD1.5 at 512x512).

The policies' likelihood is here too: log-ratio and KL on recorded steps.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from .steps import LinearSteps, per_row, step_mean


def d3po(winner: Tensor, loser: Tensor, beta: float, clip: float = 0.0, label_smoothing: float = 0.0) -> Tensor:
    """Compute the loss of D3PO (Yang et al. 2024, arXiv 2311.13231, eq. 14).

    -log sigmoid(beta * (r_w - r_l)), with r the log-ratio of policy to reference. On log-ratios of single steps this
    is the published loss; on their sums over a trajectory it is DPO on whole trajectories. As in the authors' code the
    ratio exp(r) may be clamped to 1 ± clip: then |beta * (r_w - r_l)| <= beta * log((1 + clip) / (1 - clip)).

    With r = (e_ref - e) / 2 it is Diffusion-DPO, DPO on clean images (Wallace et al. 2024, arXiv 2311.12908, eq. 14),
    where e is the mean squared error of predicting the noise that was added to an image; both images of a pair have the
    same noise and level. The authors' code has the same beta / 2, into which the paper's T omega(lambda) are absorbed.

    Args:
        winner, loser: log-ratios, mean over latent elements, both of one shape.
        beta: inverse temperature.
        clip: half-width of the clamp on the ratio; 0 is off.
        label_smoothing: assumed share of swapped pairs (conservative DPO, Mitchell 2023); 0 is the paper's loss.

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
    """Return the share of log-ratios that the clamp of `d3po` changes, which contribute no gradient: ()."""
    return (_clamp(log_ratio, clip) != log_ratio).float().mean() if clip else torch.zeros(())


def advantages(scores: Tensor) -> Tensor:
    """Standardise scores (C,) of one prompt's images to mean 0 and standard deviation 1; equal ones give zeros.

    Black et al. 2024 (arXiv 2305.13301), section 5.
    """
    centred = scores - scores.mean()
    spread = centred.square().mean().sqrt()
    return centred / spread if spread > 1e-8 else torch.zeros_like(centred)


def ddpo(log_ratio: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """Compute the loss of DDPO-IS (Black et al. 2024, arXiv 2305.13301) with PPO's clipping.

    max(-A rho, -A clamp(rho, 1 - clip, 1 + clip)), rho = exp(log-ratio to the policy that sampled).

    Args:
        log_ratio: of single steps, any shape; a mean over latent elements, as in the authors' code.
        advantage: of the images, broadcast to log_ratio's shape.
        clip: half-width of the clamp; 0 is off.

    Returns:
        Loss, of log_ratio's shape.
    """
    ratio = log_ratio.exp()
    plain = -advantage * ratio
    return torch.maximum(plain, -advantage * ratio.clamp(1 - clip, 1 + clip)) if clip else plain


def dpok(log_ratio: Tensor, kl: Tensor, advantage: Tensor, alpha: float, beta: float, clip: float) -> Tensor:
    """Compute the loss of DPOK: policy gradient with KL penalty (Fan et al. 2023, arXiv 2305.16381, eq. 7).

    -alpha A clamp(rho, 1 - clip, 1 + clip) + beta KL(policy || base), for each step.

    Args:
        log_ratio: log rho to the policy that sampled, of single steps, any shape.
        kl: of the same steps, to the base model, in the same units (a mean over latent elements).
        advantage: reward minus value, broadcast to log_ratio's shape.
        alpha, beta: weights of reward and KL.
        clip: half-width of the clamp; 0 is off.
    """
    ratio = log_ratio.exp()
    ratio = ratio.clamp(1 - clip, 1 + clip) if clip else ratio
    return -alpha * advantage * ratio + beta * kl


def diffusion_kto(log_ratio: Tensor, liked: Tensor, beta: float, offset: Tensor | None = None) -> Tensor:
    """Compute the loss of Diffusion-KTO: KTO on clean images (Li et al. 2024, arXiv 2404.04465, eq. 8).

    1 - sigmoid(y beta (r - max(0, mean r))), with y = 1 for a liked image and -1 for a disliked one: images are judged
    one by one, without pairs.

    Args:
        log_ratio: r of each image (B,), mean over latent elements.
        liked: (B,) bool.
        beta: inverse temperature.
        offset: the mean of r to compare with, without gradient; None takes the mean of log_ratio.

    Returns:
        Loss (B,).
    """
    offset = log_ratio.detach().mean() if offset is None else offset
    sign = torch.where(liked, 1.0, -1.0).to(log_ratio)
    return 1 - torch.sigmoid(sign * beta * (log_ratio - offset.clamp(min=0)))


def nft(
    denoised: Tensor, old: Tensor, clean: Tensor, score: Tensor, beta: float, weight: Tensor | None = None
) -> Tensor:
    """Compute the loss of DiffusionNFT (Zheng et al. 2026, arXiv 2509.16117, eq. 5, self-normalised x0 regression).

    s |D+ - x0|^2 / |D+ - x0|_1 + (1 - s) |D- - x0|^2 / |D- - x0|_1, the implicit positive and negative predictions
    being D+ = D_old + beta (D - D_old) and D- = D_old - beta (D - D_old); the denominators carry no gradient.
    As in the authors' code the sum is divided by beta, so that beta does not scale the gradient at D = D_old.

    Args:
        denoised: the policy's predictions (B, ...) of noised clean latents.
        old: those of the policy that sampled the images (last round's), without gradient, (B, ...).
        clean: the latents before noise was added, (B, ...).
        score: optimality of each image (B,) in [0, 1].
        beta: scale of the implicit predictions' shift; below 1 the policy moves further than they do.
        weight: of every latent element, mean 1, see `log_ratio`; None weighs all alike.

    Returns:
        Loss (B,).
    """
    shift = beta * (denoised - old)

    def error(prediction: Tensor) -> Tensor:
        difference = prediction - clean
        size = _weighted(difference.detach().abs(), weight).flatten(1).mean(1)
        return _weighted(difference.square(), weight).flatten(1).mean(1) / size.clamp(min=1e-5)

    return (score * error(old + shift) + (1 - score) * error(old - shift)) / beta


def residual(x: Tensor, x_next: Tensor, ref: Tensor, steps: LinearSteps) -> Tensor:
    """Compute the noise z that takes x to x_next under the reference's prediction, (B, ...).

    Args:
        x, x_next: latents before and after the step, (B, ...).
        ref: the reference's denoised prediction, (B, ...).
        steps: one step for each row, fields (B,), std above 0.
    """
    return (x_next - step_mean(steps, x, ref)) / per_row(steps.std, x)


def _weighted(values: Tensor, weight: Tensor | None) -> Tensor:
    return values if weight is None else values * weight


def log_ratio(denoised: Tensor, ref: Tensor, z: Tensor, steps: LinearSteps, weight: Tensor | None = None) -> Tensor:
    """Compute log pi_theta - log pi_ref of each row's step, in nats, summed over latent elements: (B,).

    The steps are Gaussian with independent elements, so this is a sum over them, and a person who says which part of a
    picture is meant (picks.py) weighs its terms: the rest then earns little praise and little blame. With mean weight 1
    beta keeps its meaning, and equal weights give the log-ratio itself.

    Args:
        denoised: the trained policy's denoised prediction, (B, ...).
        ref: the reference's, of the same kind (guided or conditional).
        z: `residual` against that reference.
        steps: one step for each row, fields (B,), std above 0.
        weight: of every latent element, broadcast to (B, ...); None weighs all alike.
    """
    k = (steps.denoised_coef / steps.std).to(z)
    delta = denoised - ref
    first, second = (_weighted(term, weight).flatten(1).sum(1) for term in (z * delta, delta.square()))
    return k * first - k**2 / 2 * second


def kl(denoised: Tensor, ref: Tensor, steps: LinearSteps) -> Tensor:
    """Compute the KL divergence between the two policies' steps, in nats, summed over latent elements: (B,).

    Args:
        denoised, ref: denoised predictions of policy and reference, (B, ...).
        steps: one step for each row, fields (B,), std above 0.
    """
    k = (steps.denoised_coef / steps.std).to(denoised)
    return k**2 / 2 * (denoised - ref).flatten(1).square().sum(1)
