"""Masks in training: a person paints over the part of a picture that a pick is about, "this is what I mean".

A mask (picks.py) weighs the log-ratio of its group's candidates place by place (diffusion/losses.py, `log_ratio`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ..picks import MASK_SIZE, Mask, check_mask

OUTSIDE = 0.3
"""Weight of a place outside a mask, for one inside of 1, before the mean is made 1."""


def to_tensor(mask: Mask) -> Tensor:
    """Return a mask's cells as zeros and ones, (MASK_SIZE, MASK_SIZE), float32."""
    return torch.tensor([[row >> (MASK_SIZE - 1 - column) & 1 for column in range(MASK_SIZE)] for row in mask]).float()


def from_tensor(cells: Tensor) -> Mask:
    """Return the mask of painted cells, (MASK_SIZE, MASK_SIZE) of bool; the inverse of `to_tensor`."""
    return check_mask([sum(bool(cell) << (MASK_SIZE - 1 - column) for column, cell in enumerate(row)) for row in cells])


def latent_weight(masks: Sequence[tuple[int, Mask]], latents: Tensor, outside: float = OUTSIDE) -> Tensor | None:
    """Return how much every place of a group's latents counts, (C, 1, ..., h, w), of mean 1.

    The places that are meant in one candidate count in all of them, because a preference compares: weights on one side
    alone would praise or blame the rest of the other.

    Args:
        masks: what people painted, each with its candidate's number. Of one candidate the mean counts, of those who
            painted on it; of several candidates each place's largest.
        latents: of the group, (C, channels, ..., h, w).
        outside: weight of what nobody painted over, relative to what all did.

    Returns:
        The weight, the same for every candidate; None if there is no mask at all.
    """
    if not masks:
        return None
    height, width = latents.shape[-2:]
    candidates = {candidate for candidate, _ in masks}
    painted = [torch.stack([to_tensor(mask) for of, mask in masks if of == each]).mean(0) for each in candidates]
    places = F.interpolate(torch.stack(painted).amax(0)[None, None], (height, width), mode="area")[0, 0]
    weight = outside + (1 - outside) * places
    weight = (weight / weight.mean()).reshape(*[1] * (latents.dim() - 2), height, width)
    return weight.expand(len(latents), *weight.shape[1:])
