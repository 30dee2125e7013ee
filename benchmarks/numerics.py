"""How exact are log-ratio and KL, and what does storing a trajectory in few bits cost: `python -m benchmarks.numerics`.

Table 1 compares `d3po_core` with samplers that others wrote, run in float64 (see `reference_samplers`). The error is
given in units of (denoised_coef/std) |z| |delta|, the size of the log-ratio's terms: the log-ratio itself may be near
zero.

Table 2 stores x and the reference's prediction in a smaller type, as a run on disk does, and evaluates the policy on
what was stored. The error is compared with the spread of the log-ratio over candidates of one group, which is what
training learns from. "snapped" means that sampling went on from the rounded latents, so that only the prediction loses.

Seeds: sampler 0 in table 1; in table 2 the trajectories' 0 to 2. Everything runs on the CPU.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import astuple, dataclass

import torch
from torch import Tensor

from benchmarks import reference_samplers as others
from d3po_core.diffusion.losses import kl, log_ratio, residual
from d3po_core.diffusion.steps import SAMPLERS, LinearSteps, ancestral, early_window

BOUND = {torch.float32: 1e-5, torch.float64: 1e-12}
PREDICTIONS = ("epsilon", "v_prediction", "sample")


@dataclass(frozen=True)
class Errors:
    """The worst over all steps with noise and all images, in units of (denoised_coef/std) |z| |delta|."""

    log_ratio: float
    kl: float
    steps: int


def errors(recorded: others.Recorded, family: str, dtype: torch.dtype) -> Errors:
    """Evaluates the project's log-ratio and KL in `dtype`, network outputs included, against the recorded truth."""
    steps = SAMPLERS[family](recorded.sigmas, torch.full_like(recorded.sigmas[1:], recorded.eta))
    noisy = [i for i in range(len(steps)) if steps.std[i] > 0]
    worst = [0.0, 0.0]
    for i in noisy:
        step = steps[torch.full((recorded.x.shape[1],), i)]
        x, x_next = recorded.x[i].to(dtype), recorded.x[i + 1].to(dtype)
        reference, policy = (
            others.to_denoised(output[i].to(dtype), x, recorded.sigmas[i], recorded.prediction)
            for output in (recorded.reference, recorded.policy)
        )
        z = residual(x, x_next, reference, step)
        unit = step.denoised_coef / step.std * norm(z) * norm(policy - reference)
        found = (log_ratio(policy, reference, z, step), kl(policy, reference, step))
        for j, (value, truth) in enumerate(zip(found, (recorded.log_ratio[i], recorded.kl[i]), strict=True)):
            worst[j] = max(worst[j], float(((value.double() - truth).abs() / unit).max()))
    return Errors(worst[0], worst[1], len(noisy))


def norm(value: Tensor) -> Tensor:
    """Return the length of each row, (B,), float64."""
    return value.double().flatten(1).norm(dim=1)


def cases(counts: tuple[int, ...]) -> Iterator[tuple[others.Recorded, str]]:
    """Return all samplers with the name of their step family, at these numbers of steps."""
    sampling = others.k_diffusion_sampling()
    if sampling is None:
        print("k-diffusion is not installed (pip install --no-deps k-diffusion==0.1.1.post1); left out.\n")
    for eta in (0.5, 1.0):
        for steps in counts:
            for prediction in PREDICTIONS:
                yield others.ddim(prediction, eta, steps), "ancestral"
            if sampling:
                yield others.euler_ancestral(sampling, eta, steps), "ancestral"
            yield others.flow("flow ancestral (closed form)", others.renoised_flow_step, eta, steps), "flow_ancestral"
            yield others.flow("Flow-GRPO (published form)", others.flow_grpo_step, eta, steps), "flow_sde"
    for steps in counts:
        yield others.consistency(steps), "lcm"


