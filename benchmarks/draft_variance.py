"""How noisy are the gradients of DRaFT-1 and DRaFT-LV? On the embedded model: `python -m benchmarks.draft_variance`.

Each draw is one update's gradient of a reward for one picture of one prompt, with a LoRA that has been trained a
little. Draw i begins with the same noises in every way, which differ only in what they do after the sample. Told are:

- the variance, summed over parameters, relative to the squared length of the mean (of which the share that is noise is
  taken off, so that few draws do not flatter);
- cosines with DRaFT-1: of the mean, and the mean of those of each draw with DRaFT-1's from the same start. How far a
  cosine of means can be told from 1 with so many draws is seen by that of DRaFT-1's two halves, half as many each;
- seconds of one core for an update, sampling included, and what an update's noise costs to average away: variance times
  seconds, relative to DRaFT-1's.

Then DRaFT-LV alone at one fixed sample: its variance over the noises for several n. And how much of the variance of all
draws that is (mean over several samples, n = 1): no n can take more than that away.

Seeds: draws 0 to N - 1.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import statistics
import time

import torch
from torch import Tensor

from benchmarks.garden import one_thread
from d3po_core.diffusion.denoiser import starting_latents
from d3po_core.diffusion.draft import renoised, sample_through
from d3po_core.diffusion.rollout import generator, make_plan
from d3po_core.embedded import split_prompts
from d3po_core.lora import attach
from d3po_core.models import load_model
from d3po_core.rewards import get_reward
from d3po_core.settings import LoraSettings, RewardSettings, SampleSettings
from d3po_core.training.reward_gradient import PromptSample, RewardGradient

GUIDANCE = 2.5
SAMPLES = 16
"""Fixed samples at which the noises' own variance is measured."""


