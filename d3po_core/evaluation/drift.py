"""How far a trained LoRA is from the base model, in a word, and the strength that is recommended for that."""

from __future__ import annotations

from collections.abc import Sequence

from ..run import RoundSummary

STRENGTHS = (1.0, 0.7, 0.4)
"""At which a trained LoRA is tried, the full strength first."""
DRIFT_WORDS = ((0.02, "low"), (0.05, "medium"))
"""Upper limits of each word, as KL from the base in nats per latent element; training stops at 0.06 by default."""


def drift_word(drift: float) -> str:
    """Return "low", "medium" or "high".

    Args:
        drift: KL from the base, nats per latent element.
    """
    return next((word for limit, word in DRIFT_WORDS if drift < limit), "high")


def recommended_strength_of(summary: RoundSummary) -> float:
    """Return the greatest strength of a round's LoRA file at which drift is not high, at most 1.

    Args:
        summary: of the round. If its file was scaled down already, the strength is that much greater.
    """
    strength = recommended_strength(summary.strength_scan) / summary.lora_strength
    return round(min(1.0, strength), 2)


def recommended_strength(sweep: Sequence[Sequence[float]]) -> float:
    """Return the greatest strength at which drift is not high; the smallest one if drift is high at all of them.

    Args:
        sweep: strengths, greatest first, each with the drift measured at it. If there are none, 1 is returned.
    """
    for strength, drift in sweep:
        if drift_word(drift) != "high":
            return strength
    return sweep[-1][0] if sweep else 1.0
