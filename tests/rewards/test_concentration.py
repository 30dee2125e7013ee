"""The second fit of a judge's head, on features scaled by the weights of the first."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from d3po_core.rewards.cross_validation import (
    PairData,
    choose_ridge,
    concentrated,
    fit_head,
    fit_scaled,
    hidden_margins,
)

FEATURES = 30


def picked(weights: Tensor, groups: int, seed: int) -> tuple[PairData, Tensor]:
    """Favourites of four by these weights, of features of which every third has much in common with its neighbours.

    Returns:
        The pairs, and features of other pictures, (500, F).
    """
    chance = torch.Generator().manual_seed(seed)

    def pictures(*size: int) -> Tensor:
        own = torch.randn(*size, FEATURES, dtype=torch.float64, generator=chance)
        shared = torch.randn(*size, FEATURES // 3, dtype=torch.float64, generator=chance).repeat_interleave(3, -1)
        return own + 2 * shared

    seen = pictures(groups, 4)
    utility = seen @ weights + 0.5 * torch.randn(groups, 4, dtype=torch.float64, generator=chance)
    order = utility.argsort(1, descending=True)[..., None].expand_as(seen)
    ranked = seen.gather(1, order)
    differences = (ranked[:, :1] - ranked[:, 1:]).flatten(0, 1) / seen.std()
    each = torch.full((3 * groups,), 1 / 3, dtype=torch.float64)
    return PairData(differences, each, torch.arange(groups).repeat_interleave(3)), pictures(500)


def correlation(a: Tensor, b: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a, b]))[0, 1])


SCALE = torch.full((FEATURES,), FEATURES**-0.5, dtype=torch.float64)


def test_a_taste_for_one_thing_is_told_from_what_goes_along_with_it():
    one = torch.zeros(FEATURES, dtype=torch.float64)
    one[4] = 1.0
    plain, found = [], []
    for seed in range(6):
        data, others = picked(one, 64, seed)
        first = fit_scaled(data, SCALE, choose_ridge([data.scaled(SCALE)[0]], 5).ridge)
        weights, choice = fit_head(data, [SCALE])
        assert choice.power > 0
        plain.append(correlation(others @ first, others @ one))
        found.append(correlation(others @ weights, others @ one))
    assert min(found) > 0.97
    assert all(better > worse for better, worse in zip(found, plain, strict=True))


def test_a_taste_for_everything_at_once_is_not_narrowed():
    everything = torch.where(torch.arange(FEATURES) % 2 == 0, 1.0, -1.0).double()  # what neighbours share cancels
    for seed in range(4):
        data, others = picked(everything, 64, seed)
        first = fit_scaled(data, SCALE, choose_ridge([data.scaled(SCALE)[0]], 5).ridge)
        weights, _ = fit_head(data, [SCALE])
        lost = correlation(others @ first, others @ everything) - correlation(others @ weights, others @ everything)
        assert lost < 0.03


def test_repeated_with_a_power_of_one_half_it_is_the_lasso():
    """Where a lasso is least, the loss has the same slope at every weight that is not 0, and no greater one elsewhere
    (Grandvalet 1998)."""
    one = torch.zeros(FEATURES, dtype=torch.float64)
    one[[4, 20]] = 1.0
    data, _ = picked(one, 64, 0)
    scale, ridge = SCALE, 0.5
    weights = fit_scaled(data, scale, ridge)
    for _ in range(400):
        scale = weights.abs().sqrt()  # not of a fixed length: the lasso's penalty is constant
        weights = fit_scaled(data, scale, ridge)
    miss = torch.sigmoid(-(data.differences @ weights))
    slope = data.differences.T @ (data.weights * miss)
    active = weights.abs() > 1e-3
    assert 1 < int(active.sum()) < FEATURES
    assert torch.allclose(slope[active], ridge * weights.sign()[active], rtol=1e-3)
    assert float(slope[~active].abs().max()) < ridge * 1.01


def test_what_is_concentrated_keeps_its_length_and_nothing_is_made_of_no_weights():
    weights = torch.tensor([0.0, -4.0, 1.0], dtype=torch.float64)
    scale = torch.tensor([2.0, 1.0, 2.0], dtype=torch.float64)
    assert torch.allclose(concentrated(scale, weights, 0.5), torch.tensor([0.0, 2.0, 1.0]).double() * 3 / 5**0.5)
    assert torch.equal(concentrated(scale, weights, 0.0), scale)
    assert torch.equal(concentrated(scale, torch.zeros(3).double(), 1.0), scale)


@pytest.mark.parametrize("groups", [13, 40])
def test_hidden_groups_are_hidden_from_every_choice(groups):
    """Turning a hidden fold's picks round turns its margins' truth round, and changes no margin of its own."""
    data, _ = picked(torch.ones(FEATURES).double(), groups, 1)
    margins, _ = hidden_margins(data, [SCALE], 4)
    for group in (0, groups - 1):
        rows = data.groups == group
        turned = data.differences.clone()
        turned[rows] *= -1
        again, _ = hidden_margins(PairData(turned, data.weights, data.groups), [SCALE], 4)
        assert torch.allclose(again[rows], -margins[rows], atol=1e-6)


@pytest.mark.parametrize("groups", [1, 2, 3, 4])
def test_very_few_groups_are_no_error(groups):
    """Of which images are missing or damaged is found out after the groups were counted."""
    data, _ = picked(torch.ones(FEATURES).double(), groups, 2)
    weights, _ = fit_head(data, [SCALE])
    assert weights.isfinite().all() and hidden_margins(data, [SCALE])[0].isfinite().all()