class Gradients:
    """Draws of the reward's gradient on the embedded model."""

    def __init__(self, reward: str, size: float) -> None:
        self.model, self.reward = load_model("garden"), get_reward(reward)
        self.prompt = split_prompts()[0][0]
        self.row = self.model.encode([self.prompt])[0]
        self.parameters = attach(self.model.denoiser.module, LoraSettings(targets="attention")).parameters()
        chance = generator("draft variance")
        with torch.no_grad():
            for parameter in self.parameters[1::2]:  # the up matrices, which begin at zero
                parameter.copy_(size * torch.randn(parameter.shape, generator=chance))
        self.sample = SampleSettings(guidance_scale=GUIDANCE)
        self.plan = make_plan(self.model.denoiser, self.sample)

    def of(self, update: int, **settings: object) -> Tensor:
        """Return the gradient of one update."""
        self._forget()
        given = RewardSettings(checkpointing=False, **settings)  # type: ignore[arg-type]
        shape = self.model.latent_shape()
        gradient = RewardGradient(self.model, self.reward, self.plan.steps, shape, GUIDANCE, given)
        gradient.backward([PromptSample(self.prompt, self.row, update)], update, 1)
        return self._found()

    def at_one_sample(self, sample: int, draw: int, n: int) -> Tensor:
        """Return DRaFT-LV's gradient at a sample that is the same for all draws."""
        denoiser, clean, sigma = self.model.denoiser, self._clean(sample), float(self.plan.steps.sigma[-1])
        self._forget()
        chance = generator("one sample", sample, draw)
        for _ in range(n):
            noise = torch.randn(clean.shape, generator=chance)
            latents = renoised(denoiser, clean, sigma, noise, self.row, GUIDANCE)
            (-self.reward(self.model.decode(latents), [self.prompt]).sum() / n).backward()
        return self._found()

    @functools.cache  # noqa: B019 (there is one of these, and it lives as long as the program)
    def _clean(self, sample: int) -> Tensor:
        """Return finished latents, without gradient."""
        steps, denoiser, chance = self.plan.steps, self.model.denoiser, generator("one sample", sample)
        noises = [torch.randn(1, *self.model.latent_shape(), generator=chance) for _ in range(len(steps) + 1)]
        x = starting_latents(denoiser, noises.pop(), float(steps.sigma[0]))
        with torch.no_grad():
            return sample_through(denoiser, steps, x, noises, self.row, GUIDANCE, 1)

    def _forget(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    def _found(self) -> Tensor:
        return torch.cat([p.grad.flatten() for p in self.parameters if p.grad is not None])


def variance(draws: Tensor) -> float:
    """Return the variance of draws (N, parameters), summed over parameters."""
    return float(draws.double().var(0).sum())


def noise_to_signal(draws: Tensor) -> float:
    """Return the variance of draws (N, parameters) over the squared length of their centre.

    |mean of the draws|^2 is larger than that of the truth by variance / N on average, which is taken off.
    """
    spread = variance(draws)
    return spread / (float(draws.double().mean(0).square().sum()) - spread / len(draws))


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Return the cosine along the last dimension."""
    return torch.nn.functional.cosine_similarity(a.double(), b.double(), dim=-1)


WAYS: dict[str, dict[str, object]] = {
    "DRaFT-1": {"variant": "draft-k", "last": 1},
    **{f"DRaFT-LV n={n}": {"variant": "draft-lv", "noises": n} for n in (1, 2, 4)},
}


def compare_ways(gradients: Gradients, count: int) -> float:
    """Prints a line for each way; returns the variance of DRaFT-LV with n = 1.

    The ways take turns, so that other work on the machine slows them all alike; seconds are medians.
    """
    found: dict[str, list[Tensor]] = {name: [] for name in WAYS}
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    for draw, (name, way) in itertools.product(range(count), WAYS.items()):
        begin = time.process_time()
        found[name].append(gradients.of(draw, **way))
        seconds[name].append(time.process_time() - begin)
    draws = {name: torch.stack(each) for name, each in found.items()}
    costs = {name: noise_to_signal(draws[name]) * statistics.median(seconds[name]) for name in WAYS}
    first = draws["DRaFT-1"]
    print("| | variance / mean^2 | cosine of means | of draws | seconds | variance x seconds |\n" + "|---" * 6 + "|")
    for name, each in draws.items():
        of_means, of_draws = float(cosine(each.mean(0), first.mean(0))), float(cosine(each, first).mean())
        print(
            f"| {name} | {noise_to_signal(each):.3f} | {of_means:.4f} | {of_draws:.4f} | "
            f"{statistics.median(seconds[name]):.3f} | {costs[name] / costs['DRaFT-1']:.2f} |"
        )
    halves = float(cosine(first[::2].mean(0), first[1::2].mean(0)))
    print(f"\nCosine of the means of DRaFT-1's two halves: {halves:.4f}", flush=True)
    return variance(draws["DRaFT-LV n=1"])


def at_fixed_samples(gradients: Gradients, count: int, single: float) -> None:
    """Prints DRaFT-LV's variance over its noises, for several n, and beside `single`, that of all draws."""

    def spread(sample: int, n: int, draws: int) -> float:
        return variance(torch.stack([gradients.at_one_sample(sample, draw, n) for draw in range(draws)]))

    print(f"\nDRaFT-LV at one sample, {count} draws, variance relative to n = 1:")
    first = 0.0
    for n in (1, 2, 4, 8):
        found = spread(0, n, count)
        first = first or found
        print(f"  n = {n}: {found / first:.3f} (1/n = {1 / n:.3f})", flush=True)
    each = max(2, count // SAMPLES)
    share = statistics.mean(spread(sample, 1, each) for sample in range(SAMPLES)) / single
    print(f"Of the variance of all draws (n = 1), {share:.2%} is of the noises at a sample ({SAMPLES} x {each} draws).")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=256)
    parser.add_argument("--reward", default="warmth")
    parser.add_argument("--size", type=float, default=0.02, help="of the LoRA's up matrices [.02]")
    options = parser.parse_args()
    one_thread()
    gradients = Gradients(options.reward, options.size)
    print(f"{options.reward}, {options.draws} draws of one picture each\n")
    single = compare_ways(gradients, options.draws)
    at_fixed_samples(gradients, options.draws, single)


if __name__ == "__main__":
    main()
