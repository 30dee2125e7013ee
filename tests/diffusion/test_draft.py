"""DRaFT's sampling: against plain autograd through a loop written out here, in float64."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from d3po_core.diffusion.denoiser import starting_latents
from d3po_core.diffusion.draft import renoised, sample_through
from d3po_core.diffusion.steps import LinearSteps, ancestral, flow_sde
from tests.toy import SHAPE, SIGMAS, ToyDenoiser

COUNT = 3
FLOW = torch.tensor([0.9, 0.7, 0.4, 0.2, 0.0], dtype=torch.float64)
PROMPT = {"prompt": torch.randn(COUNT, 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64)}
GUIDANCE = 3.0


class FlowToy(ToyDenoiser):
    family = "flow"


def setting(kind: str) -> tuple[ToyDenoiser, LinearSteps, Tensor, list[Tensor]]:
    """A float64 network, a noisy schedule, a start and the noise of every step."""
    denoiser = ToyDenoiser() if kind == "diffusion" else FlowToy()
    denoiser.module.double()
    steps = ancestral(SIGMAS, torch.full((4,), 0.7)) if kind == "diffusion" else flow_sde(FLOW, torch.full((4,), 0.7))
    rng = torch.Generator().manual_seed(1)
    noises = [torch.randn(COUNT, *SHAPE, generator=rng, dtype=torch.float64) for _ in range(5)]
    return denoiser, steps, starting_latents(denoiser, noises[4], float(steps.sigma[0])), noises[:4]


def reward(latents: Tensor) -> Tensor:
    return (latents.flatten(1) ** 3 * torch.linspace(-1, 1, 18, dtype=torch.float64)).sum(1).sin().sum()


def gradient(denoiser: ToyDenoiser, latents: Tensor) -> Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(reward(latents), list(denoiser.module.parameters()))])


def by_hand(denoiser: ToyDenoiser, steps: LinearSteps, x: Tensor, noises: list[Tensor], last: int) -> Tensor:
    """The linear layer and the steps' formula written out, cut before the last K steps."""
    layer = denoiser.module.attn1["to_q"]

    def branch(x: Tensor, prompt: Tensor, sigma: Tensor) -> Tensor:
        return torch.tanh(torch.cat([x.flatten(1) / (1 + sigma), prompt], 1) @ layer.weight.T + layer.bias)

    for i in range(4):
        if i == 4 - last:
            x = x.detach()
        cond, uncond = (branch(x, prompt, steps.sigma[i]) for prompt in (PROMPT["prompt"], 0 * PROMPT["prompt"]))
        guided = ((1 - GUIDANCE) * uncond + GUIDANCE * cond).reshape(x.shape)
        x = steps.x_coef[i] * x + steps.denoised_coef[i] * guided + steps.std[i] * noises[i]
    return x


@pytest.mark.parametrize("kind", ["diffusion", "flow"])
@pytest.mark.parametrize("last", [1, 3, 4])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_are_those_of_plain_autograd(kind: str, last: int, checkpointing: bool) -> None:
    denoiser, steps, x, noises = setting(kind)
    ours = sample_through(denoiser, steps, x, noises, PROMPT, GUIDANCE, last, checkpointing=checkpointing)
    plain = by_hand(denoiser, steps, x, noises, last)
    assert torch.allclose(ours, plain, atol=1e-12)
    expected = gradient(denoiser, plain)
    assert expected.norm() > 1e-3
    assert (gradient(denoiser, ours) - expected).abs().max() <= 1e-9


def test_more_steps_in_the_gradient_are_another_gradient() -> None:
    denoiser, steps, x, noises = setting("diffusion")
    by_last = [gradient(denoiser, sample_through(denoiser, steps, x, noises, PROMPT, GUIDANCE, k)) for k in (1, 2, 4)]
    assert (by_last[0] - by_last[1]).norm() > 1e-3 and (by_last[1] - by_last[2]).norm() > 1e-3


