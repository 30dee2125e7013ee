"""Drift in words, and the strength that follows from it."""

from __future__ import annotations

import pytest

from d3po_core.evaluation.compare import drift_word, recommended_strength, recommended_strength_of
from d3po_core.run import RoundSummary
from d3po_core.settings import TrainSettings


@pytest.mark.parametrize(
    ("sweep", "expected"),
    [
        ([], 1.0),
        ([(1.0, 0.01), (0.7, 0.005), (0.4, 0.002)], 1.0),
        ([(1.0, 0.055), (0.7, 0.027), (0.4, 0.009)], 0.7),
        ([(1.0, 0.9), (0.7, 0.4), (0.4, 0.16)], 0.4),
    ],
)
def test_the_greatest_strength_without_high_drift_is_recommended(
    sweep: list[tuple[float, float]], expected: float
) -> None:
    assert recommended_strength(sweep) == expected


def test_no_lora_whose_drift_is_called_high_is_used_by_default() -> None:
    assert drift_word(TrainSettings().drift_limit * (1 - 1e-9)) == "medium"
    assert drift_word(TrainSettings().drift_limit + 1e-9) == "high"


def test_what_pictures_have_decided_needs_no_other_strength() -> None:
    assert recommended_strength_of(RoundSummary(strength_scan=((1.0, 0.9),), kept=((1.0, 0.95),))) == 1.0


def test_a_file_that_was_made_gentler_needs_no_more_of_it() -> None:
    scan = ((1.0, 0.055), (0.7, 0.027), (0.4, 0.009))
    summaries = [RoundSummary(strength_scan=scan, lora_strength=strength) for strength in (1.0, 0.7, 0.4)]
    assert [recommended_strength_of(summary) for summary in summaries] == [0.7, 1.0, 1.0]
    all_high = RoundSummary(strength_scan=((1.0, 0.9), (0.7, 0.4), (0.4, 0.16)), lora_strength=0.7)
    assert recommended_strength_of(all_high) == 0.57
    assert recommended_strength_of(RoundSummary()) == 1.0
