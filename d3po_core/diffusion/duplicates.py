"""Candidates that a person could not tell apart, so that nobody is asked which one is better."""

from __future__ import annotations

import torch
from torch import Tensor

DUPLICATE_DISTANCE = 0.1
"""Root mean square difference of final latents, in their standard deviations, below which two images look the same.

Measured on the embedded model with pairs that share their start, at eta from 0.01 to 1 (benchmarks/near.py): below 0.1
the decoded images differ by 0.2 to 3.2 of 255 (root mean square), at eta 1 by 18 to 38.
"""


def distances(latents: Tensor) -> Tensor:
    """Compute root mean square differences (B, B) of latents (B, C, ...), in units of their standard deviation."""
    flat = latents.float().flatten(1)
    return torch.cdist(flat, flat) / flat.shape[1] ** 0.5 / flat.std()


def duplicates(latents: Tensor) -> list[int]:
    """Find the candidates that look like an earlier one.

    Args:
        latents: final latents (C, ...) of one group.

    Returns:
        Their numbers, ascending.
    """
    distance = distances(latents)
    kept: list[int] = []
    for candidate in range(len(latents)):
        if all(distance[candidate, other] >= DUPLICATE_DISTANCE for other in kept):
            kept.append(candidate)
    return [candidate for candidate in range(len(latents)) if candidate not in kept]
