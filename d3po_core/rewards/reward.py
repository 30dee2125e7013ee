"""What a reward is: something that says how much it likes each picture, and whether autograd can follow it.

Only the order of scores means anything to picking, win rates and D3PO; methods that climb a reward (DRaFT, DDPO) feel
its scale too, so each built-in one says its units.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import D3POError

SAME = 1e-6
"""Scores that differ by less than this share of their size differ by rounding only."""

NOTHING = 1e-7
"""Nor is a smaller difference one: float32 knows no finer ones between pictures whose values go up to 1."""

Function = Callable[[Tensor, list[str]], Tensor]
"""Pictures (B, 3, H, W) in [0, 1], float32 or float64, and the prompts they were drawn for, B, to scores (B,)."""


@dataclass(frozen=True)
class Reward:
    """A function of pictures and prompts, and what there is to know about it.

    Attributes:
        name: as in `get_reward`, without the folders of a path.
        likes: what it prefers, to follow "It likes": "warm colours: mean of red minus mean of blue".
        function: the scores.
        differentiable: whether their gradient reaches the pictures.
        written: what `get_reward` gives the same for, wherever it is called; "" if nothing does.
    """

    name: str
    likes: str
    function: Function
    differentiable: bool
    written: str = ""

    def __call__(self, images: Tensor, prompts: list[str]) -> Tensor:
        """Score pictures.

        Args:
            images: (B, 3, H, W) in [0, 1].
            prompts: what each was drawn for, B.

        Returns:
            Scores (B,), higher is better, on the images' device; float32, or float64 if the images are. With gradient
            where the reward is differentiable and gradients are enabled.

        Raises:
            D3POError: the function returned something else than B finite numbers, or lost a gradient it promises.
        """
        images = images if images.dtype == torch.float64 else images.float()
        with torch.set_grad_enabled(self.differentiable and torch.is_grad_enabled()):
            scores = self.function(images, prompts)
            self._check(scores, images)
            return scores.to(images.device, images.dtype)

    def _check(self, scores: Tensor, images: Tensor) -> None:
        if not isinstance(scores, Tensor) or scores.shape != (len(images),):
            got = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
            raise D3POError(
                f"The reward '{self.name}' returned {got} for {len(images)} pictures.",
                f"It must return one number for each, a tensor of shape ({len(images)},).",
            )
        bad = int((~scores.isfinite()).sum())
        if bad:
            raise D3POError(
                f"The reward '{self.name}' returned NaN or infinity for {bad} of {len(images)} pictures.",
                "Use another reward, or another numeric format for the model.",
            )
        if torch.is_grad_enabled() and images.requires_grad and not scores.requires_grad:
            raise D3POError(
                f"The reward '{self.name}' is marked as differentiable, but its scores carry no gradient.",
                "Mark it as not differentiable, or take out what detaches them.",
            )


def check_varied(reward: Reward, scores: Tensor) -> None:
    """Refuse a reward that cannot tell pictures apart.

    Args:
        reward: for its name.
        scores: of two or more different pictures, (B,).

    Raises:
        D3POError: they are all the same.
    """
    spread, size = float(scores.max() - scores.min()), float(scores.abs().max())
    if spread <= max(SAME * size, NOTHING):
        raise D3POError(
            f"The reward '{reward.name}' gives every picture the same score ({size:.4g}): there is nothing to learn.",
            "Choose another reward.",
        )


@dataclass(frozen=True)
class WeightedSum:
    """The scores' sum, each times its weight; the rewards keep their own units."""

    terms: tuple[tuple[float, Reward], ...]

    def __call__(self, images: Tensor, prompts: list[str]) -> Tensor:
        (weight, first), *others = self.terms
        total = weight * first(images, prompts)
        for weight, reward in others:
            total = total + weight * reward(images, prompts)
        return total


def weighted_sum(terms: list[tuple[float, Reward]]) -> Reward:
    """A reward that is differentiable if all its terms are; a single term of weight 1 is that term.

    Args:
        terms: at least one, (weight, reward). Of a sum, the weight is that of each of its terms.
    """
    if len(terms) == 1 and terms[0][0] == 1:
        return terms[0][1]
    terms = _flatten_sums(terms)
    known = all(reward.written for _, reward in terms)
    return Reward(
        name=write_sum([(weight, reward.name) for weight, reward in terms], "{:g}".format),
        likes="; ".join(f"{weight:g} of {reward.likes}" for weight, reward in terms),
        function=WeightedSum(tuple(terms)),
        differentiable=all(reward.differentiable for _, reward in terms),
        written=write_sum([(weight, reward.written) for weight, reward in terms]) if known else "",
    )


def write_sum(terms: list[tuple[float, str]], number: Callable[[float], str] = repr) -> str:
    """A sum as `get_reward` reads it, to the last digit of its weights unless `number` writes them otherwise."""
    return " + ".join(name if weight == 1 else f"{number(weight)}*{name}" for weight, name in terms)


def _flatten_sums(terms: list[tuple[float, Reward]]) -> list[tuple[float, Reward]]:
    """Terms that are no sums themselves: a text has no brackets to put one in."""
    found: list[tuple[float, Reward]] = []
    for weight, reward in terms:
        inner = reward.function.terms if isinstance(reward.function, WeightedSum) else ((1.0, reward),)
        found += [(weight * own, term) for own, term in inner]
    return found
