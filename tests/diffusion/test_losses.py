"""The loss against the published formula, in ratios rather than logarithms, and its bounds."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from d3po_core.diffusion.losses import clipped, d3po

ratios = st.floats(-3, 3)


@given(ratios, ratios)
def test_equals_the_published_loss(winner: float, loser: float) -> None:
    """Yang et al., eq. 14: -log sigmoid(beta log(pi_w / ref_w) - beta log(pi_l / ref_l)), ratios in [0.9, 1.1]."""
    w, lo = (min(max(math.exp(r), 0.9), 1.1) for r in (winner, loser))
    expected = -math.log(1 / (1 + (w**0.1 / lo**0.1) ** -1))
    got = d3po(torch.tensor(winner, dtype=torch.float64), torch.tensor(loser, dtype=torch.float64), 0.1, 0.1)
    assert float(got) == pytest.approx(expected, abs=1e-12)
    assert 0.683 <= float(got) <= 0.704


@given(ratios, ratios, st.floats(0.0, 0.49))
def test_smoothing_mixes_the_swapped_loss(winner: float, loser: float, share: float) -> None:
    a, b = torch.tensor(winner).double(), torch.tensor(loser).double()
    expected = (1 - share) * d3po(a, b, 2.0) + share * d3po(b, a, 2.0)
    assert float(d3po(a, b, 2.0, label_smoothing=share)) == pytest.approx(float(expected), abs=1e-12)


def test_clip_fraction_counts_ratios_outside() -> None:
    log_ratios = torch.tensor([0.0, 0.05, 0.2, -0.5]).log1p()
    assert float(clipped(log_ratios, 0.1)) == 0.5
    assert float(clipped(log_ratios, 0.0)) == 0
