"""What a reward is: a function that scores images, and whether autograd can follow it.

Picking, win rates and D3PO use only the order of scores. Methods that climb a reward (DRaFT, DDPO) depend on its scale
too, so each built-in one says its units.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import D3POError

RELATIVE_ROUNDING = 1e-6
"""Scores that differ by less than this share of their size differ by rounding only."""
ABSOLUTE_ROUNDING = 1e-7
"""So do scores that differ by less than this, whatever their size: the rounding of float32 for values up to 1."""

ScoreFunction = Callable[[Tensor, list[str]], Tensor]
"""From images (B, 3, H, W) in [0, 1], float32 or float64, and the B prompts they were drawn for, to scores (B,)."""


@dataclass(frozen=True)
class Reward:
    """A function that scores images, and what there is to know about it.

    Attributes:
        name: as `get_reward` reads it, without the folders of a path.
        likes: what it prefers, to follow "It likes": "warm colours: mean of red minus mean of blue".
        function: computes the scores.
        differentiable: whether the gradient of the scores reaches the images.
        written: a text from which `get_reward` makes this reward anywhere; "" if there is none.
    """

    name: str
    likes: str
    function: ScoreFunction
    differentiable: bool
    written: str = ""

    def __call__(self, images: Tensor, prompts: list[str]) -> Tensor:
        """Score images.

        Args:
            images: (B, 3, H, W) in [0, 1].
            prompts: the B prompts that they were drawn for.

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
        """Raise D3POError unless there is one finite score for each image, with a gradient where one is promised."""
        if not isinstance(scores, Tensor) or scores.shape != (len(images),):
            returned = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
            raise D3POError(
                f"The reward '{self.name}' returned {returned} for {len(images)} pictures.",
                f"It must return one number for each, a tensor of shape ({len(images)},).",
            )
        not_finite = int((~scores.isfinite()).sum())
        if not_finite:
            raise D3POError(
                f"The reward '{self.name}' returned NaN or infinity for {not_finite} of {len(images)} pictures.",
                "Use another reward, or another numeric format for the model.",
            )
        if torch.is_grad_enabled() and images.requires_grad and not scores.requires_grad:
            raise D3POError(
                f"The reward '{self.name}' is marked as differentiable, but its scores carry no gradient.",
                "Mark it as not differentiable, or take out what detaches them.",
            )


@torch.inference_mode(False)  # as in `get_reward`
def reward_of(function: ScoreFunction | Reward, name: str = "", written: str = "") -> Reward:
    """Return a function that somebody wrote as a reward; a `Reward` is returned as it is.

    Whether it is differentiable is its attribute `differentiable`, if it has one; else it is tried on noise. What it
    likes is the first line of its docstring.

    Args:
        function: from images (B, 3, H, W) in [0, 1] and B prompts to scores (B,).
        name: for people; "" takes the function's own.
        written: see `Reward`.

    Raises:
        D3POError: it is no function, or it fails on noise or returns no scores.
    """
    if isinstance(function, Reward):
        return function
    name = name or getattr(function, "__name__", type(function).__name__)
    if not callable(function):
        raise D3POError(f"'{name}' is no reward.", "Give a function of images and prompts that returns scores.")
    description = (getattr(function, "__doc__", None) or "").strip() or f"what {name} scores highly"
    differentiable = getattr(function, "differentiable", None)
    if differentiable is None:
        images = torch.rand(2, 3, 64, 64, requires_grad=True)
        try:
            with torch.enable_grad():
                scores = function(images, ["", ""])
        except Exception as error:
            raise D3POError(
                f"The reward '{name}' fails on two pictures of noise ({type(error).__name__}: {error}).",
                "Mend it, or set its attribute differentiable to True or False, so that it is not tried on noise.",
            ) from error
        differentiable = isinstance(scores, Tensor) and scores.requires_grad
    return Reward(name, description.splitlines()[0].rstrip("."), function, bool(differentiable), written)


def check_varied(reward: Reward, scores: Tensor) -> None:
    """Raise D3POError if a reward gives two or more different images the same score; scores are (B,)."""
    spread, size = float(scores.max() - scores.min()), float(scores.abs().max())
    if spread <= max(RELATIVE_ROUNDING * size, ABSOLUTE_ROUNDING):
        raise D3POError(
            f"The reward '{reward.name}' gives every picture the same score ({size:.4g}): there is nothing to learn.",
            "Choose another reward.",
        )


@dataclass(frozen=True)
class WeightedSum:
    """The sum of several rewards' scores, each times its weight. Scores are not normalised before they are added."""

    terms: tuple[tuple[float, Reward], ...]

    def __call__(self, images: Tensor, prompts: list[str]) -> Tensor:
        (weight, first), *others = self.terms
        total = weight * first(images, prompts)
        for weight, reward in others:
            total = total + weight * reward(images, prompts)
        return total


def weighted_sum(terms: list[tuple[float, Reward]]) -> Reward:
    """Return the weighted sum of rewards as one reward, differentiable if all of them are.

    Args:
        terms: at least one (weight, reward). A sum among them is replaced by its own terms, each times the weight.

    Returns:
        The sum, or the reward itself if there is one term and its weight is 1.
    """
    if len(terms) == 1 and terms[0][0] == 1:
        return terms[0][1]
    terms = _flatten_sums(terms)
    all_written = all(reward.written for _, reward in terms)
    return Reward(
        name=write_sum([(weight, reward.name) for weight, reward in terms], "{:g}".format),
        likes="; ".join(f"{weight:g} of {reward.likes}" for weight, reward in terms),
        function=WeightedSum(tuple(terms)),
        differentiable=all(reward.differentiable for _, reward in terms),
        written=write_sum([(weight, reward.written) for weight, reward in terms]) if all_written else "",
    )


def write_sum(terms: list[tuple[float, str]], number: Callable[[float], str] = repr) -> str:
    """Return a sum as the text that `get_reward` reads. `number` writes a weight, by default to its last digit."""
    return " + ".join(name if weight == 1 else f"{number(weight)}*{name}" for weight, name in terms)


def _flatten_sums(terms: list[tuple[float, Reward]]) -> list[tuple[float, Reward]]:
    """Replace sums among the terms by their own terms: the text of a sum has no brackets."""
    flat: list[tuple[float, Reward]] = []
    for weight, reward in terms:
        inner = reward.function.terms if isinstance(reward.function, WeightedSum) else ((1.0, reward),)
        flat += [(weight * factor, term) for factor, term in inner]
    return flat
