"""Win rates against numbers worked out by hand, and against the closed form for normal scores."""

from __future__ import annotations

import math

import pytest
import torch

from d3po_core.evaluation.compare import compare


def test_same_seeds_are_left_out() -> None:
    before = torch.tensor([[0.0, 10.0], [0.0, 10.0]])
    after = before + 1  # better on every same seed, yet no better than chance on others
    c = compare(before, after)
    assert c.win_rate == 0.5
    assert c.win_rate_se == 0
    assert c.images == 4


def test_ties_count_half() -> None:
    assert compare(torch.zeros(3, 4), torch.zeros(3, 4) + torch.eye(3, 4) * 0).win_rate == 0.5


def test_normal_scores_give_the_probit_of_the_gain() -> None:
    """P(a > b) of two unit normals d apart is Phi(d / sqrt 2)."""
    g = torch.Generator().manual_seed(0)
    before, after = torch.randn(50, 100, generator=g), torch.randn(50, 100, generator=g) + 0.8
    c = compare(before.double(), after.double())
    expected = 0.5 * (1 + math.erf(0.8 / 2))
    assert c.win_rate == pytest.approx(expected, abs=4 * c.win_rate_se)
    assert c.gain == pytest.approx(0.8, abs=0.08)
    assert 0.001 < c.win_rate_se < 0.02


def test_luck_of_shared_seeds_is_in_the_standard_error() -> None:
    """Scores that hang on the seed alone: prompts agree with each other, yet little is known."""
    g = torch.Generator().manual_seed(1)
    rates, errors = [], []
    for _ in range(200):
        before, after = torch.randn(1, 8, generator=g), torch.randn(1, 8, generator=g)
        c = compare(before.expand(16, 8).double(), after.expand(16, 8).double())
        rates.append(c.win_rate)
        errors.append(c.win_rate_se)
    spread = torch.tensor(rates).std()
    assert sum(errors) / len(errors) == pytest.approx(float(spread), rel=0.35)
