"""What painting over a part of a picture does to losses, gradients and rounds."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from d3po_core.diffusion.losses import log_ratio, nft, per_row
from d3po_core.diffusion.steps import step_mean
from d3po_core.picks import MASK_SIZE, Pair, Pick
from d3po_core.run import Run
from d3po_core.training.masks import from_tensor, latent_weight
from d3po_core.training.preferences import GroupLoader, PreferenceData, collect_preferences
from d3po_core.training.rows import TrainingGroup, group_rows, join_rows, noise_images
from tests.toy import ToyDenoiser, ToyModel, toy_group
from tests.training.picked import copied, picked_run, trainer

LEFT = from_tensor(torch.arange(MASK_SIZE)[None, :].expand(MASK_SIZE, MASK_SIZE) < MASK_SIZE // 2)
ALL = from_tensor(torch.ones(MASK_SIZE, MASK_SIZE, dtype=torch.bool))
PAIRS = [Pair(0, 1, 1.0)]


def group_of(weight: Tensor | None = None) -> TrainingGroup:
    return dataclasses.replace(toy_group(ToyDenoiser(), 1, 3, PAIRS), weight=weight)


def test_the_log_ratio_is_the_weighted_sum_of_its_places() -> None:
    """Against the densities of every latent element by themselves, from torch.distributions."""
    group = group_of()
    rows = group_rows(group, group.cond, False, torch.device("cpu"))
    x, ref, z = rows.x.double(), rows.ref.double(), rows.z.double()
    torch.manual_seed(4)
    policy, weight = ref + 0.1 * torch.randn_like(ref), torch.rand(len(rows), 1, *x.shape[2:])
    std = per_row(rows.steps.std, x)
    x_next = step_mean(rows.steps, x, ref) + std * z
    tuned, base = (Normal(step_mean(rows.steps, x, of), std).log_prob(x_next) for of in (policy, ref))
    expected = (weight * (tuned - base)).flatten(1).sum(1)
    assert torch.allclose(log_ratio(policy, ref, z, rows.steps, weight), expected, rtol=1e-9)


def test_equal_weights_change_nothing() -> None:
    group = group_of()
    rows = group_rows(group, group.cond, False, torch.device("cpu"))
    policy, ones = rows.ref * 1.1, torch.ones(len(rows), 1, 1, 1)
    plain = log_ratio(policy, rows.ref, rows.z, rows.steps)
    assert torch.equal(log_ratio(policy, rows.ref, rows.z, rows.steps, ones), plain)
    clean, score = rows.ref * 0.9, torch.linspace(0, 1, len(rows))
    assert torch.equal(nft(policy, rows.ref, clean, score, 0.3, ones), nft(policy, rows.ref, clean, score, 0.3))


def test_what_is_not_meant_has_no_gradient_and_the_rest_has_more() -> None:
    weight = latent_weight([(0, LEFT)], torch.zeros(2, 2, 4, 4), outside=0.0)
    assert weight is not None
    policy = torch.randn(2, 2, 4, 4, requires_grad=True)
    ref, z = torch.randn(2, 2, 4, 4), torch.randn(2, 2, 4, 4)
    steps = group_of().steps[torch.zeros(2, dtype=torch.long)]
    (plain,) = torch.autograd.grad(log_ratio(policy, ref, z, steps).sum(), policy)
    (masked,) = torch.autograd.grad(log_ratio(policy, ref, z, steps, weight).sum(), policy)
    assert torch.equal(masked[..., 2:], torch.zeros(2, 2, 4, 2))
    assert torch.allclose(masked[..., :2], 2 * plain[..., :2])


def test_groups_with_and_without_masks_are_one_batch() -> None:
    weight = torch.arange(27.0).reshape(3, 1, 3, 3)
    plain, painted = group_of(), group_of(weight)
    parts = [group_rows(group, group.cond, False, torch.device("cpu")) for group in (plain, painted)]
    joined = join_rows(parts).weight
    assert joined is not None and parts[0].weight is None
    assert torch.equal(joined[: len(parts[0])], torch.ones(len(parts[0]), 1, 3, 3))
    of_steps = joined[len(parts[0]) :].unflatten(0, plain.shape)
    assert torch.equal(of_steps, weight[:, None].expand_as(of_steps))
    assert join_rows(parts[:1] * 2).weight is None
    noised = noise_images(painted, torch.tensor([1.0, 2.0]), 2, torch.Generator(), ToyDenoiser())
    assert noised.weight is not None and torch.equal(noised.weight, weight.repeat_interleave(2, 0))


@pytest.fixture
def picked(tmp_path: Path) -> Run:
    return picked_run(tmp_path / "run", ToyModel())


def paint(run: Run, mask: tuple[int, ...]) -> None:
    for pick in run.picks.standing():
        run.masks.add(pick.group_id, pick.pick.order[0], mask)


def trained(run: Run) -> Tensor:
    with trainer(run, ToyModel(), judge=False) as training:
        for _ in training.steps():
            pass
        return torch.cat([layer.up @ layer.down for layer in training.result().weights.values()])


def test_a_round_learns_from_what_is_painted(picked: Run, tmp_path: Path) -> None:
    part, whole = copied(picked, tmp_path / "part"), copied(Run.open(tmp_path / "run"), tmp_path / "whole")
    plain = trained(Run.open(tmp_path / "run"))
    paint(whole, ALL)
    paint(part, LEFT)
    painted = trained(part)
    assert torch.allclose(trained(whole), plain, atol=1e-6)
    assert not torch.allclose(painted, plain, atol=1e-3)


def test_masks_are_fixed_when_the_round_begins(picked: Run) -> None:
    paint(picked, LEFT)
    data = collect_preferences(picked)
    (group_id, ((candidate, mask),)) = next(iter(data.masks.items()))
    assert mask == LEFT
    stored = PreferenceData.from_json(data.to_json())  # type: ignore[arg-type]  # as JSON gives it back
    assert stored.masks == data.masks
    paint(picked, ALL)
    weight = GroupLoader(picked, stored)(group_id).weight
    assert weight is not None
    latents = GroupLoader(picked, stored)(group_id).latents
    expected = latent_weight([(candidate, LEFT)], latents)
    assert expected is not None and torch.equal(weight, expected)


def test_masks_of_who_judged_nothing_are_left(picked: Run) -> None:
    """Of somebody who painted and went on, or skipped; and after the pick was taken back."""
    first, second, *_ = picked.picks.standing()
    picked.masks.add(first.group_id, 0, LEFT, who="Anna")
    picked.picks.add(first.group_id, Pick("skipped"), who="Anna")
    picked.masks.add(second.group_id, 1, ALL, who="Anna")
    picked.masks.add(second.group_id, 0, LEFT)
    assert collect_preferences(picked).masks == {second.group_id: [(0, LEFT)]}
    picked.picks.add(second.group_id, Pick("favourite", (1,)), who="Anna")
    assert collect_preferences(picked).masks == {second.group_id: [(1, ALL), (0, LEFT)]}
    picked.picks.remove(second.pick_id)
    picked.masks.add(second.group_id, 0, LEFT)
    assert collect_preferences(picked).masks == {second.group_id: [(1, ALL)]}


def test_hidden_picks_are_measured_by_what_was_painted(picked: Run) -> None:
    paint(picked, LEFT)
    data = collect_preferences(picked)
    assert data.held_out and set(data.masks) == {*data.training, *data.held_out}
