"""How far to trust a LoRA: does it predict picks that it has not seen?

A model fitted to random clicks drifts as far as one fitted to a taste. What tells them apart is prediction: the picks
are split in two halves, each half is predicted by a LoRA that was trained on the other, and the final LoRA's strength
follows from the number of right guesses. Without evidence it stays at the original; with plain evidence it is used in
full. Every pick is both trained on and predicted, so nothing is lost to a held-out set.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

NONE, FULL = 1.0, 2.0
"""z-scores below which a LoRA is taken back to the original, and above which it is used in full."""


def z_score(hits: Sequence[float]) -> float:
    """How many standard errors above chance the guesses are.

    Args:
        hits: one number per group, the share of its pairs guessed right, in [0, 1]; chance is .5.
    """
    return (math.fsum(hits) / len(hits) - 0.5) / (0.5 / math.sqrt(len(hits)))


def strength(hits: Sequence[float]) -> float:
    """Share of the LoRA to keep, in [0, 1]: 0 up to z = NONE, rising to 1 at z = FULL."""
    if not hits:
        return 1.0
    return min(1.0, max(0.0, (z_score(hits) - NONE) / (FULL - NONE)))
