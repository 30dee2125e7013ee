"""The rewards that need no file, by name."""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from ..errors import D3POError
from . import simple, smooth_jpeg
from .reward import Reward, WeightedSum, weighted_sum, write_sum

REWARDS: dict[str, Reward] = {
    reward.name: dataclasses.replace(reward, written=reward.name)
    for reward in (
        Reward(
            "compressibility", "images that make a small JPEG: smooth, empty, blurred", simple.compressibility, False
        ),
        Reward("incompressibility", "images that make a large JPEG: busy, grainy", simple.incompressibility, False),
        Reward("warmth", "warm colours: mean of red minus mean of blue", simple.warmth, True),
        Reward("contrast", "light beside dark: the spread of brightness", simple.contrast, True),
        Reward(
            "smooth-compressibility",
            "as compressibility, by a size that has a gradient",
            smooth_jpeg.smooth_compressibility,
            True,
        ),
        Reward(
            "smooth-incompressibility",
            "as incompressibility, by a size that has a gradient",
            smooth_jpeg.smooth_incompressibility,
            True,
        ),
        Reward("garden-size", "large blooms (embedded model only)", simple.garden_size, True),
        Reward("garden-lean", "flowers that lean to the right (embedded model only)", simple.garden_lean, True),
    )
}

NUMBER = r"-?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
FILES = {
    "clip": "a CLIP folder",
    "pickscore": "a PickScore folder",
    "hpsv2": "an HPSv2 folder",
    "aesthetic": "a CLIP folder with an aesthetic head",
    "picks": "a file of Reward From Picks",
}
"""What comes before the colon, and what path comes after it."""


@torch.inference_mode(False)  # a host may call from inside it, and its tensors could take no part in gradients later
def get_reward(spec: str, more: Mapping[str, Callable[[], Reward]] | None = None) -> Reward:
    """The reward that a spec names; those with a path are loaded from it.

    Args:
        spec: terms joined by +, each a name, or a kind and a path (`clip:/folder`), with a weight and * before it or
            none. Behind a path, + needs a space on either side.
        more: names that mean something where this is called, and what loads them.

    Raises:
        D3POError: a name is unknown, a weight is not a number, or a path holds something else.
    """
    return weighted_sum([(weight, _named(name, more or {})) for weight, name in _terms(spec)])


def canonical(spec: str) -> str:
    """A spec as the reward's `written` has it: paths absolute, and spaces and weights in one form.

    Raises:
        D3POError: a weight is not a number.
    """
    return write_sum([(weight, _absolute(name)) for weight, name in _terms(spec)])


def require_differentiable(reward: Reward) -> Reward:
    """The reward itself, if its gradient reaches the pictures.

    Raises:
        D3POError: it does not; names the term that stops it.
    """
    if reward.differentiable:
        return reward
    terms = reward.function.terms if isinstance(reward.function, WeightedSum) else ((1.0, reward),)
    stops = ", ".join(f"'{term.name}'" for _, term in terms if not term.differentiable)
    known = ", ".join(name for name, known in REWARDS.items() if known.differentiable)
    raise D3POError(
        f"The reward {stops} is not differentiable, so there is no gradient to follow.",
        f"Choose one of {known}, a CLIP-type scorer or Reward From Picks, or a method that only needs scores.",
    )


def _split(spec: str) -> list[str]:
    """The terms. A path may hold a + of its own, so behind a colon only one between spaces parts terms."""
    parts: list[str] = []
    for text in re.split(r"\s\+\s", spec):
        plain, colon, path = text.partition(":")
        *before, last = re.split(r"(?<![\d.][eE])\+", plain)
        parts += [*before, last + colon + path]
    return parts


def _terms(spec: str) -> list[tuple[float, str]]:
    return [_term(text.strip()) for text in _split(spec)]


def _term(text: str) -> tuple[float, str]:
    weight, name = 1.0, text
    factor, star, rest = text.partition("*")
    if star and ":" not in factor:
        name = rest.strip()
        if not re.fullmatch(NUMBER, factor.strip()) or not math.isfinite(float(factor)) or float(factor) == 0:
            raise D3POError(
                f"The weight '{factor.strip()}' of the reward '{name}' is not a number other than 0.",
                "Write it as in 0.5*warmth.",
            )
        weight = float(factor)
    return weight, name


def _absolute(name: str) -> str:
    kind, colon, path = name.partition(":")
    if kind not in FILES or not path.strip():
        return name
    return f"{kind}{colon}{Path(os.path.expanduser(path.strip())).absolute()}"


def _named(name: str, more: Mapping[str, Callable[[], Reward]]) -> Reward:
    if name in more:
        return dataclasses.replace(more[name](), written=name)
    if name in REWARDS:
        return REWARDS[name]
    kind, _, path = name.partition(":")
    if kind in FILES:
        if not path.strip():
            raise D3POError(f"'{name}' does not say where it lies.", f"Write {kind}:/path/to/{FILES[kind]}.")
        return dataclasses.replace(_loader(kind)(path.strip()), written=_absolute(name))
    known = [*more, *REWARDS, *(f"{kind}:PATH" for kind in FILES)]
    raise D3POError(f"There is no reward called '{name}'.", f"Choose one of {', '.join(known)}.")


def _loader(kind: str) -> Callable[[str], Reward]:
    """Imported when it is needed, as these are heavier."""
    if kind == "picks":
        from .file import load_judge_reward

        return load_judge_reward
    from .clip import LOADERS

    return LOADERS[kind]
