"""Samplers that others wrote or defined, run in float64: what the step families and the log-ratio are measured against.

Each function samples with a toy reference policy, asks a toy second policy on the same latents, and takes log-ratio and
KL from `torch.distributions`, with mean and standard deviation of the other sampler. Nothing of `d3po_core` is used.

k-diffusion's `__init__` imports training code with a dozen dependencies. Only its `sampling.py` is loaded here, with
empty modules in the place of what Euler ancestral does not use.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

SHAPE = (3, 4, 16, 16)  # batch, channels, height, width
CHANGE = 0.03  # size of the toy policies' difference; latents have unit variance


@dataclass(frozen=True)
class Recorded:
    """A trajectory of S steps in the model's own sigma space, float64, and the truth about it.

    Attributes:
        name: sampler, for a table.
        prediction: what the network gives: epsilon, v_prediction, sample (the denoised latents) or flow (velocity).
        sigmas: noise levels (S + 1,).
        eta: share of noise of every step.
        x: latents (S + 1, B, ...).
        reference, policy: outputs of the network under both policies, (S, B, ...).
        log_ratio, kl: in nats, (S, B); meaningless at steps without noise.
    """

    name: str
    prediction: str
    sigmas: Tensor
    eta: float
    x: Tensor
    reference: Tensor
    policy: Tensor
    log_ratio: Tensor
    kl: Tensor


class Recorder:
    """Collects the steps of one sampler."""

    def __init__(self) -> None:
        self.rows: list[tuple[Tensor, ...]] = []

    def add(self, x: Tensor, outputs: tuple[Tensor, ...], means: tuple[Tensor, ...], std: Any, x_next: Tensor) -> None:
        """Add one step: latents and network outputs in sigma space, means and std in whatever space x_next is in."""
        log_ratio = kl = x.new_zeros(len(x))
        if std > 0:
            reference, policy = (Normal(mean, torch.as_tensor(std, dtype=torch.float64)) for mean in means)
            log_ratio = (policy.log_prob(x_next) - reference.log_prob(x_next)).flatten(1).sum(1)
            kl = kl_divergence(policy, reference).flatten(1).sum(1)
        self.rows.append((x, *outputs, log_ratio, kl))

    def done(self, name: str, prediction: str, sigmas: Tensor, eta: float, last: Tensor) -> Recorded:
        x, reference, policy, log_ratio, kl = (torch.stack(column) for column in zip(*self.rows, strict=True))
        return Recorded(name, prediction, sigmas, eta, torch.cat([x, last[None]]), reference, policy, log_ratio, kl)


def toy_denoised(x: Tensor, signal: Any, noise: Any) -> tuple[Tensor, Tensor]:
    """Return the denoised predictions of both policies for x = signal * x0 + noise * n, with x0 of unit variance."""
    size = (signal**2 + noise**2) ** 0.5
    unit = x / size
    reference = signal / size * unit + 0.3 * torch.tanh(unit.roll(1, -1))
    return reference, reference + CHANGE * torch.sin(3 * unit.roll(2, -2))


def to_denoised(output: Tensor, x: Tensor, sigma: Tensor, prediction: str) -> Tensor:
    """Compute denoised latents from a network's output, in sigma space, in these dtypes.

    Karras et al. 2022 (arXiv 2206.00364, table 1) for epsilon, k-diffusion's v denoiser, and x - sigma * v for flow.
    """
    sigma = sigma.to(x)
    if prediction == "v_prediction":
        return x / (sigma**2 + 1) - output * sigma / (sigma**2 + 1).sqrt()
    return output if prediction == "sample" else x - sigma * output


def ddim(prediction: str, eta: float, steps: int, spacing: str = "leading", seed: int = 0) -> Recorded:
    """Sample with diffusers' DDIMScheduler and Stable Diffusion's schedule, in float64."""
    from diffusers import DDIMScheduler

    scheduler: Any = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1 if spacing == "leading" else 0,
        timestep_spacing=spacing,
        prediction_type=prediction,
    )
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    scheduler.final_alpha_cumprod = scheduler.final_alpha_cumprod.double()
    scheduler.set_timesteps(steps)
    generator, recorder, sigmas = torch.Generator().manual_seed(seed), Recorder(), []
    x = torch.randn(SHAPE, generator=generator, dtype=torch.float64)
    for t in scheduler.timesteps.tolist():
        before = t - 1000 // steps
        a = scheduler.alphas_cumprod[t]
        a_next = scheduler.alphas_cumprod[before] if before >= 0 else scheduler.final_alpha_cumprod
        signal, noise = a.sqrt(), (1 - a).sqrt()
        outputs = tuple(vp_output(d, x, signal, noise, prediction) for d in toy_denoised(x, signal, noise))
        draw = torch.randn(SHAPE, generator=generator, dtype=torch.float64)
        means = [scheduler.step(o, t, x, eta=eta, variance_noise=torch.zeros_like(x)).prev_sample for o in outputs]
        x_next = scheduler.step(outputs[0], t, x, eta=eta, variance_noise=draw).prev_sample
        std = eta * scheduler._get_variance(t, before).sqrt()
        recorder.add(x / signal, outputs, tuple(means), std, x_next)
        sigmas.append(noise / signal)
        x = x_next
    sigmas.append(((1 - a_next) / a_next).sqrt())
    return recorder.done("DDIM (diffusers)", prediction, torch.stack(sigmas), eta, x / a_next.sqrt())


def vp_output(denoised: Tensor, x: Tensor, signal: Tensor, noise: Tensor, prediction: str) -> Tensor:
    """Return the output of a variance-preserving network whose denoised latents are these (Salimans and Ho 2022)."""
    epsilon = (x - signal * denoised) / noise
    return {"epsilon": epsilon, "v_prediction": signal * epsilon - noise * denoised, "sample": denoised}[prediction]


def k_diffusion_sampling() -> ModuleType | None:
    """Load k-diffusion's own sampling.py; None if the package is not installed."""
    package = importlib.util.find_spec("k_diffusion")
    if package is None or package.origin is None:
        return None
    unused: dict[str, Any] = {name: ModuleType(name) for name in ("scipy", "torchdiffeq", "torchsde", "kd", "kd.utils")}
    unused["scipy"].integrate = unused["torchdiffeq"].odeint = None
    unused["kd.utils"].append_dims = lambda x, dims: x[(...,) + (None,) * (dims - x.ndim)]
    unused["kd"].utils = unused["kd.utils"]
    path = Path(package.origin).with_name("sampling.py")
    spec = importlib.util.spec_from_file_location("kd.sampling", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    with mock.patch.dict(sys.modules, unused):
        spec.loader.exec_module(module)
    return module


def euler_ancestral(sampling: ModuleType, eta: float, steps: int, seed: int = 0) -> Recorded:
    """Run k-diffusion's `sample_euler_ancestral` on a Karras schedule that ends in 0, step by step, in float64."""
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    sigmas = (14.6 ** (1 / 7) + ramp * (0.03 ** (1 / 7) - 14.6 ** (1 / 7))) ** 7
    sigmas = torch.cat([sigmas, sigmas.new_zeros(1)])
    generator, recorder = torch.Generator().manual_seed(seed), Recorder()
    x = torch.randn(SHAPE, generator=generator, dtype=torch.float64) * sigmas[0]
    for i in range(steps):

        def step(denoised: Tensor, draw: Tensor, start: Tensor = x, levels: Tensor = sigmas[i : i + 2]) -> Tensor:
            return sampling.sample_euler_ancestral(
                lambda *_: denoised, start, levels, eta=eta, disable=True, noise_sampler=lambda *_: draw
            )

        outputs = toy_denoised(x, 1, sigmas[i])
        draw = torch.randn(SHAPE, generator=generator, dtype=torch.float64)
        x_next = step(outputs[0], draw)
        means = (step(outputs[0], torch.zeros_like(x)), step(outputs[1], torch.zeros_like(x)))
        recorder.add(x, outputs, means, sampling.get_ancestral_step(sigmas[i], sigmas[i + 1], eta)[1], x_next)
        x = x_next
    return recorder.done("Euler ancestral (k-diffusion)", "sample", sigmas, eta, x)


FlowStep = Callable[[Tensor, Tensor, Tensor, Tensor, float], tuple[Tensor, Tensor]]


def renoised_flow_step(x: Tensor, v: Tensor, sigma: Tensor, sigma_next: Tensor, eta: float) -> tuple[Tensor, Tensor]:
    """Return mean and std of an ancestral flow step from its definition.

    Go further down the straight line from data to noise than to sigma_next, shrink so that the signal is right, and add
    noise up to sigma_next.
    """
    data, noise = x - sigma * v, x + (1 - sigma) * v
    down = sigma_next - eta * sigma_next * (sigma - sigma_next) / sigma
    shrink = (1 - sigma_next) / (1 - down)
    return shrink * ((1 - down) * data + down * noise), (sigma_next**2 - (shrink * down) ** 2).sqrt()


def flow_grpo_step(x: Tensor, v: Tensor, sigma: Tensor, sigma_next: Tensor, eta: float) -> tuple[Tensor, Tensor]:
    """Return mean and std of Flow-GRPO's step as published, in velocity (Liu et al. 2025, arXiv 2505.05470, eq. 9)."""
    dt = sigma_next - sigma
    s = eta * (sigma / (1 - (sigma_next if sigma == 1 else sigma))).sqrt()
    return x + (v + s**2 / (2 * sigma) * (x + (1 - sigma) * v)) * dt, s * (-dt).sqrt()


def flow(name: str, step: FlowStep, eta: float, steps: int, seed: int = 0) -> Recorded:
    """Sample a flow model on SD3's schedule (shift 3), from sigma 1; the last step, to 0, is taken without noise."""
    even = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    sigmas = 3 * even / (1 + 2 * even)
    generator, recorder = torch.Generator().manual_seed(seed), Recorder()
    x = torch.randn(SHAPE, generator=generator, dtype=torch.float64)
    for i in range(steps):
        sigma, sigma_next = sigmas[i], sigmas[i + 1]
        outputs = tuple((x - d) / sigma for d in toy_denoised(x, 1 - sigma, sigma))
        (mean, std), (changed, _) = (step(x, v, sigma, sigma_next, eta if sigma_next > 0 else 0.0) for v in outputs)
        x_next = mean + std * torch.randn(SHAPE, generator=generator, dtype=torch.float64)
        recorder.add(x, outputs, (mean, changed), std, x_next)
        x = x_next
    return recorder.done(name, "flow", sigmas, eta, x)


def consistency(steps: int, seed: int = 0) -> Recorded:
    """Sample by LCM's multistep sampling from its definition: the next latents are N(denoised, sigma_next^2)."""
    sigmas = torch.cat([torch.logspace(1.16, -0.7, steps, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)])
    generator, recorder = torch.Generator().manual_seed(seed), Recorder()
    x = torch.randn(SHAPE, generator=generator, dtype=torch.float64) * sigmas[0]
    for i in range(steps):
        denoised = toy_denoised(x, 1, sigmas[i])
        x_next = denoised[0] + sigmas[i + 1] * torch.randn(SHAPE, generator=generator, dtype=torch.float64)
        recorder.add(x, denoised, denoised, sigmas[i + 1], x_next)
        x = x_next
    return recorder.done("LCM (closed form)", "sample", sigmas, 1.0, x)
