"""One update's gradient of a reward on pictures that are drawn for it (draft.py), in parts that fit into memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..diffusion.denoiser import Conditioning, size, stack, starting_latents
from ..diffusion.draft import renoised, sample_through
from ..diffusion.image_model import ImageModel
from ..diffusion.rollout import generator
from ..diffusion.steps import LinearSteps
from ..diffusion.tiled_decoding import decode_in_tiles
from ..rewards import Reward
from ..settings import RewardSettings

LATE = 0.25
"""ReFL stops within this last share of the steps; the paper (Xu et al. 2023, section 3.2) takes the last 10 of 40."""


@dataclass(frozen=True)
class PromptSample:
    """What one picture is drawn from.

    Attributes:
        prompt: for the reward.
        conditioning: one row.
        number: names its noise.
    """

    prompt: str
    conditioning: Conditioning
    number: int


def batches(scenes: Sequence[PromptSample], at_once: int) -> Iterator[list[PromptSample]]:
    """Scenes in batches of at most so many, each of one size of conditioning."""
    kinds: dict[object, list[PromptSample]] = {}
    for scene in scenes:
        kinds.setdefault(size(scene.conditioning), []).append(scene)
    for alike in kinds.values():
        for i in range(0, len(alike), at_once):
            yield alike[i : i + at_once]


class RewardGradient:
    """Accumulates the gradient of minus the mean reward.

    Args:
        model: the policy; its decoder passes gradients on.
        reward: differentiable.
        steps: of the sampler.
        shape: of one picture's latents.
        guidance_scale: classifier-free guidance.
        settings: variant, last, noises, checkpointing, tile, seed.
    """

    def __init__(
        self,
        model: ImageModel,
        reward: Reward,
        steps: LinearSteps,
        shape: tuple[int, ...],
        guidance_scale: float,
        settings: RewardSettings,
    ) -> None:
        self._model, self._reward, self._steps, self._shape = model, reward, steps, shape
        self._guidance, self._settings = guidance_scale, settings

    def backward(self, scenes: Sequence[PromptSample], update: int, at_once: int, scale: float = 1.0) -> float:
        """The gradient of an update's pictures.

        Args:
            scenes: B pictures.
            update: number of the update: decides noises and, for ReFL, the step.
            at_once: pictures in one backward pass.
            scale: loss scale, for float16 networks.

        Returns:
            The mean reward of all pictures that the gradient was taken of.
        """
        finished = self._model.denoiser.finished
        total, count = 0.0, 0
        for part in batches(scenes, at_once):
            for latents, of in self._latents(part, update):
                images = decode_in_tiles(self._model.decode, finished(latents), self._settings.tile)
                rewards = self._reward(images, [scene.prompt for scene in part])
                (-rewards.sum() * (scale / (len(scenes) * of))).backward()
                total, count = total + float(rewards.detach().sum()), count + len(rewards)
        return total / count

    def _latents(self, scenes: list[PromptSample], update: int) -> Iterator[tuple[Tensor, int]]:
        """Clean latents with gradient (B, ...), once or several times, and how often."""
        settings, steps, denoiser = self._settings, self._steps, self._model.denoiser
        conditioning = stack([scene.conditioning for scene in scenes])
        noises = self._noises(scenes, update, len(steps) + 1)
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
        for noise in self._noises(scenes, f"{update} again", settings.noises):
            level = float(steps.sigma[-1])
            yield renoised(denoiser, clean, level, noise, conditioning, self._guidance), settings.noises

    def _extent(self, update: int) -> tuple[int, int]:
        """K and the step to stop at (draft.py)."""
        count = len(self._steps)
        if self._settings.variant == "refl":
            late = max(1, round(LATE * count))
            chance = generator(self._settings.seed, "refl", update)
            return 1, count - 1 - int(torch.randint(late, (), generator=chance))
        return (count if self._settings.variant == "draft" else min(self._settings.last, count)), count - 1

    def _noises(self, scenes: list[PromptSample], update: int | str, count: int) -> list[Tensor]:
        """`count` draws of unit noise (B, ...); each picture's own, so that batches may be cut anywhere."""
        chances = [generator(self._settings.seed, "reward", update, scene.number) for scene in scenes]
        draws = [torch.randn(count, *self._shape, generator=chance) for chance in chances]
        return list(torch.stack(draws, 1).to(self._model.denoiser.device))
