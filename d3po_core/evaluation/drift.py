"""How far a taught model has gone from the original, in a word, and how strong its LoRA is best used for that."""

from __future__ import annotations

from collections.abc import Sequence

from ..run import RoundSummary

STRENGTHS = (1.0, 0.7, 0.4)
"""At which a taught LoRA is tried: whole, and gentler."""
DRIFT_WORDS = ((0.02, "low"), (0.05, "medium"))
"""Nats of KL from the base per latent element below which drift is called so; training stops at .06 by default."""


def drift_word(drift: float) -> str:
    """ "low", "medium" or "high".

    Args:
        drift: KL from the base, nats per latent element.
    """
    return next((word for most, word in DRIFT_WORDS if drift < most), "high")


def recommended_strength_of(summary: RoundSummary) -> float:
    """Of a round's LoRA file as it is: the greatest strength whose drift is not high.

    Args:
        summary: of the round; a file that was made gentler already needs less of that.
    """
    strength = recommended_strength(summary.strength_scan) / summary.lora_strength
    return round(min(1.0, strength), 2)


def recommended_strength(sweep: Sequence[Sequence[float]]) -> float:
    """The greatest strength whose drift is not high; the smallest one tried, if that of all is.

    Args:
        sweep: strengths, greatest first, each with the drift measured at it; none: 1.
    """
    for strength, drift in sweep:
        if drift_word(drift) != "high":
            return strength
    return sweep[-1][0] if sweep else 1.0
