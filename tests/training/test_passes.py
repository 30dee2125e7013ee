"""Log-ratios and gradients of groups, against densities and loops written out by hand."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal
from torch.nn import functional as F

from d3po_core.diffusion.denoiser import Prediction
from d3po_core.diffusion.steps import ancestral
from d3po_core.picks import Pair
from d3po_core.settings import TrainSettings, fill_in
from d3po_core.training.methods import pair_loss, ratios
from d3po_core.training.passes import BatchLimits, backward, mean_kl, row_log_ratios
from d3po_core.training.rows import Reference, Rows, TrainingGroup, group_rows, join_rows, predict
from tests.toy import SIGMAS, ToyDenoiser, toy_group

RANKED = [Pair(0, 1, 1 / 3), Pair(0, 2, 1 / 3), Pair(2, 1, 1 / 3)]


def ratios_by(denoiser: ToyDenoiser) -> Callable[[Rows], Tensor]:
    return lambda rows: ratios(predict(denoiser, rows), rows, fill_in(TrainSettings()))


def log_density(denoiser: ToyDenoiser, group: TrainingGroup, candidate: int, step: int) -> Tensor:
    """log pi(x_next | x) of one step of one image, guided, from torch's normal distribution."""
    s = group.steps
    x, x_next = group.x[candidate, step][None], group.x[candidate, step + 1][None]
    guided = denoiser(x, s.sigma[step][None], group.conditioning, group.guidance_scale).guided
    mean = float(s.x_coef[step]) * x + float(s.denoised_coef[step]) * guided
    return Normal(mean, float(s.std[step])).log_prob(x_next).sum()


def test_row_log_ratios_are_differences_of_normal_densities() -> None:
    base = ToyDenoiser()
    policy = base.tuned()
    group = toy_group(base, 1, 3, RANKED)
    rows = group_rows(group, group.guided, True, base.device)
    got = row_log_ratios(policy, rows).detach().unflatten(0, group.shape)
    for c in range(3):
        for k in range(3):
            expected = (log_density(policy, group, c, k) - log_density(base, group, c, k)) / group.elements
            assert float(got[c, k]) == pytest.approx(float(expected.detach()), rel=1e-3, abs=1e-5)


def naive_loss(policy: ToyDenoiser, base: ToyDenoiser, group: TrainingGroup, beta: float, level: str) -> Tensor:
    """Pair by pair, image by image, step by step, the reference evaluated each time."""
    total = torch.zeros((), dtype=group.x.dtype)
    for pair in group.pairs:
        ratio = [
            [log_density(policy, group, c, k) - log_density(base, group, c, k).detach() for k in range(3)]
            for c in (pair.winner, pair.loser)
        ]
        steps = [beta / group.elements * (w - lo) for w, lo in zip(*ratio, strict=True)]
        if level == "trajectory":
            total = total - pair.weight * F.logsigmoid(torch.stack(steps).sum())
        else:
            total = total - pair.weight * torch.stack([F.logsigmoid(s) for s in steps]).mean()
    return total


def in_double(denoiser: ToyDenoiser) -> ToyDenoiser:
    other = copy.deepcopy(denoiser)
    other.module.double()
    return other


def group_in_double(group: TrainingGroup, base: ToyDenoiser) -> TrainingGroup:
    """The same latents, and what `base` predicts on them, one at a time, all float64."""
    conditioning = {name: value.double() for name, value in group.conditioning.items()}
    other = dataclasses.replace(group, x=group.x.double(), conditioning=conditioning)
    predictions = [
        base(other.x[c, k][None], other.steps.sigma[k][None], conditioning, group.guidance_scale)
        for c in range(group.shape[0])
        for k in range(group.shape[1])
    ]
    cond, guided = (
        torch.cat([getattr(p, name) for p in predictions]).detach().unflatten(0, group.shape)
        for name in ("cond", "guided")
    )
    return dataclasses.replace(other, cond=cond, guided=guided)


def gradient(denoiser: ToyDenoiser) -> Tensor:
    """What has been accumulated in the network's parameters, which is taken out of them."""
    parameters = list(denoiser.module.parameters())
    found = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None]).double()
    assert len(found) == sum(p.numel() for p in parameters)
    denoiser.module.zero_grad()
    return found


