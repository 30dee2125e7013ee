"""Each comparison method's loss and gradient, against its published formula written out from densities or errors.

What is compared with: normal densities and their KL from torch.distributions for the policy gradients; for the methods
on finished images the noise (or velocity) that a network predicts, as their papers and their authors' code have it.
"""

from __future__ import annotations

import contextlib
import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from d3po_core.diffusion.losses import advantages, d3po, diffusion_kto, nft
from d3po_core.diffusion.rollout import generator
from d3po_core.picks import Pair
from d3po_core.settings import TrainSettings, fill_in
from d3po_core.training.methods import METHODS
from d3po_core.training.rows import (
    Reference,
    TrainingGroup,
    group_rows,
    noise_images,
    noise_levels,
    predict,
    with_reference,
)
from tests.toy import ToyDenoiser, toy_group

RANKED = [Pair(0, 1, 1 / 3), Pair(0, 2, 1 / 3), Pair(2, 1, 1 / 3)]
DRAWS = 3
OFFSET = 0.004
"""Of Diffusion-KTO: the mean log-ratio of the update before."""


class FlowToy(ToyDenoiser):
    family = "flow"

    def sigmas(self, steps: int, schedule: str) -> Tensor:
        return torch.linspace(1, 0, steps + 1, dtype=torch.float64)[1:] * 0.97


def in_double(denoiser: ToyDenoiser) -> ToyDenoiser:
    denoiser.module.double()
    return denoiser


def double_group() -> TrainingGroup:
    group = toy_group(ToyDenoiser(), 1, 3, RANKED)
    fields = ("x", "cond", "guided", "latents")
    conditioning = {"prompt": group.conditioning["prompt"].double()}
    return dataclasses.replace(
        group, conditioning=conditioning, **{name: getattr(group, name).double() for name in fields}
    )


def ours(method: str, settings: TrainSettings, rows, group, policy) -> tuple[Tensor, Tensor]:  # type: ignore[no-untyped-def]
    """Loss and gradient with respect to the network's parameters."""
    values = METHODS[method].values(predict(policy, rows), rows, settings)
    loss = METHODS[method].loss(values.unflatten(0, (3, -1)), group, settings, OFFSET)
    return loss.detach(), flat(torch.autograd.grad(loss, list(policy.module.parameters())))


