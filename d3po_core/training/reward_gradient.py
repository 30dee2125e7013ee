"""The gradient of a reward on images drawn for one update (diffusion/draft.py), in parts that fit in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..diffusion.denoiser import Conditioning, size, stack, starting_latents
from ..diffusion.draft import renoised, sample_through
from ..diffusion.image_model import ImageModel, check_finite
from ..diffusion.rollout import generator
from ..diffusion.steps import LinearSteps
from ..diffusion.tiled_decoding import decode_in_tiles
from ..rewards.reward import ScoreFunction
from ..settings import RewardSettings

LATE = 0.25
"""ReFL stops within this last share of the steps; the paper (Xu et al. 2023, section 3.2) takes the last 10 of 40."""


@dataclass(frozen=True)
class PromptSample:
    """What one image is drawn from.

    Attributes:
        prompt: for the reward.
        conditioning: one row.
        number: seeds its noise.
    """

    prompt: str
    conditioning: Conditioning
    number: int


def batches(samples: Sequence[PromptSample], at_once: int) -> Iterator[list[PromptSample]]:
    """Cut samples into batches of at most `at_once`, each of one size of conditioning."""
    by_size: dict[object, list[PromptSample]] = {}
    for each in samples:
        by_size.setdefault(size(each.conditioning), []).append(each)
    for alike in by_size.values():
        for i in range(0, len(alike), at_once):
            yield alike[i : i + at_once]


class RewardGradient:
    """Accumulates the gradient of minus the mean reward.

    Args:
        model: the policy; its decoder passes gradients on.
        reward: differentiable.
        steps: of the sampler.
        shape: of one image's latents.
        guidance_scale: classifier-free guidance.
        settings: variant, last, noises, checkpointing, tile, seed.
    """

    def __init__(
        self,
        model: ImageModel,
        reward: ScoreFunction,
        steps: LinearSteps,
        shape: tuple[int, ...],
        guidance_scale: float,
        settings: RewardSettings,
    ) -> None:
        self._model, self._reward, self._steps, self._shape = model, reward, steps, shape
        self._guidance, self._settings = guidance_scale, settings

    def backward(
        self, samples: Sequence[PromptSample], update: int, at_once: int, scale: float = 1.0, of: int = 0
    ) -> list[float]:
        """Accumulate the gradient of an update's images in the LoRA's parameters.

        Args:
            samples: what the B images are drawn from.
            update: number of the update: decides noises and, for ReFL, the step.
            at_once: images in one backward pass.
            scale: loss scale, for float16 networks.
            of: images of the update, where others are drawn by other processes; 0 for these alone.

        Returns:
            The rewards of all images that the gradient was taken of.
        """
        rewards = self.passes(samples, update, at_once, scale, of)
        return [reward for batch in rewards for reward in batch.tolist()]

    def passes(
        self, samples: Sequence[PromptSample], update: int, at_once: int, scale: float = 1.0, of: int = 0
    ) -> Iterator[Tensor]:
        """Do the backward passes of `backward` one by one, and yield the rewards of each, (B,)."""
        finished = self._model.denoiser.finished
        for part in batches(samples, at_once):
            for latents, times in self._latents(part, update):
                clean = check_finite(finished(latents), "network")
                images = check_finite(decode_in_tiles(self._model.decode, clean, self._settings.tile), "VAE")
                rewards = self._reward(images, [each.prompt for each in part])
                (-rewards.sum() * (scale / ((of or len(samples)) * times))).backward()
                yield rewards.detach()

    def _latents(self, samples: list[PromptSample], update: int) -> Iterator[tuple[Tensor, int]]:
        """Yield clean latents with gradient (B, ...), one or several times, each with the number of times."""
        settings, steps, denoiser = self._settings, self._steps, self._model.denoiser
        conditioning = stack([each.conditioning for each in samples])
        noises = self._noises(samples, update, len(steps) + 1)
        x = starting_latents(denoiser, noises.pop(), float(steps.sigma[0]))
        if settings.variant != "draft-lv":
            last, stop = self._extent(update)
            yield (
                sample_through(
                    denoiser, steps, x, noises, conditioning, self._guidance, last, stop, settings.checkpointing
                ),
                1,
            )
            return
        with torch.no_grad():
            clean = sample_through(denoiser, steps, x, noises, conditioning, self._guidance, 1)
        for noise in self._noises(samples, f"{update} again", settings.noises):
            level = float(steps.sigma[-1])
            yield renoised(denoiser, clean, level, noise, conditioning, self._guidance), settings.noises

    def _extent(self, update: int) -> tuple[int, int]:
        """Return K, how many last steps have a gradient, and the index of the step to stop at (diffusion/draft.py)."""
        count = len(self._steps)
        if self._settings.variant == "refl":
            late = max(1, round(LATE * count))
            rng = generator(self._settings.seed, "refl", update)
            return 1, count - 1 - int(torch.randint(late, (), generator=rng))
        return (count if self._settings.variant == "draft" else min(self._settings.last, count)), count - 1

    def _noises(self, samples: list[PromptSample], update: int | str, count: int) -> list[Tensor]:
        """Draw unit noise (B, ...) `count` times, seeded for each image, so that batches may be cut anywhere."""
        rngs = [generator(self._settings.seed, "reward", update, each.number) for each in samples]
        draws = [torch.randn(count, *self._shape, generator=rng) for rng in rngs]
        return list(torch.stack(draws, 1).to(self._model.denoiser.device))
