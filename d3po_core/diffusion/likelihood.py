"""Log-probability ratio and KL of two policies on one recorded step.

Both policies take the same linear Gaussian step and differ only in their denoised prediction. With

    delta = D_theta - D_ref,    z = (x_next - x_coef * x - denoised_coef * D_ref) / std,    c = denoised_coef / std,

the normal densities' constants cancel and

    log pi_theta(x_next | x) - log pi_ref(x_next | x) = k <z, delta> - k^2 |delta|^2 / 2,        KL = k^2 |delta|^2 / 2.

D_theta, D_ref and z must be of one kind: all guided, or all conditional. z equals the injected noise only if D_ref is
the prediction that sampled.
"""

from __future__ import annotations

from torch import Tensor

from .steps import LinearSteps, per_row, step_mean


def residual(x: Tensor, x_next: Tensor, ref: Tensor, steps: LinearSteps) -> Tensor:
    """Compute the noise z that takes x to x_next under the reference's prediction, (B, ...).

    Args:
        x, x_next: latents before and after the step, (B, ...).
        ref: the reference's denoised prediction, (B, ...).
        steps: one step for each row, fields (B,), std above 0.
    """
    return (x_next - step_mean(steps, x, ref)) / per_row(steps.std, x)


def log_ratio(denoised: Tensor, ref: Tensor, z: Tensor, steps: LinearSteps) -> Tensor:
    """Compute log pi_theta - log pi_ref of each row's step, in nats, summed over latent elements: (B,).

    Args:
        denoised: the trained policy's denoised prediction, (B, ...).
        ref: the reference's, of the same kind (guided or conditional).
        z: `residual` against that reference.
        steps: one step for each row, fields (B,), std above 0.
    """
    k = (steps.denoised_coef / steps.std).to(z)
    delta = (denoised - ref).flatten(1)
    return k * (z.flatten(1) * delta).sum(1) - k**2 / 2 * delta.square().sum(1)


def kl(denoised: Tensor, ref: Tensor, steps: LinearSteps) -> Tensor:
    """Compute the KL divergence between the two policies' steps, in nats, summed over latent elements: (B,).

    Args:
        denoised, ref: denoised predictions of policy and reference, (B, ...).
        steps: one step for each row, fields (B,), std above 0.
    """
    k = (steps.denoised_coef / steps.std).to(denoised)
    return k**2 / 2 * (denoised - ref).flatten(1).square().sum(1)
