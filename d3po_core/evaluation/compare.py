"""The comparison of scores before and after: pure functions of scores.

The measure is the win rate on independent seeds. On the same seeds even an invisible tint can win nine times in ten, so
pairs of the same seed are left out.

Also how far a trained LoRA is from the base model, in a word, and the strength that is recommended for that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..run import RoundSummary


@dataclass(frozen=True)
class Comparison:
    """How scores after training compare with those before.

    Attributes:
        win_rate: probability that an image after scores above one before, of the same prompt and another seed; ties
            count half.
        win_rate_se: standard error of the win rate: jackknife variances over prompts and over seeds (which all prompts
            share), added.
        gain: mean difference of scores, in standard deviations of the scores before within a prompt.
        images: number of images on each side.
    """

    win_rate: float
    win_rate_se: float
    gain: float
    images: int


def compare(before: Tensor, after: Tensor) -> Comparison:
    """Compare scores of P prompts and S seeds, with the same seeds in the same columns on both sides.

    Args:
        before, after: scores (P, S); at least two prompts and two seeds.
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
    """Return the jackknife variance of the win rate over seeds, (): each seed is left out on both sides. 0 for S < 3.

    Args:
        wins: 1 for a win, 1/2 for a tie, (P, S after, S before).
        other: which pairs of seeds count, (S, S).
    """
    seeds = len(other)
    if seeds < 3:
        return wins.new_zeros(())
    kept = [torch.arange(seeds) != seed for seed in range(seeds)]
    rates = torch.stack([wins[:, k][:, :, k][:, other[k][:, k]].mean() for k in kept])
    return (rates - rates.mean()).square().sum() * (seeds - 1) / seeds


STRENGTHS = (1.0, 0.85, 0.7, 0.55, 0.4, 0.25)
"""At which a trained LoRA is tried, the full strength first."""
DRIFT_WORDS = ((0.05, "low"), (0.15, "medium"))
"""Upper limits of each word, as KL from the base in nats per latent element; what is high is not used by default."""
UNSEEN = 0.05
"""Greatest drift at which a LoRA is recommended where no pictures before and after were drawn."""


def drift_word(drift: float) -> str:
    """Return "low", "medium" or "high".

    Args:
        drift: KL from the base, nats per latent element.
    """
    return next((word for limit, word in DRIFT_WORDS if drift < limit), "high")


def recommended_strength_of(summary: RoundSummary) -> float:
    """Return the strength at which to use a round's LoRA file: 1 where pictures before and after have decided it, else
    by its drift, see `recommended_strength`.

    Args:
        summary: of the round. If its file was scaled down already, the strength is that much greater.
    """
    if summary.kept:  # the pictures have told, see `evaluation.effect`
        return 1.0
    strength = recommended_strength(summary.strength_scan) / summary.lora_strength
    return round(min(1.0, strength), 2)


def recommended_strength(strength_scan: Sequence[Sequence[float]]) -> float:
    """Return the greatest strength at which drift is below `UNSEEN`; the smallest one if there is none.

    Args:
        strength_scan: strengths, greatest first, each with the drift measured at it. If there are none, 1 is returned.
    """
    for strength, drift in strength_scan:
        if drift < UNSEEN:
            return strength
    return strength_scan[-1][0] if strength_scan else 1.0