@pytest.mark.parametrize(("dtype", "exact"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("level", ["trajectory", "step"])
@pytest.mark.parametrize("micro_batch", [1, 4, 100])
def test_group_gradient_equals_the_sum_over_pairs(
    level: str, micro_batch: int, dtype: torch.dtype, exact: float
) -> None:
    """The sum is taken in float64 throughout: what is measured is the error of the group's gradient."""
    base = ToyDenoiser()
    policy = base.tuned()
    groups = [toy_group(base, 1, 3, RANKED), toy_group(base, 2, 2, [Pair(1, 0, 1.0)])]
    settings = fill_in(TrainSettings(level=level, beta=40.0))
    base_64, policy_64 = in_double(base), in_double(policy)
    groups_64 = [group_in_double(group, base_64) for group in groups]
    expected_loss = sum(naive_loss(policy_64, base_64, group, 40.0, level) for group in groups_64)
    expected_loss.backward()
    expected = gradient(policy_64)
    if dtype == torch.float64:
        base, policy, groups = base_64, policy_64, groups_64

    rows = join_rows([group_rows(g, g.guided, True, base.device) for g in groups])
    assert rows.x.dtype == rows.ref.dtype == rows.z.dtype == dtype

    def loss_of(values: Tensor) -> Tensor:
        first, second = values.split([9, 6])
        return pair_loss(first.unflatten(0, (3, 3)), groups[0], settings) + pair_loss(
            second.unflatten(0, (2, 3)), groups[1], settings
        )

    loss, values = backward(ratios_by(policy), rows, loss_of, BatchLimits(micro_batch, micro_batch))
    assert loss.dtype == values.dtype == dtype
    assert float(loss) == pytest.approx(expected_loss.item(), rel=exact)
    assert (gradient(policy) - expected).norm() <= exact * expected.norm()


@pytest.mark.parametrize("guided", [True, False])
@pytest.mark.parametrize(("dtype", "exact"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_two_passes_give_the_gradient_of_one(dtype: torch.dtype, exact: float, guided: bool) -> None:
    base = ToyDenoiser()
    policy = base.tuned()
    group = toy_group(base, 1, 3, RANKED)
    if dtype == torch.float64:
        base, policy = in_double(base), in_double(policy)
        group = group_in_double(group, base)
    rows = group_rows(group, group.guided if guided else group.cond, guided, base.device)
    gradients = []
    for micro_batch in (100, 9, 8, 2, 1):
        backward(
            ratios_by(policy),
            rows,
            lambda r: pair_loss(r.unflatten(0, (3, 3)), group, fill_in(TrainSettings())),
            BatchLimits(micro_batch, micro_batch),
        )
        gradients.append(gradient(policy))
    assert all((other - gradients[0]).norm() <= exact * gradients[0].norm() for other in gradients[1:])


def test_conditional_loss_uses_the_conditional_residual() -> None:
    """At the reference the conditional log-ratio is 0, and z is not the injected noise but the residual of D_cond."""
    base = ToyDenoiser()
    group = toy_group(base, 1, 2, [Pair(0, 1, 1.0)])
    rows = group_rows(group, group.cond, False, base.device)
    assert row_log_ratios(base, rows).abs().max() < 1e-7
    guided = group_rows(group, group.guided, True, base.device)
    assert (rows.z - guided.z).abs().max() > 0.05


def test_kl_is_the_mean_of_kl_divergences() -> None:
    base = ToyDenoiser()
    policy = base.tuned()
    group = toy_group(base, 1, 2, [Pair(0, 1, 1.0)])
    expected = torch.zeros(())
    for c in range(2):
        for k in range(3):
            x, s = group.x[c, k][None], group.steps
            means = [
                float(s.x_coef[k]) * x
                + float(s.denoised_coef[k]) * d(x, s.sigma[k][None], group.conditioning, 3.0).guided
                for d in (base, policy)
            ]
            normals = [Normal(m, float(s.std[k])) for m in means]
            expected = expected + torch.distributions.kl_divergence(normals[0], normals[1]).sum().detach() / 2
    found = mean_kl(policy, [group], lambda g: g.guided, 3)
    assert found.per_image == pytest.approx(float(expected), rel=1e-3)
    assert found.per_element == pytest.approx(float(expected) / 18, rel=1e-3)  # SHAPE


class Shifted:
    """Predicts one number everywhere, whatever the size."""

    device = torch.device("cpu")

    def __init__(self, value: float) -> None:
        self.value = value

    def __call__(self, x: Tensor, *arguments: object) -> Prediction:
        return Prediction(torch.full_like(x, self.value), torch.full_like(x, self.value))


def test_every_picture_drifts_by_its_own_size() -> None:
    """Two policies that differ by 0.3 everywhere are c^2 0.3^2 / 2 apart in every latent element and step."""
    steps = ancestral(SIGMAS, torch.ones(4))[:3]

    def group(side: int, candidates: int) -> TrainingGroup:
        still = torch.zeros(candidates, 3, 4, side, side)
        return dataclasses.replace(
            toy_group(ToyDenoiser(), 1, candidates, []),
            **{"steps": steps, "x": torch.zeros(candidates, 4, 4, side, side), "cond": still, "guided": still},
            latents=still[:, 0],
        )

    apart = float(((steps.denoised_coef / steps.std) ** 2 * 0.3**2 / 2).sum())
    found = mean_kl(Shifted(0.3), [group(8, 2), group(2, 4)], lambda g: g.guided, 5)  # type: ignore[arg-type]
    assert found.per_element == pytest.approx(apart, rel=1e-5)
    assert found.per_image == pytest.approx(apart * (2 * 256 + 4 * 16) / 6, rel=1e-5)


def test_a_thin_measure_of_drift_is_the_whole_one_where_all_steps_drift_alike() -> None:
    steps = ancestral(SIGMAS, torch.ones(4))[:3]
    alike = dataclasses.replace(steps, denoised_coef=torch.full((3,), 0.4), std=torch.full((3,), 0.8))
    group = dataclasses.replace(toy_group(ToyDenoiser(), 1, 2, []), steps=alike, guided=torch.zeros(2, 3, 2, 3, 3))
    expected = 3 * (0.4 / 0.8) ** 2 * 0.3**2 / 2  # three steps
    for thin in (False, True):
        found = mean_kl(Shifted(0.3), [group] * 2, lambda g: g.guided, 5, thin)  # type: ignore[arg-type]
        assert found.per_element == pytest.approx(expected, rel=1e-5)
        assert found.per_image == pytest.approx(expected * 18, rel=1e-5)


def test_a_thin_measure_of_drift_takes_another_place_in_every_group() -> None:
    """Six groups of two images and three steps, all the same: their places are all six, so the mean is the whole."""
    base, rows = ToyDenoiser(), []
    policy, group = base.tuned(), toy_group(base, 1, 2, [])
    whole = mean_kl(policy, [group], lambda g: g.guided, 6)

    class Counted:
        device = torch.device("cpu")

        def __call__(self, x: Tensor, *arguments: object) -> Prediction:
            rows.extend(x)
            return policy(x, *arguments)  # type: ignore[arg-type]

    thin = mean_kl(Counted(), [group] * 6, lambda g: g.guided, 6, thin=True)  # type: ignore[arg-type]
    assert len(rows) == 6  # of 36
    assert {tuple(row.flatten().tolist()) for row in rows} == {
        tuple(x.flatten().tolist()) for x in group.x[:, :3].flatten(0, 1)
    }
    assert thin.per_element == pytest.approx(whole.per_element, rel=1e-5)
    assert thin.per_image == pytest.approx(whole.per_image, rel=1e-5)
    one = mean_kl(policy, [group], lambda g: g.guided, 6, thin=True)
    assert one.per_element != pytest.approx(whole.per_element, rel=0.05)  # the steps do differ


def test_a_reference_that_did_not_sample_is_evaluated_once() -> None:
    base = ToyDenoiser()
    other = base.tuned(seed=5)
    calls = 0
    group = toy_group(other, 1, 2, [Pair(0, 1, 1.0)])
    object.__setattr__(group, "policy", "round 1")

    def counted(*args):  # type: ignore[no-untyped-def]
        nonlocal calls
        calls += 1
        return base(*args)

    counted.device = base.device  # type: ignore[attr-defined]
    reference = Reference("base", counted, contextlib.nullcontext, 100)  # type: ignore[arg-type]
    first = reference.predictions(group, guided=True)
    again = reference.predictions(group, guided=True)
    assert calls == 1 and torch.equal(again, first)
    x = group.x[1, 2][None]
    expected = base(x, group.steps.sigma[2][None], group.conditioning, 3.0).guided[0]
    assert torch.allclose(first[1, 2], expected, atol=1e-3)  # kept in float16
    assert (first - group.guided).abs().max() > 1e-3
