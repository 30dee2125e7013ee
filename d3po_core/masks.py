"""Masks: a person paints over the part of a picture that a judgement is about, "this is what I mean".

A mask is a grid over the whole picture, whatever its size and shape, as coarse as a brush: rows of cells, each row an
integer, its highest bit the cell at the left. In training it weighs the log-ratio of its picture place by place
(diffusion/losses.py, `log_ratio`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from .errors import D3POError

SIZE = 32
"""Rows of a mask, and cells of a row."""
Mask = tuple[int, ...]
"""The rows from top to bottom, each from 0 to 2**SIZE - 1; empty for no mask."""
OUTSIDE = 0.1
"""Weight of a place outside a mask, for one inside of 1, before the mean is made 1."""


def check_mask(rows: Sequence[int]) -> Mask:
    """Return the rows as a mask, an empty one where no cell is painted.

    Raises:
        D3POError: they are none.
    """
    if rows and (len(rows) != SIZE or any(type(row) is not int or not 0 <= row < 2**SIZE for row in rows)):
        raise D3POError(f"A mask has {SIZE} rows, each a whole number from 0 to 2^{SIZE} - 1.")
    return tuple(rows) if any(rows) else ()


def to_tensor(mask: Mask) -> Tensor:
    """Return a mask's cells as zeros and ones, (SIZE, SIZE), float32."""
    return torch.tensor([[row >> (SIZE - 1 - column) & 1 for column in range(SIZE)] for row in mask]).float()


def from_tensor(cells: Tensor) -> Mask:
    """Return the mask of painted cells, (SIZE, SIZE) of bool; the inverse of `to_tensor`."""
    return check_mask([sum(bool(cell) << (SIZE - 1 - column) for column, cell in enumerate(row)) for row in cells])


def latent_weight(masks: Sequence[tuple[int, Mask]], latents: Tensor, outside: float = OUTSIDE) -> Tensor | None:
    """Return how much every place of a group's latents counts, (C, 1, ..., h, w), of mean 1 for each candidate.

    Args:
        masks: what people painted, each with its candidate's number; of several on one candidate the mean counts.
        latents: of the group, (C, channels, ..., h, w).
        outside: weight of what nobody painted over, relative to what all did.

    Returns:
        The weight, 1 everywhere for candidates that nobody painted on; None if there is no mask at all.
    """
    if not masks:
        return None
    height, width = latents.shape[-2:]
    weight = torch.ones(len(latents), height, width)
    for candidate in {candidate for candidate, _ in masks}:
        painted = torch.stack([to_tensor(mask) for of, mask in masks if of == candidate]).mean(0)
        places = F.interpolate(painted[None, None], (height, width), mode="area")[0, 0]
        weight[candidate] = outside + (1 - outside) * places
    weight /= weight.mean((1, 2), keepdim=True)
    return weight.reshape(len(latents), *[1] * (latents.dim() - 3), height, width)
