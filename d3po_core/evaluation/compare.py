"""Before against after, by a scorer: pure functions of scores.

The measure is the win rate on independent seeds. On the same seeds an invisible tint already "wins" nine times in ten,
so same-seed pairs are left out everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Comparison:
    """Scores after against before.

    Attributes:
        win_rate: chance that an image of the tuned model scores above one of the original for the same prompt and a
            different seed; ties count half.
        win_rate_se: its standard error over prompts and over seeds, which all prompts share (both jackknifed, added).
        gain: mean difference of scores, in standard deviations of the original's scores within a prompt.
        images: images scored on each side.
    """

    win_rate: float
    win_rate_se: float
    gain: float
    images: int


def compare(before: Tensor, after: Tensor) -> Comparison:
    """Compare scores of P prompts and S seeds, the same seeds in the same columns on both sides.

    Args:
        before, after: scores (P, S), at least two prompts and two seeds.
    """
    prompts, seeds = before.shape
    difference = after[:, :, None] - before[:, None, :]  # (P, S after, S before)
    wins = (difference > 0).double() + 0.5 * (difference == 0).double()
    other = ~torch.eye(seeds, dtype=torch.bool)
    per_prompt = wins[:, other].mean(1)
    spread = before.var(1).mean().sqrt()
    return Comparison(
        win_rate=float(per_prompt.mean()),
        win_rate_se=float((per_prompt.var() / prompts + _seed_variance(wins, other)).sqrt()),
        gain=float((after.mean() - before.mean()) / spread),
        images=prompts * seeds,
    )


def _seed_variance(wins: Tensor, other: Tensor) -> Tensor:
    """Jackknife variance of the win rate over seeds: each seed left out on both sides.

    Args:
        wins: (P, S after, S before).
        other: which pairs of seeds count, (S, S).
    """
    seeds = len(other)
    if seeds < 3:
        return wins.new_zeros(())
    kept = [torch.arange(seeds) != left_out for left_out in range(seeds)]
    rates = torch.stack([wins[:, k][:, :, k][:, other[k][:, k]].mean() for k in kept])
    return (rates - rates.mean()).square().sum() * (seeds - 1) / seeds
