"""Log-ratio and KL against other people's samplers with `torch.distributions`, and against many digits."""

from __future__ import annotations

import mpmath
import pytest
import torch

from benchmarks import reference_samplers as others
from benchmarks.numerics import BOUND, errors, stable_diffusion_sigmas
from d3po_core.diffusion.losses import kl, log_ratio, per_row, residual
from d3po_core.diffusion.steps import SAMPLERS, ancestral

DTYPES = list(BOUND)
ETAS = [0.5, 1.0]


def assert_within_bound(recorded: others.Recorded, family: str, dtype: torch.dtype, noisy: int) -> None:
    worst = errors(recorded, family, dtype)
    assert worst.steps == noisy
    assert 0 < worst.log_ratio <= BOUND[dtype] and worst.kl <= BOUND[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("eta", ETAS)
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize(("steps", "spacing"), [(4, "trailing"), (20, "leading"), (100, "trailing")])
def test_against_diffusers_ddim(prediction: str, eta: float, steps: int, spacing: str, dtype: torch.dtype) -> None:
    assert_within_bound(others.ddim(prediction, eta, steps, spacing), "ancestral", dtype, steps)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("eta", ETAS)
@pytest.mark.parametrize("steps", [4, 20, 60])
def test_against_k_diffusion_euler_ancestral(eta: float, steps: int, dtype: torch.dtype) -> None:
    sampling = others.k_diffusion_sampling()
    if sampling is None:
        pytest.skip("k-diffusion is not installed: pip install --no-deps k-diffusion==0.1.1.post1")
    assert_within_bound(others.euler_ancestral(sampling, eta, steps), "ancestral", dtype, steps - 1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("eta", ETAS)
@pytest.mark.parametrize("steps", [4, 20, 60])
def test_against_the_closed_form_of_flow(eta: float, steps: int, dtype: torch.dtype) -> None:
    recorded = others.flow("ancestral", others.renoised_flow_step, eta, steps)
    assert_within_bound(recorded, "flow_ancestral", dtype, steps - 1)
    recorded = others.flow("Flow-GRPO", others.flow_grpo_step, eta, steps)
    assert_within_bound(recorded, "flow_sde", dtype, steps - 1)


@pytest.mark.parametrize("dtype", DTYPES)
def test_against_the_closed_form_of_lcm(dtype: torch.dtype) -> None:
    assert_within_bound(others.consistency(8), "lcm", dtype, 7)


@pytest.mark.parametrize("eta", ETAS)
@pytest.mark.parametrize("i", [0, 10, 18])
def test_against_fifty_digits(eta: float, i: int) -> None:
    """To 1e-12 of its own value, where a float64 scheduler's rounding is already larger than the error."""
    sigmas = stable_diffusion_sigmas(20)
    step = ancestral(sigmas, torch.full((20,), eta))[torch.tensor([i])]
    generator = torch.Generator().manual_seed(i)
    x, noise = torch.randn(2, 1, 64, generator=generator, dtype=torch.float64)
    x, x_next = sigmas[i] * x, sigmas[i + 1] * (x + noise)
    ref = x / (1 + sigmas[i] ** 2)
    policy = ref + 0.03 * torch.sin(x)
    with mpmath.workdps(50):
        big, small = mpmath.mpf(float(sigmas[i])), mpmath.mpf(float(sigmas[i + 1]))
        up = eta * mpmath.sqrt(small**2 * (big**2 - small**2) / big**2)
        down = mpmath.sqrt(small**2 - up**2)
        ratio = divergence = mpmath.mpf(0)
        for a, b, r, p in zip(*(map(mpmath.mpf, v[0].tolist()) for v in (x, x_next, ref, policy)), strict=True):
            mean_r, mean_p = (a + (a - d) / big * (down - big) for d in (r, p))
            ratio += ((b - mean_r) ** 2 - (b - mean_p) ** 2) / (2 * up**2)
            divergence += (mean_p - mean_r) ** 2 / (2 * up**2)
        ours = log_ratio(policy, ref, residual(x, x_next, ref, step), step)
        assert abs(float(ours) / ratio - 1) <= 1e-12
        assert abs(float(kl(policy, ref, step)) / divergence - 1) <= 1e-12


def some_step(rows: int) -> tuple[torch.Tensor, ...]:
    return torch.randn(4, rows, 4, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64).unbind()


def test_residual_is_the_injected_noise_under_the_sampling_policy() -> None:
    x, ref, noise, _ = some_step(3)
    step = ancestral(torch.tensor([9.0, 5.0, 2.0, 1.0]), torch.ones(3))
    x_next = per_row(step.x_coef, x) * x + per_row(step.denoised_coef, x) * ref + per_row(step.std, x) * noise
    torch.testing.assert_close(residual(x, x_next, ref, step), noise, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("family", sorted(SAMPLERS))
def test_no_change_of_policy_is_exactly_zero(family: str) -> None:
    x, x_next, ref, _ = some_step(2)
    step = SAMPLERS[family](torch.tensor([0.9, 0.5, 0.2]), torch.ones(2))
    z = residual(x, x_next, ref, step)
    assert torch.equal(log_ratio(ref, ref, z, step), torch.zeros(2, dtype=torch.float64))
    assert torch.equal(kl(ref, ref, step), torch.zeros(2, dtype=torch.float64))


def test_gradient_is_that_of_the_normal_density() -> None:
    """Against autograd through torch.distributions, which never sees z or delta."""
    x, x_next, ref, change = some_step(2)
    step = ancestral(torch.tensor([9.0, 5.0, 2.0]), torch.tensor([1.0, 0.5]))
    ours, theirs = ((ref + 0.1 * change).requires_grad_() for _ in range(2))
    log_ratio(ours, ref, residual(x, x_next, ref, step), step).sum().backward()
    std = per_row(step.std, x).expand_as(x)
    mean = per_row(step.x_coef, x) * x + per_row(step.denoised_coef, x) * theirs
    torch.distributions.Normal(mean, std).log_prob(x_next).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-11, atol=1e-12)


def test_mean_over_the_policys_own_noise_is_the_kl() -> None:
    """E[log pi_theta - log pi_ref] under pi_theta is KL; antithetic draws make it exact."""
    x, ref, noise, change = some_step(2)
    policy = ref + 0.1 * change
    step = ancestral(torch.tensor([9.0, 5.0, 2.0]), torch.ones(2))

    def drawn(sign: int) -> torch.Tensor:
        mean = per_row(step.x_coef, x) * x + per_row(step.denoised_coef, x) * policy
        return log_ratio(policy, ref, residual(x, mean + sign * per_row(step.std, x) * noise, ref, step), step)

    torch.testing.assert_close((drawn(1) + drawn(-1)) / 2, kl(policy, ref, step), rtol=1e-11, atol=0)


def test_a_step_per_row_equals_rows_alone() -> None:
    x, x_next, ref, change = some_step(3)
    step = ancestral(torch.tensor([9.0, 5.0, 2.0, 1.0]), torch.tensor([1.0, 0.5, 0.3]))
    together = log_ratio(ref + change, ref, residual(x, x_next, ref, step), step)
    for i in range(3):
        row = slice(i, i + 1)
        one = step[row]
        alone = log_ratio(ref[row] + change[row], ref[row], residual(x[row], x_next[row], ref[row], one), one)
        torch.testing.assert_close(together[row], alone, rtol=1e-13, atol=0)


@pytest.mark.parametrize("shape", [(2, 16), (2, 16, 8, 8), (2, 4, 3, 8, 8)])
def test_any_number_of_latent_dimensions(shape: tuple[int, ...]) -> None:
    x, x_next, ref, policy = torch.randn(4, *shape, generator=torch.Generator().manual_seed(1))
    step = ancestral(torch.tensor([9.0, 5.0, 2.0]), torch.ones(2))
    z = residual(x, x_next, ref, step)
    assert z.shape == shape and log_ratio(policy, ref, z, step).shape == kl(policy, ref, step).shape == (2,)
