"""Log-ratios of rows, and the gradient of a loss on what is needed of every row, in one pass or two.

An image is evaluated once and its log-ratio is used in every pair that it belongs to. When the graphs of all rows fit
in memory that is one pass. Otherwise two: the rows' values without gradient; the loss's derivative with respect to
each; then forward and backward in micro-batches weighted by it. The gradient is the same, at one more forward.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..denoiser import Denoiser
from ..logratio import kl, log_ratio
from .groups import Rows, TrainingGroup, group_rows


@dataclass(frozen=True)
class Room:
    """How many (image, step) rows to evaluate at once.

    Attributes:
        most: so many graphs fit in memory; a loss that joins more rows takes two passes, another one is one batch.
        together: so many rows are one batch where that is free: they need no gradient, or their losses are independent.
    """

    most: int
    together: int


def predict(denoiser: Denoiser, rows: Rows) -> Tensor:
    """The active policy's predictions of the rows' kind, guided or conditional. (R, ...)"""
    prediction = denoiser(rows.x, rows.steps.sigma, rows.conditioning, rows.guidance_scale, rows.guided)
    return prediction.guided if rows.guided else prediction.cond


def row_log_ratios(denoiser: Denoiser, rows: Rows) -> Tensor:
    """log pi_theta - log pi_ref of every row, mean over latent elements. (R,)"""
    return log_ratio(predict(denoiser, rows), rows.ref, rows.z, rows.steps) / rows.x[0].numel()


@dataclass(frozen=True)
class MeanKL:
    """KL of one policy from another, summed over recorded steps, mean over images.

    Attributes:
        per_image: nats.
        per_element: nats per latent element, of every image its own: pictures may differ in size.
    """

    per_image: float
    per_element: float


@torch.no_grad()
def mean_kl(
    denoiser: Denoiser, groups: Sequence[TrainingGroup], guided: Callable[[TrainingGroup], Tensor], batch: int
) -> MeanKL:
    """KL of the active guided policy from another.

    The expectation is taken over the recorded latents, so where the other policy sampled them this is the KL of
    sampler from policy, an estimate without noise of its own.

    Args:
        denoiser: the policy.
        groups: at least one.
        guided: the other policy's guided predictions on a group, (C, K, ...).
        batch: rows per forward pass.
    """
    total, by_element, images = 0.0, 0.0, 0
    for group in groups:
        rows = group_rows(group, guided(group), True, denoiser.device).split(batch)
        found = sum(float(kl(predict(denoiser, part), part.ref, part.steps).sum()) for part in rows)
        total, by_element = total + found, by_element + found / group.elements
        images += group.shape[0]
    return MeanKL(total / images, by_element / images)


def backward(
    values_of: Callable[[Rows], Tensor],
    rows: Rows,
    loss_of: Callable[[Tensor], Tensor],
    room: Room,
    scale: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Accumulate the gradient of scale * loss_of(values) in the LoRA's parameters.

    Args:
        values_of: what the loss needs of every row, by the trained policy: rows to (R, ...).
        rows: R rows.
        loss_of: values (R, ...) to a scalar.
        room: rows at once; where R graphs fit it is one pass.
        scale: loss scale, for float16 networks.

    Returns:
        The loss, unscaled, and the values (R, ...), both without gradient.
    """
    if room.most >= len(rows):
        values = values_of(rows)
        loss = loss_of(values)
        (loss * scale).backward()
        return loss.detach(), values.detach()
    parts = rows.split(room.together)
    with torch.no_grad():
        values = torch.cat([values_of(part) for part in parts])
    leaf = values.requires_grad_()
    loss = loss_of(leaf)
    (weights,) = torch.autograd.grad(loss * scale, leaf)
    for part, weight in zip(parts, weights.split(room.together), strict=True):
        if weight.any():  # clamped and unpaired rows have no gradient
            (values_of(part) * weight).sum().backward()
    return loss.detach(), leaf.detach()
