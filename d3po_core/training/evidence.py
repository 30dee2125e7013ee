"""How far to trust a LoRA: does it predict picks that it has not seen?

A model fitted to random clicks drifts as far as one fitted to a taste. What tells them apart is prediction: the picks
are split in two halves, each half is predicted by a LoRA that was trained on the other, and the final LoRA's strength
follows from how surely the hidden picks were foretold. Without evidence it stays at the original; with plain evidence
it is used in full. Every pick is both trained on and predicted, so nothing is lost to a held-out set.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

NONE, FULL = 0.0, 1.0
"""z-scores below which a LoRA is taken back to the original, and above which it is used in full.

Gentle on purpose: the LoRAs of a check know half of the picks only, so with few picks a taste that is there often shows
as less than two standard errors. Of what random clicks would do, this keeps a third on average."""


def z_score(margins: Sequence[float]) -> float:
    """How many standard errors the mean margin lies above 0, which is chance: Student's one-sample statistic.

    Margins say more than right and wrong alone: a sure guess counts for more than an unsure one.

    Args:
        margins: of hidden picks, one for each group, positive where the guess was right; at least two.
    """
    spread = statistics.stdev(margins)
    return statistics.fmean(margins) / (spread / math.sqrt(len(margins))) if spread else 0.0


def strength(z: float) -> float:
    """Share of the LoRA to keep, in [0, 1]: 0 up to z = NONE, rising to 1 at z = FULL."""
    return min(1.0, max(0.0, (z - NONE) / (FULL - NONE)))
