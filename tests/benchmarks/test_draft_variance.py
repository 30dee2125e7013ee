"""The figures of the benchmark of DRaFT's gradients, on draws whose variance is known."""

from __future__ import annotations

import pytest
import torch

from benchmarks.draft_variance import cosine, noise_to_signal, variance


def test_variance_and_scale_are_those_of_the_distribution_however_few_the_draws():
    """In 400 dimensions about a mean of length 2: noise of .5 is 25 times the squared mean, noise of .1 once.

    Without taking off the mean's own noise, 8 draws of the latter would give 1 / (1 + 1 / 8) = .89.
    """
    chance = torch.Generator().manual_seed(0)
    mean = torch.full((400,), 0.1)
    sets = [mean + 0.5 * torch.randn(256, 400, generator=chance) for _ in range(20)]
    assert sum(map(variance, sets)) / 20 == pytest.approx(100, rel=0.02)
    assert sum(map(noise_to_signal, sets)) / 20 == pytest.approx(25, rel=0.05)
    few = [mean + 0.1 * torch.randn(8, 400, generator=chance) for _ in range(50)]
    assert sum(map(noise_to_signal, few)) / 50 == pytest.approx(1, rel=0.05)


def test_cosines_are_by_row():
    a = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    assert cosine(a, torch.tensor([[0.0, 2.0], [3.0, 3.0]])).tolist() == pytest.approx([0.0, 1.0])
