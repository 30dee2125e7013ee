"""Masks as numbers and as weights of latents."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from d3po_core.errors import D3POError
from d3po_core.picks import MASK_SIZE, Mask, check_mask
from d3po_core.training.masks import OUTSIDE, from_tensor, latent_weight, to_tensor

LEFT = (0xFFFF0000,) * MASK_SIZE
TOP = (0xFFFFFFFF,) * (MASK_SIZE // 2) + (0,) * (MASK_SIZE // 2)


@given(st.lists(st.integers(0, 2**MASK_SIZE - 1), min_size=MASK_SIZE, max_size=MASK_SIZE))
def test_cells_and_rows_are_the_same(rows: list[int]) -> None:
    mask = check_mask(rows)
    if mask:
        cells = to_tensor(mask)
        assert from_tensor(cells > 0) == mask
        assert [int("".join(str(int(cell)) for cell in row), 2) for row in cells] == rows
    else:
        assert not any(rows)


@pytest.mark.parametrize(
    "rows", [[1], [0] * 31, [0] * 33, [2**32] * 32, [-1] * 32, [True] * 32, [1.0] * 32, ["1"] * 32]
)
def test_what_is_no_mask_is_refused(rows: list[object]) -> None:
    with pytest.raises(D3POError, match="32 rows"):
        check_mask(rows)


def test_what_is_painted_weighs_more_in_all_candidates_and_the_mean_stays() -> None:
    weight = latent_weight([(1, LEFT)], torch.zeros(3, 4, 8, 12))
    assert weight is not None and weight.shape == (3, 1, 8, 12)
    expected = torch.tensor([1.0, OUTSIDE]) / ((1 + OUTSIDE) / 2)
    assert torch.allclose(weight[..., :6], expected[0].expand(3, 1, 8, 6))
    assert torch.allclose(weight[..., 6:], expected[1].expand(3, 1, 8, 6))


def corners(masks: list[tuple[int, Mask]]) -> Tensor:
    weight = latent_weight(masks, torch.zeros(2, 16, 1, 64, 64), outside=0.0)
    assert weight is not None and weight.shape == (2, 1, 1, 64, 64)
    return weight[0, 0, 0, [0, 0, -1, -1], [0, -1, 0, -1]]


def test_of_several_people_the_mean_counts_and_of_several_candidates_the_largest() -> None:
    assert torch.allclose(corners([(0, LEFT), (0, TOP)]), torch.tensor([2.0, 1.0, 1.0, 0.0]))
    assert torch.allclose(corners([(0, LEFT), (1, TOP)]), torch.tensor([1.0, 1.0, 1.0, 0.0]) / 0.75)


def test_a_cell_that_is_cut_counts_in_part() -> None:
    mask = from_tensor(torch.arange(MASK_SIZE)[None, :].expand(MASK_SIZE, MASK_SIZE) == 0)
    weight = latent_weight([(0, mask)], torch.zeros(1, 4, 8, 8), outside=0.0)
    assert weight is not None
    assert torch.allclose(weight[0, 0, 0], torch.tensor([8.0, *[0.0] * 7]))  # a quarter of a place, all of the mean


def test_without_masks_there_is_no_weight() -> None:
    assert latent_weight([], torch.zeros(2, 4, 8, 8)) is None