def stable_diffusion_sigmas(steps: int) -> Tensor:
    """Noise levels of Stable Diffusion's DDIM with leading spacing, float64 (steps + 1,)."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    kept = (1 - betas).cumprod(0)
    times = torch.arange(steps).flip(0) * (1000 // steps) + 1
    times = torch.cat([times, times.new_zeros(1)])
    return ((1 - kept) / kept).sqrt()[times]


@dataclass(frozen=True)
class Storage:
    """Root mean square over candidates, summed over the window, in nats."""

    spread: float
    error: float


def storage(dtype: torch.dtype, snapped: bool, side: int, window: bool, seed: int, candidates: int = 32) -> Storage:
    """Measure how storing x and the reference's prediction in `dtype` changes the log-ratio of trajectories.

    Args:
        dtype: what is stored.
        snapped: whether sampling goes on from the stored latents.
        side: height and width of the 4-channel latents.
        window: the default early window of 20 steps, else all of them.
        seed: of the noise.
        candidates: images from one starting noise.
    """
    sigmas = stable_diffusion_sigmas(20)
    steps = ancestral(sigmas, torch.ones(20))
    count = int(early_window(sigmas, "diffusion", 2.5).sum()) if window else 20
    generator = torch.Generator().manual_seed(seed)
    shape = (candidates, 4, side, side)
    start = torch.randn(shape[1:], generator=generator, dtype=torch.float64)
    x = (1 + sigmas[0] ** 2).sqrt() * start.expand(shape)
    exact, stored = torch.zeros(2, candidates, dtype=torch.float64)
    for i in range(count):
        x = rounded(x, dtype) if snapped else x
        step = steps[torch.full((candidates,), i)]
        reference, policy = others.toy_denoised(x, 1, sigmas[i])
        noise = torch.randn(shape, generator=generator, dtype=torch.float64)
        x_next = steps.x_coef[i] * x + steps.denoised_coef[i] * reference + steps.std[i] * noise
        x_next = rounded(x_next, dtype) if snapped else x_next
        exact += ratio(policy, reference, x, x_next, step)
        seen = rounded(x, dtype)
        policy = others.toy_denoised(seen, 1, sigmas[i])[1]
        stored += ratio(policy, rounded(reference, dtype), seen, rounded(x_next, dtype), step)
        x = x_next
    return Storage(float(exact.std()), float((stored - exact).square().mean().sqrt()))


def rounded(value: Tensor, dtype: torch.dtype) -> Tensor:
    return value.to(dtype).double()


def ratio(policy: Tensor, reference: Tensor, x: Tensor, x_next: Tensor, step: LinearSteps) -> Tensor:
    return log_ratio(policy, reference, residual(x, x_next, reference, step), step)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer steps and seeds")
    quick = parser.parse_args().quick

    print("Log-ratio and KL, worst error in units of (denoised_coef/std) |z| |delta|\n")
    print(f"{'sampler':32}{'predicts':14}{'eta':>5}{'steps':>6}  {'dtype':9}{'log-ratio':>10}{'KL':>10}{'bound':>8}")
    for recorded, family in cases((4, 20) if quick else (4, 20, 50, 200)):
        for dtype, bound in BOUND.items():
            worst = errors(recorded, family, dtype)
            verdict = "" if max(worst.log_ratio, worst.kl) <= bound else "  EXCEEDED"
            print(
                f"{recorded.name:32}{recorded.prediction:14}{recorded.eta:>5}{worst.steps:>6}  {str(dtype)[6:]:9}"
                f"{worst.log_ratio:>10.1e}{worst.kl:>10.1e}{bound:>8.0e}{verdict}"
            )

    print(f"\nStored trajectories: 20 steps, Stable Diffusion's schedule, eta 1, policies {others.CHANGE:.0%} apart\n")
    print(f"{'steps':14}{'latents':12}{'stored as':10}{'snapped':9}{'spread, nats':>13}{'error, nats':>13}{'share':>9}")
    for window in (True, False):
        for side in (16,) if quick else (16, 64):
            for dtype in (torch.float32, torch.float16, torch.bfloat16):
                for snapped in (False, True):
                    runs = [storage(dtype, snapped, side, window, seed) for seed in range(1 if quick else 3)]
                    spread, error = (sum(values) / len(runs) for values in zip(*map(astuple, runs), strict=True))
                    print(
                        f"{'early window' if window else 'all':14}{f'4x{side}x{side}':12}{str(dtype)[6:]:10}"
                        f"{'yes' if snapped else 'no':9}{spread:>13.3g}{error:>13.2g}{error / spread:>9.2%}"
                    )


if __name__ == "__main__":
    main()