def flat(gradients: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([g.flatten() for g in gradients])


def policies() -> tuple[ToyDenoiser, ToyDenoiser, ToyDenoiser]:
    """The base model, the policy that sampled, the one in training."""
    base = ToyDenoiser()
    return in_double(base), in_double(base.tuned(3)), in_double(base.tuned(4))


def step_normals(denoiser: ToyDenoiser, group: TrainingGroup, c: int, k: int) -> Normal:
    s, x = group.steps, group.x[c, k][None]
    d = denoiser(x, s.sigma[k][None], group.conditioning, group.guidance_scale).guided
    return Normal(s.x_coef[k] * x + s.denoised_coef[k] * d, s.std[k])


@pytest.mark.parametrize("method", ["ddpo", "dpok"])
def test_policy_gradients_equal_those_of_normal_densities(method: str) -> None:
    base, sampler, policy = policies()
    group = double_group()
    ref, anchor = (
        torch.stack(
            [
                torch.cat(
                    [
                        d(group.x[c, k][None], group.steps.sigma[k][None], group.conditioning, 3.0).guided.detach()
                        for k in range(3)
                    ]
                )
                for c in range(3)
            ]
        )
        for d in (sampler, base)
    )
    settings = fill_in(TrainSettings(method=method, clip=0.004, beta=0.7, guided_loss=True))
    rows = group_rows(group, ref, True, policy.device, anchor)
    loss, gradient = ours(method, settings, rows, group, policy)

    rewards = np.array(group.scores)
    advantage = (rewards - rewards.mean()) / rewards.std()
    total, outside, elements = torch.zeros((), dtype=torch.float64), 0, group.elements
    for c in range(3):
        for k in range(3):
            new, old = step_normals(policy, group, c, k), step_normals(sampler, group, c, k)
            x_next = group.x[c, k + 1][None]
            rho = ((new.log_prob(x_next) - old.log_prob(x_next).detach()).sum() / elements).exp()
            inside = rho.clamp(1 - 0.004, 1 + 0.004)
            outside += int(rho != inside)
            if method == "ddpo":
                total = total + torch.maximum(-advantage[c] * rho, -advantage[c] * inside) / 9
            else:
                to_base = kl_divergence(new, step_normals(base, group, c, k)).sum() / elements
                total = total + (-advantage[c] * inside + 0.7 * to_base) / 9
    assert 0 < outside < 9
    assert float(loss) == pytest.approx(total.item(), rel=1e-9)
    expected = flat(torch.autograd.grad(total, list(policy.module.parameters())))
    assert expected.norm() > 1e-6 and (gradient - expected).norm() <= 1e-9 * expected.norm()


def setting(kind: str):  # type: ignore[no-untyped-def]
    """A group noised as the methods of finished images do it, and the same noise and levels found apart from that."""
    make = ToyDenoiser if kind == "diffusion" else FlowToy
    base, policy = in_double(make()), in_double(make().tuned(4))
    group = double_group()
    reference = Reference("base", base, contextlib.nullcontext, 100)
    levels = noise_levels(policy, 2.5)
    rows = with_reference(noise_images(group, levels, DRAWS, generator(7, "luck"), policy), reference)
    sigma = rows.steps.sigma[:DRAWS]
    clean = group.latents.repeat_interleave(DRAWS, 0)
    level = rows.steps.sigma.reshape(-1, 1, 1, 1)
    noise = (rows.x - (clean if kind == "diffusion" else (1 - level) * clean)) / level
    return base, policy, group, rows, levels, sigma, clean, noise


def predicted_noise(denoiser: ToyDenoiser, rows, kind: str) -> Tensor:  # type: ignore[no-untyped-def]
    """What a network of this family predicts: noise, or velocity."""
    level = rows.steps.sigma.reshape(-1, 1, 1, 1)
    denoised = denoiser(rows.x, rows.steps.sigma, rows.conditioning, 3.0, guided=False).cond
    return (rows.x - denoised) / level


@pytest.mark.parametrize("kind", ["diffusion", "flow"])
def test_images_are_noised_alike_at_levels_of_the_window(kind: str) -> None:
    *_, levels, sigma, _, noise = setting(kind)
    ratio = levels if kind == "diffusion" else levels / (1 - levels)
    assert (ratio >= 2.5).all() and len(levels) > 5
    assert all(any(torch.isclose(s, levels)) for s in sigma)
    by_candidate = noise.unflatten(0, (3, DRAWS))
    assert torch.allclose(by_candidate[0], by_candidate[1]) and torch.allclose(by_candidate[0], by_candidate[2])
    assert not torch.allclose(by_candidate[0, 0], by_candidate[0, 1])
    assert float(noise[:DRAWS].std()) == pytest.approx(1, abs=0.3)


@pytest.mark.parametrize("kind", ["diffusion", "flow"])
def test_diffusion_dpo_compares_errors_of_the_predicted_noise(kind: str) -> None:
    base, policy, group, rows, _, _, clean, noise = setting(kind)
    target = noise if kind == "diffusion" else noise - clean
    settings = fill_in(TrainSettings(method="diffusion-dpo", beta=40.0))
    loss, gradient = ours("diffusion-dpo", settings, rows, group, policy)

    def errors(denoiser: ToyDenoiser) -> Tensor:
        return (predicted_noise(denoiser, rows, kind) - target).square().flatten(1).mean(1).unflatten(0, (3, DRAWS))

    model, ref = errors(policy), errors(base).detach()
    total = torch.zeros((), dtype=torch.float64)
    for pair in RANKED:
        inside = (model[pair.winner] - model[pair.loser]) - (ref[pair.winner] - ref[pair.loser])
        total = total - pair.weight * torch.log(1 / (1 + torch.exp(0.5 * 40.0 * inside))).mean()
    assert float(loss) == pytest.approx(total.item(), rel=1e-9)
    expected = flat(torch.autograd.grad(total, list(policy.module.parameters())))
    assert expected.norm() > 1e-6 and (gradient - expected).norm() <= 1e-9 * expected.norm()
    pure = d3po((ref[0] - model[0]) / 2, (ref[1] - model[1]) / 2, 40.0)
    inside = ((model[0] - ref[0]) - (model[1] - ref[1])).detach().numpy()
    assert np.allclose(pure.detach().numpy(), -np.log(1 / (1 + np.exp(20.0 * inside))))


def test_diffusion_kto_judges_every_image_by_itself() -> None:
    base, policy, group, rows, _, _, _, noise = setting("diffusion")
    group = dataclasses.replace(group, scores=[1.0, -1.0, 0.0])  # of the third nothing was said
    settings = fill_in(TrainSettings(method="diffusion-kto", beta=40.0))
    loss, gradient = ours("diffusion-kto", settings, rows, group, policy)
    errors = [
        (predicted_noise(d, rows, "diffusion") - noise).square().flatten(1).mean(1).unflatten(0, (3, DRAWS))
        for d in (policy, base)
    ]
    gain = (errors[1].detach() - errors[0]) / 2
    liked = 1 - 1 / (1 + torch.exp(-40.0 * (gain[0] - OFFSET)))
    disliked = 1 - 1 / (1 + torch.exp(40.0 * (gain[1] - OFFSET)))
    total = (liked + disliked).mean() / 2
    assert float(loss) == pytest.approx(total.item(), rel=1e-9)
    expected = flat(torch.autograd.grad(total, list(policy.module.parameters())))
    assert expected.norm() > 1e-6 and (gradient - expected).norm() <= 1e-9 * expected.norm()


def test_diffusion_kto_knows_the_direction_of_a_dislike() -> None:
    ratio = torch.zeros(2, requires_grad=True)
    diffusion_kto(ratio, torch.tensor([True, False]), 2.0).sum().backward()
    assert ratio.grad is not None and float(ratio.grad[0]) == pytest.approx(-0.5)
    assert float(ratio.grad[1]) == pytest.approx(0.5)


def test_diffusion_nft_is_the_authors_regression_of_velocities() -> None:
    """In velocities and by the x0 that follow from them, as the paper's code has it, on a flow model."""
    base, policy, group, rows, _, _, clean, _ = setting("flow")
    group = dataclasses.replace(group, scores=[1.0, -1.0, 0.4])
    advantage = (np.array(group.scores) - np.mean(group.scores)) / np.std(group.scores)
    settings = fill_in(TrainSettings(method="diffusion-nft", beta=0.3))
    loss, gradient = ours("diffusion-nft", settings, rows, group, policy)
    t = rows.steps.sigma.reshape(-1, 1, 1, 1)
    forward, old = predicted_noise(policy, rows, "flow"), predicted_noise(base, rows, "flow").detach()
    total = torch.zeros((), dtype=torch.float64)
    optimality = torch.from_numpy(0.5 + 0.5 * advantage.clip(-1, 1)).repeat_interleave(DRAWS)
    for sign, share in ((1, optimality), (-1, 1 - optimality)):
        x0 = rows.x - t * ((1 - sign * 0.3) * old + sign * 0.3 * forward)
        weight = (x0 - clean).abs().mean((1, 2, 3), keepdim=True).detach()
        total = total + (share * ((x0 - clean) ** 2 / weight).mean((1, 2, 3)) / 0.3).mean()
    assert float(loss) == pytest.approx(total.item(), rel=1e-9)
    expected = flat(torch.autograd.grad(total, list(policy.module.parameters())))
    assert expected.norm() > 1e-6 and (gradient - expected).norm() <= 1e-9 * expected.norm()


def test_diffusion_nft_moves_towards_what_was_liked_and_away_from_the_rest() -> None:
    old, clean = torch.zeros(2, 4), torch.ones(2, 4)
    denoised = old.clone().requires_grad_()
    nft(denoised, old, clean, torch.tensor([1.0, 0.0]), 0.5).sum().backward()
    assert denoised.grad is not None and (denoised.grad[0] < 0).all() and (denoised.grad[1] > 0).all()


def test_advantages_have_mean_zero_and_unit_spread() -> None:
    scores = torch.tensor([3.0, -1.0, 0.5, 9.0])
    expected = (scores.numpy() - scores.numpy().mean()) / scores.numpy().std()
    assert np.allclose(advantages(scores), expected, atol=1e-6)
    assert torch.equal(advantages(torch.full((3,), 0.7)), torch.zeros(3))