def test_a_gradient_through_all_steps_is_that_of_finite_differences() -> None:
    denoiser, steps, x, noises = setting("diffusion")

    def value() -> Tensor:
        return reward(sample_through(denoiser, steps, x, noises, PROMPT, GUIDANCE, 4))

    (slopes,) = torch.autograd.grad(value(), denoiser.module.attn1["to_q"].weight)
    weight = denoiser.module.attn1["to_q"].weight
    for place in ((0, 0), (7, 3), (17, 21)):
        sides = []
        for shift in (1e-6, -1e-6):
            with torch.no_grad():
                weight[place] += shift
                sides.append(float(value()))
                weight[place] -= shift
        assert float(slopes[place]) == pytest.approx((sides[0] - sides[1]) / 2e-6, rel=1e-5, abs=1e-8)


def test_stopping_early_predicts_the_clean_latents_from_there() -> None:
    """ReFL: two ordinary steps, then the denoised prediction, which alone carries gradient."""
    denoiser, steps, x, noises = setting("diffusion")
    latents = sample_through(denoiser, steps, x, noises, PROMPT, GUIDANCE, 1, stop=2)
    with torch.no_grad():
        before = sample_through(denoiser, steps[:2], x, noises, PROMPT, GUIDANCE, 2)
    expected = denoiser(before, steps.sigma[2].expand(COUNT), PROMPT, GUIDANCE).guided
    assert torch.allclose(latents, expected, atol=1e-12)
    assert torch.allclose(gradient(denoiser, latents), gradient(denoiser, expected), atol=1e-12)


def test_draft_1_is_refl_at_the_last_step_where_that_ends_at_zero() -> None:
    denoiser, steps, x, noises = setting("diffusion")
    last_step = sample_through(denoiser, steps, x, noises, PROMPT, GUIDANCE, 1)
    longer = LinearSteps(*(torch.cat([getattr(steps, f.name)] * 2) for f in dataclasses.fields(LinearSteps)))
    assert torch.allclose(last_step, sample_through(denoiser, longer, x, noises * 2, PROMPT, GUIDANCE, 1, stop=3))


@pytest.mark.parametrize("kind", ["diffusion", "flow"])
def test_renoising_puts_the_sample_back_to_the_level(kind: str) -> None:
    denoiser, steps, x, noises = setting(kind)
    with torch.no_grad():
        clean = sample_through(denoiser, steps, x, noises, PROMPT, GUIDANCE, 1)
    sigma = float(steps.sigma[-1])
    noisy = clean + sigma * noises[0] if kind == "diffusion" else torch.lerp(clean, noises[0], sigma)
    expected = denoiser(noisy, steps.sigma[-1].expand(COUNT), PROMPT, GUIDANCE).guided
    latents = renoised(denoiser, clean, sigma, noises[0], PROMPT, GUIDANCE)
    assert torch.allclose(latents, expected, atol=1e-12) and latents.requires_grad


def test_variance_of_draft_lv_at_a_fixed_sample_falls_as_one_over_n() -> None:
    """256 draws for each n; two seeds. A mean of n independent gradients: the ratio of variances is n, within 25%."""
    denoiser, steps, x, noises = setting("diffusion")
    with torch.no_grad():
        clean = sample_through(denoiser, steps, x, noises, PROMPT, GUIDANCE, 1)
    for seed in range(2):
        rng = torch.Generator().manual_seed(seed)

        def draw(n: int, rng: torch.Generator = rng) -> Tensor:
            noises = torch.randn(n, *clean.shape, generator=rng, dtype=torch.float64)
            again = [renoised(denoiser, clean, float(steps.sigma[-1]), noise, PROMPT, GUIDANCE) for noise in noises]
            return torch.stack([gradient(denoiser, latents) for latents in again]).mean(0)

        one, four = (torch.stack([draw(n) for _ in range(256)]).var(0).sum() for n in (1, 4))
        assert float(one / four) == pytest.approx(4, rel=0.25)
