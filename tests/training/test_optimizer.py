"""Updates of a LoRA by pairs: which groups and steps each one trains, with what learning rate, memory and precision."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal
from torch.nn import functional as F

from d3po_core.diffusion.denoiser import Prediction
from d3po_core.errors import D3POError
from d3po_core.picks import Pair
from d3po_core.settings import TrainSettings, fill_in
from d3po_core.training.methods import pair_loss
from d3po_core.training.passes import BatchLimits, LoraOptimizer
from d3po_core.training.preference_optimizer import PreferenceOptimizer
from d3po_core.training.rows import Reference, TrainingGroup
from tests.toy import ToyDenoiser, toy_group
from tests.training.test_passes import RANKED, gradient, group_in_double, in_double


def make_fit(policy: ToyDenoiser, groups: list[TrainingGroup], settings: TrainSettings) -> PreferenceOptimizer:
    return PreferenceOptimizer(
        policy,
        list(policy.module.parameters()),
        {g.id: len(g.pairs) for g in groups},
        {g.id: len(g.steps) for g in groups},
        {g.id: g for g in groups}.__getitem__,
        Reference("base", policy, contextlib.nullcontext, 100),
        settings,
        BatchLimits(100, 100),
    )


def test_every_group_is_used_once_per_epoch_and_training_learns_its_pairs() -> None:
    base = ToyDenoiser()
    groups = [toy_group(base, n, 2, [Pair(n % 2, 1 - n % 2, 1.0)]) for n in range(10)]
    how = TrainSettings(epochs=12, batch=4, warmup=0, learning_rate=1e-2, beta=205.0, trained_steps=0)
    fit = make_fit(base, groups, fill_in(how))
    updates = [fit.update() for _ in range(fit.total)]
    first_epoch = [u for u in updates if u.epoch == 0]
    assert sum(len(u.measures.hits) for u in first_epoch) == 10
    assert updates[0].measures.accuracy == 0.5  # policy and reference are the same
    assert fit.measure([g.id for g in groups]).accuracy > 0.85


class Watched(ToyDenoiser):
    """Notes the latents and noise levels of every forward pass."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        self.seen: list[tuple[Tensor, Tensor]] = []

    def __call__(self, x: Tensor, sigma: Tensor, *arguments: object) -> Prediction:  # type: ignore[override]
        self.seen.append((x.detach(), sigma))
        return super().__call__(x, sigma, *arguments)  # type: ignore[arg-type]


def trained_in(fit: PreferenceOptimizer, group: TrainingGroup) -> tuple[int, ...]:
    """Take an update of one group, and return the numbers of the steps that it trained of every candidate."""
    watched = fit.denoiser
    assert isinstance(watched, Watched)
    watched.seen.clear()
    fit.update()
    x, sigma = (torch.cat(parts) for parts in zip(*watched.seen, strict=True))
    numbers = [group.steps.sigma.tolist().index(value) for value in sigma.tolist()]
    chosen = tuple(sorted(set(numbers)))
    for step in chosen:
        here = x[torch.tensor([number == step for number in numbers])]
        assert torch.equal(here, group.x[:, step])  # each candidate once, in order
    return chosen


@pytest.mark.parametrize("level", ["trajectory", "step"])
@pytest.mark.parametrize("trained_steps", [1, 2, 3, 7])
def test_every_step_is_trained_once_and_the_same_of_all_candidates(level: str, trained_steps: int) -> None:
    denoiser = Watched()
    group = toy_group(denoiser, 1, 3, RANKED)
    settings = fill_in(TrainSettings(level=level, trained_steps=trained_steps, epochs=12, learning_rate=1e-3))
    fit = make_fit(denoiser, [group], settings)
    chosen = [trained_in(fit, group) for _ in range(fit.total)]
    assert [len(steps) for steps in chosen] == {1: [1, 1, 1], 2: [2, 1]}.get(trained_steps, [3])
    assert sorted(step for steps in chosen for step in steps) == [0, 1, 2]
    again = make_fit(Watched(), [group], settings)
    again.done = len(chosen) - 1  # as after an interruption
    assert trained_in(again, group) == chosen[-1]


