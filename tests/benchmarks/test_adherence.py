"""The rank correlation of the adherence benchmark."""

from __future__ import annotations

import pytest

from benchmarks.adherence import rank_correlation


def test_equal_values_share_their_rank() -> None:
    """By hand: ranks 1.5, 1.5, 3, 4 and 1, 2.5, 2.5, 4."""
    assert rank_correlation([(0, 1), (0, 2), (5, 2), (9, 7)]) == pytest.approx(0.75 / 0.9, abs=1e-9)
    assert rank_correlation([(1, 3), (2, 5), (4, 7)]) == pytest.approx(1)
    assert rank_correlation([(1, 7), (2, 5), (4, 3)]) == pytest.approx(-1)
