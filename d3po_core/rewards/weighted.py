"""Weighted sums of rewards."""

from __future__ import annotations

from collections.abc import Callable
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
        terms: at least one, (weight, reward). Of a sum, the weight is that of each of its terms.
    """
    if len(terms) == 1 and terms[0][0] == 1:
        return terms[0][1]
    terms = _plain(terms)
    known = all(reward.written for _, reward in terms)
    return Reward(
        name=joined([(weight, reward.name) for weight, reward in terms], "{:g}".format),
        likes="; ".join(f"{weight:g} of {reward.likes}" for weight, reward in terms),
        function=WeightedSum(tuple(terms)),
        differentiable=all(reward.differentiable for _, reward in terms),
        written=joined([(weight, reward.written) for weight, reward in terms]) if known else "",
    )


def joined(terms: list[tuple[float, str]], number: Callable[[float], str] = repr) -> str:
    """A sum as `get_reward` reads it, to the last digit of its weights unless `number` writes them otherwise."""
    return " + ".join(name if weight == 1 else f"{number(weight)}*{name}" for weight, name in terms)


def _plain(terms: list[tuple[float, Reward]]) -> list[tuple[float, Reward]]:
    """Terms that are no sums themselves: a text has no brackets to put one in."""
    found: list[tuple[float, Reward]] = []
    for weight, reward in terms:
        inner = reward.function.terms if isinstance(reward.function, WeightedSum) else ((1.0, reward),)
        found += [(weight * own, term) for own, term in inner]
    return found