def test_the_order_of_the_steps_is_another_one_for_every_group_and_seed() -> None:
    orders = set()
    for number, seed in itertools.product(range(4), range(3)):
        group = toy_group(denoiser := Watched(), number, 3, RANKED)
        fit = make_fit(denoiser, [group], fill_in(TrainSettings(seed=seed)))
        orders.add(tuple(trained_in(fit, group) for _ in range(fit.total)))
    assert len(orders) > 3
    assert all(sorted(order) == [(0,), (1,), (2,)] for order in orders)


def test_all_steps_are_trained_as_often_as_it_is_asked_for() -> None:
    group = toy_group(denoiser := Watched(), 1, 3, RANKED)
    fit = make_fit(denoiser, [group], fill_in(TrainSettings(trained_steps=0, epochs=12)))
    assert [trained_in(fit, group) for _ in range(fit.total)] == [(0, 1, 2)] * 12


def test_a_group_with_fewer_steps_than_the_others_is_used_less() -> None:
    denoiser = ToyDenoiser()
    groups = [toy_group(denoiser, number, 3, RANKED) for number in range(2)]
    short = dataclasses.replace(
        groups[0],
        steps=groups[0].steps[:1],
        x=groups[0].x[:, :2],
        cond=groups[0].cond[:, :1],
        guided=groups[0].guided[:, :1],
    )
    fit = make_fit(denoiser, [short, groups[1]], fill_in(TrainSettings()))
    assert [epoch for epoch, _ in fit._batches] == [0, 0, 1, 2]
    assert [names for epoch, names in fit._batches if epoch] == [[groups[1].id]] * 2
    for _ in range(fit.total):
        fit.update()


def test_what_is_measured_is_measured_on_all_steps() -> None:
    denoiser = Watched()
    group = toy_group(denoiser, 1, 3, RANKED)
    fit = make_fit(denoiser, [group], fill_in(TrainSettings(trained_steps=1)))
    denoiser.seen.clear()
    fit.measure([group.id])
    assert sum(len(x) for x, _ in denoiser.seen) == 9


def ratio_by_hand(
    policy: ToyDenoiser, base: ToyDenoiser, group: TrainingGroup, c: int, steps: tuple[int, ...]
) -> Tensor:
    """Of one candidate's conditional policy on some steps, (steps,), mean over elements, from normal densities."""

    def density(denoiser: ToyDenoiser, k: int) -> Tensor:
        s, x = group.steps, group.x[c, k][None]
        cond = denoiser(x, s.sigma[k][None], group.conditioning, 1.0).cond
        mean = float(s.x_coef[k]) * x + float(s.denoised_coef[k]) * cond
        return Normal(mean, float(s.std[k])).log_prob(group.x[c, k + 1][None]).sum() / group.elements

    return torch.stack([density(policy, k) - density(base, k).detach() for k in steps])


def test_the_learning_rate_rises_and_then_falls_in_a_straight_line() -> None:
    group = toy_group(denoiser := ToyDenoiser(), 1, 3, RANKED)
    rates = {}
    for decay in (True, False):
        how = TrainSettings(trained_steps=0, epochs=10, warmup=4, learning_rate=1e-3, decay=decay)
        fit = make_fit(denoiser, [group], fill_in(how))
        rates[decay] = [(fit.update(), fit.optimizer.adamw.param_groups[0]["lr"])[1] for _ in range(fit.total)]
    assert rates[False] == pytest.approx([0.25e-3, 0.5e-3, 0.75e-3, *[1e-3] * 7])
    fallen = [1 - done / 10 for done in range(10)]
    assert rates[True] == pytest.approx([rate * left for rate, left in zip(rates[False], fallen, strict=True)])


