"""The step families against other people's samplers and against what their definitions promise."""

from __future__ import annotations

import inspect

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from d3po_core.diffusion.steps import (
    SAMPLERS,
    LinearSteps,
    ancestral,
    early_window,
    first_window,
    flow_ancestral,
    flow_sde,
    lcm,
    make_steps,
    take_step,
)
from d3po_core.errors import D3POError


def levels(values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def same(steps: LinearSteps, value: float) -> torch.Tensor:
    return torch.full_like(steps.sigma, value)


def falling(top: float) -> st.SearchStrategy[torch.Tensor]:
    """Noise levels that fall from at most `top`, ending in 0 or not."""
    level = st.floats(0.01, top)
    return st.builds(
        lambda values, zero: levels(sorted(values, reverse=True) + [0.0] * zero),
        st.lists(level, min_size=2, max_size=8, unique_by=lambda v: round(v, 3)),
        st.booleans(),
    )


ETA = st.floats(0, 1)
repeatable = settings(deadline=None, derandomize=True)


@repeatable
@given(falling(80.0), ETA)
def test_ancestral_step_keeps_the_marginal(sigmas: torch.Tensor, eta: float) -> None:
    """With D the true x0, x = x0 + sigma*n must become x0 + sigma'*n'."""
    s = ancestral(sigmas, torch.full_like(sigmas[1:], eta))
    torch.testing.assert_close(s.x_coef + s.denoised_coef, torch.ones_like(s.denoised_coef), rtol=1e-13, atol=0)
    torch.testing.assert_close((s.x_coef * s.sigma) ** 2 + s.std**2, s.sigma_next**2, rtol=1e-12, atol=1e-15)


@repeatable
@given(falling(1.0), st.floats(0, 2))
def test_flow_ancestral_step_keeps_the_marginal(sigmas: torch.Tensor, eta: float) -> None:
    """With D the true x0, x = (1 - sigma)*x0 + sigma*n must become N((1 - sigma')*x0, sigma'^2) exactly."""
    s = flow_ancestral(sigmas, torch.full_like(sigmas[1:], eta))
    torch.testing.assert_close(s.x_coef * (1 - s.sigma) + s.denoised_coef, 1 - s.sigma_next, rtol=1e-11, atol=1e-14)
    torch.testing.assert_close((s.x_coef * s.sigma) ** 2 + s.std**2, s.sigma_next**2, rtol=1e-11, atol=1e-15)


@repeatable
@given(falling(80.0))
def test_lcm_step_keeps_the_marginal(sigmas: torch.Tensor) -> None:
    s = lcm(sigmas, torch.ones_like(sigmas[1:]))
    assert (
        torch.equal(s.x_coef, same(s, 0))
        and torch.equal(s.denoised_coef, same(s, 1))
        and torch.equal(s.std, s.sigma_next)
    )


@pytest.mark.parametrize("sigma", [0.9, 0.5, 0.2])
def test_flow_sde_keeps_the_marginal_to_first_order(sigma: float) -> None:
    """Euler-Maruyama is exact only in the limit: halving the step must quarter what is wrong."""

    def wrong(dt: float) -> float:
        s = flow_sde(levels([sigma, sigma - dt]), levels([0.7]))
        return abs(float((s.x_coef * s.sigma) ** 2 + s.std**2 - s.sigma_next**2))

    assert wrong(0.01) / wrong(0.005) == pytest.approx(4, rel=0.05)


@pytest.mark.parametrize("eta", [0.3, 0.7, 1.0])
def test_flow_sde_is_the_published_step(eta: float) -> None:
    """In velocity form, the next level for sigma = 1 inside the diffusion coefficient (arXiv 2505.05470, eq. 9)."""
    sigmas = levels([1.0, 0.95, 0.8, 0.5, 0.1, 0.0])
    s = flow_sde(sigmas, levels([eta] * 5))
    generator = torch.Generator().manual_seed(3)
    x, v = torch.randn(2, 6, generator=generator, dtype=torch.float64)
    for i in range(4):
        sigma, dt = sigmas[i], sigmas[i + 1] - sigmas[i]
        coefficient = eta * (sigma / (1 - sigmas[max(i, 1)])).sqrt()
        drift = x * coefficient**2 / (2 * sigma) + v * (1 + coefficient**2 * (1 - sigma) / (2 * sigma))
        ours = s.x_coef[i] * x + s.denoised_coef[i] * (x - sigma * v)
        torch.testing.assert_close(ours, x + drift * dt, rtol=1e-13, atol=1e-13)
        torch.testing.assert_close(s.std[i], coefficient * (-dt).sqrt(), rtol=1e-13, atol=0)
    assert s.std[4] == 0 and s.x_coef[4] == 0 and s.denoised_coef[4] == 1


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("family", ["flow_ancestral", "flow_sde"])
def test_flow_without_noise_is_diffusers_euler(family: str, shift: float) -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(8)
    s = SAMPLERS[family](scheduler.sigmas, torch.zeros(8))
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(1, 4, 8, 8, generator=generator)
    for i, t in enumerate(scheduler.timesteps):
        v = torch.randn(x.shape, generator=generator)
        ours = s.x_coef[i] * x + s.denoised_coef[i] * (x - s.sigma[i] * v)
        x = scheduler.step(v, t, x).prev_sample
        torch.testing.assert_close(ours.float(), x, rtol=1e-5, atol=1e-6)


def test_flow_ancestral_contains_diffusers_stochastic_sampling() -> None:
    """All noise renewed is the eta at which the step goes down to 0: sigma / (sigma - sigma')."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    if "stochastic_sampling" not in inspect.signature(FlowMatchEulerDiscreteScheduler).parameters:
        pytest.skip("this diffusers cannot: since 0.35")
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, stochastic_sampling=True)
    scheduler.set_timesteps(8)
    sigmas = scheduler.sigmas.double()
    s = flow_ancestral(sigmas, sigmas[:-1] / (sigmas[:-1] - sigmas[1:]))
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(1, 4, 8, 8, generator=generator)
    for i, t in enumerate(scheduler.timesteps):
        v = torch.randn(x.shape, generator=generator)
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(i))
        ours = s.x_coef[i] * x + s.denoised_coef[i] * (x - s.sigma[i] * v) + s.std[i] * noise
        x = scheduler.step(v, t, x, generator=torch.Generator().manual_seed(i)).prev_sample
        torch.testing.assert_close(ours.float(), x, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_lcm_is_diffusers_lcm(prediction: str) -> None:
    """With the consistency model's own denoised latents as D, up to the VP rescale."""
    from diffusers import LCMScheduler

    scheduler = LCMScheduler(prediction_type=prediction)
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    scheduler.set_timesteps(4)
    kept = scheduler.alphas_cumprod[scheduler.timesteps]
    s = lcm(torch.cat([((1 - kept) / kept).sqrt(), levels([0.0])]), torch.ones(4))
    generator = torch.Generator().manual_seed(11)
    x = torch.randn(1, 4, 8, 8, generator=generator, dtype=torch.float64)
    for i, t in enumerate(scheduler.timesteps[:-1]):
        output = torch.randn(x.shape, generator=generator, dtype=torch.float64)
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(i), dtype=torch.float64)
        step = scheduler.step(output, t, x, generator=torch.Generator().manual_seed(i))
        ours = s.x_coef[i] * x / kept[i].sqrt() + s.denoised_coef[i] * step.denoised + s.std[i] * noise
        x = step.prev_sample
        torch.testing.assert_close(ours, x / kept[i + 1].sqrt(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("family", sorted(SAMPLERS))
def test_three_numbers_are_finite_float64_and_noise_never_negative(family: str) -> None:
    sigmas = levels([1.0, 0.9, 0.5, 0.01, 0.0]) * (14.6 if not family.startswith("flow") else 1)
    s = SAMPLERS[family](sigmas.float(), torch.ones(4))
    for numbers in (s.sigma, s.sigma_next, s.x_coef, s.denoised_coef, s.std):
        assert numbers.dtype == torch.float64 and numbers.shape == (4,) and numbers.isfinite().all()
    assert (s.std[:-1] > 0).all() and s.std[-1] == 0


@pytest.mark.parametrize("family", ["ancestral", "flow_ancestral", "flow_sde"])
def test_eta_is_given_per_step(family: str) -> None:
    """A window is an eta that is 0 elsewhere: each step must look at its own."""
    sigmas = levels([0.9, 0.7, 0.4, 0.2])
    mixed = SAMPLERS[family](sigmas, levels([1.0, 0.0, 0.5]))
    for i, eta in enumerate([1.0, 0.0, 0.5]):
        alone = SAMPLERS[family](sigmas[i : i + 2], levels([eta]))
        assert (mixed.x_coef[i], mixed.denoised_coef[i], mixed.std[i]) == (
            alone.x_coef[0],
            alone.denoised_coef[0],
            alone.std[0],
        )
    assert mixed.std[1] == 0


def test_indexing_takes_steps_and_rows() -> None:
    s = ancestral(levels([8.0, 4.0, 2.0, 1.0]), torch.ones(3))
    assert len(s) == 3 and len(s[:2]) == 2
    assert torch.equal(s[torch.tensor([2, 0, 2])].std, torch.stack([s.std[2], s.std[0], s.std[2]]))


def test_a_step_is_its_mean_and_std_times_the_noise() -> None:
    s = ancestral(levels([8.0, 4.0, 0.0]), torch.ones(2))
    x, denoised, noise = torch.randn(3, 2, 4, 5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = s.x_coef[0] * x + s.denoised_coef[0] * denoised + s.std[0] * noise
    assert torch.equal(take_step(s, 0, x, denoised, lambda: noise), expected)


def test_a_deterministic_step_draws_no_noise() -> None:
    s = ancestral(levels([8.0, 4.0, 0.0]), torch.ones(2))
    x, denoised = torch.randn(2, 2, 4, generator=torch.Generator().manual_seed(0))

    def noise() -> torch.Tensor:
        raise AssertionError("drawn")

    assert torch.equal(take_step(s, 1, x, denoised, noise), denoised)


def test_ancestral_means_the_flow_step_on_a_flow_model() -> None:
    sigmas, eta = levels([1.0, 0.5, 0.0]), torch.ones(2)
    assert torch.equal(make_steps("ancestral", "flow", sigmas, eta).std, flow_ancestral(sigmas, eta).std)
    assert torch.equal(make_steps("ancestral", "diffusion", sigmas, eta).std, ancestral(sigmas, eta).std)


@pytest.mark.parametrize(("sampler", "family"), [("flow_sde", "diffusion"), ("lcm", "flow")])
def test_a_sampler_that_does_not_fit_the_model_is_named(sampler: str, family: str) -> None:
    with pytest.raises(D3POError, match=f"'{sampler}' does not fit this {family} model"):
        make_steps(sampler, family, levels([1.0, 0.5, 0.0]), torch.ones(2))


@pytest.mark.parametrize("sigmas", [[1.0, 1.0, 0.0], [0.5, 1.0, 0.0], [1.0, float("nan"), 0.0]])
def test_levels_that_do_not_fall_are_refused(sigmas: list[float]) -> None:
    with pytest.raises(D3POError, match="do not fall"):
        make_steps("ancestral", "diffusion", levels(sigmas), torch.ones(2))


@repeatable
@given(falling(80.0), st.floats(0, 100))
def test_early_window_is_a_beginning_and_never_empty(sigmas: torch.Tensor, threshold: float) -> None:
    mask = early_window(sigmas, "diffusion", threshold)
    assert mask.shape == (len(sigmas) - 1,) and mask.dtype == torch.bool
    assert mask[0] and not (mask[1:] & ~mask[:-1]).any()
    assert ((sigmas[:-1] >= threshold) == mask)[1:].all()


@repeatable
@given(falling(80.0), st.floats(0.05, 100))
def test_early_window_means_the_same_for_flow(sigmas: torch.Tensor, threshold: float) -> None:
    """A flow level sigma / (1 + sigma) has the noise-to-signal ratio of diffusion's sigma."""
    threshold = threshold * 1.0001 if (sigmas == threshold).any() else threshold
    flow = early_window(sigmas / (1 + sigmas), "flow", threshold)
    near = (sigmas[:-1] / threshold - 1).abs() < 1e-9  # where rounding decides
    assert ((flow == early_window(sigmas, "diffusion", threshold)) | near).all()


def test_early_window_takes_pure_noise() -> None:
    assert early_window(levels([1.0, 0.9, 0.5, 0.0]), "flow", 2.5).tolist() == [True, True, False]
    assert early_window(levels([1.0, 0.0]), "flow", 1e9).tolist() == [True]


@repeatable
@given(st.integers(1, 60), st.floats(0, 1))
def test_first_window_is_a_share_and_never_empty(count: int, fraction: float) -> None:
    mask = first_window(torch.linspace(1, 0, count + 1), fraction)
    chosen = int(mask.sum())
    assert mask.shape == (count,) and mask[:chosen].all() and chosen >= 1
    assert chosen == 1 or abs(chosen - fraction * count) <= 0.5
    assert first_window(torch.linspace(1, 0, count + 1), 1.0).all()
