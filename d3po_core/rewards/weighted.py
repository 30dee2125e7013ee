"""Weighted sums of rewards."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .reward import Reward


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
        terms: at least one, (weight, reward).
    """
    if len(terms) == 1 and terms[0][0] == 1:
        return terms[0][1]
    known = all(reward.written for _, reward in terms)
    return Reward(
        name=joined([(weight, reward.name) for weight, reward in terms]),
        likes="; ".join(f"{weight:g} of {reward.likes}" for weight, reward in terms),
        function=WeightedSum(tuple(terms)),
        differentiable=all(reward.differentiable for _, reward in terms),
        written=joined([(weight, reward.written) for weight, reward in terms]) if known else "",
    )


def joined(terms: list[tuple[float, str]]) -> str:
    """A sum as `get_reward` reads it."""
    return " + ".join(name if weight == 1 else f"{weight!r}*{name}" for weight, name in terms)