@pytest.mark.parametrize("trained_steps", [0, 1, 2])
@pytest.mark.parametrize("level", ["trajectory", "step"])
def test_the_gradient_of_an_update_is_that_of_the_steps_it_trains(level: str, trained_steps: int) -> None:
    """With 0 the sum or mean is over all three, as it was before there was a choice."""
    base, policy = in_double(ToyDenoiser()), in_double(Watched())
    with torch.no_grad():
        policy.module.load_state_dict(in_double(base.tuned()).module.state_dict())
    group = group_in_double(toy_group(ToyDenoiser(), 1, 3, RANKED), base)
    settings = fill_in(TrainSettings(level=level, trained_steps=trained_steps, beta=40.0, grad_clip=1e9, credit="step"))
    fit = make_fit(policy, [group], settings)
    before = copy.deepcopy(policy)
    steps = trained_in(fit, group)
    assert len(steps) == (trained_steps or 3)
    found = gradient(policy)
    loss = torch.zeros((), dtype=torch.float64)
    for pair in group.pairs:
        winner, loser = (ratio_by_hand(before, base, group, c, steps) for c in (pair.winner, pair.loser))
        margins = 40.0 * (winner - loser)
        margins = margins.sum()[None] if level == "trajectory" else margins
        loss = loss - pair.weight * F.logsigmoid(margins).mean()
    loss.backward()
    expected = gradient(before)
    assert expected.norm() > 0.01
    assert (found - expected).norm() <= 1e-10 * expected.norm()


def test_memory_running_out_halves_the_micro_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    from d3po_core.training import preference_optimizer as module

    base = ToyDenoiser()
    groups = [toy_group(base, n, 2, [Pair(0, 1, 1.0)]) for n in range(2)]
    real, sizes = module.backward, []

    def scarce(values_of, rows, loss_of, limits, scale):  # type: ignore[no-untyped-def]
        sizes.append(limits.backward)
        if limits.backward > 3:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return real(values_of, rows, loss_of, limits, scale)

    monkeypatch.setattr(module, "backward", scarce)
    make_fit(base, groups, fill_in(TrainSettings(batch=4, trained_steps=0))).update()
    assert sizes == [100, 6, 3, 3]  # then a group at a time


def test_half_precision_networks_are_trained_with_a_scaled_loss() -> None:
    base = ToyDenoiser()
    groups = [toy_group(base, n, 2, [Pair(n % 2, 1 - n % 2, 1.0)]) for n in range(4)]
    base.module.half()
    parameters = [torch.nn.Parameter(p.detach().float()) for p in base.module.parameters()]
    fit = make_fit(base, groups, fill_in(TrainSettings(warmup=0, guided_loss=True, epochs=20, trained_steps=0)))
    fit.parameters = parameters
    fit.optimizer = LoraOptimizer(base, parameters, 1e-3, 0, 1.0)
    half = list(base.module.parameters())

    def forward(x: Tensor) -> Tensor:  # float32 weights, float16 activations, as with a LoRA
        return torch.tanh(torch.nn.functional.linear(x.half(), parameters[0].half(), parameters[1].half())).float()

    base.module.forward = forward  # type: ignore[method-assign]
    before = parameters[0].detach().clone()
    updates = [fit.update() for _ in range(fit.total)]  # the first ones only find a scale that does not overflow
    assert half[0].dtype == torch.float16
    assert all(math.isfinite(update.measures.loss) for update in updates)
    assert not torch.equal(parameters[0], before)


def test_a_loss_that_is_no_number_is_told_before_it_spoils_the_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    from d3po_core.training import methods as module

    base = ToyDenoiser()
    fit = make_fit(base, [toy_group(base, 1, 2, [Pair(0, 1, 1.0)])], fill_in(TrainSettings()))
    nothing = dataclasses.replace(module.METHODS["d3po"], loss=lambda *args: pair_loss(*args) * float("nan"))
    monkeypatch.setitem(module.METHODS, "d3po", nothing)
    before = [p.detach().clone() for p in base.module.parameters()]
    with pytest.raises(D3POError, match="run away"):
        fit.update()
    assert all(torch.equal(p, b) for p, b in zip(base.module.parameters(), before, strict=True))
