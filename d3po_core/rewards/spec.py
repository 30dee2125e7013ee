"""The built-in rewards by name, and rewards from a text such as `warmth + 0.5*clip:/folder`."""

from __future__ import annotations

import dataclasses
import math
import os
import re
import runpy
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from ..errors import D3POError
from . import simple
from .reward import Reward, ScoreFunction, WeightedSum, reward_of, weighted_sum, write_sum

_SMOOTH = "by a size that has a gradient"
_BUILT_IN: tuple[tuple[str, str, ScoreFunction, bool], ...] = (
    ("compressibility", "images that make a small JPEG: smooth, empty, blurred", simple.compressibility, False),
    ("incompressibility", "images that make a large JPEG: busy, grainy", simple.incompressibility, False),
    ("warmth", "warm colours: mean of red minus mean of blue", simple.warmth, True),
    ("contrast", "light beside dark: the spread of brightness", simple.contrast, True),
    ("smooth-compressibility", f"as compressibility, {_SMOOTH}", simple.smooth_compressibility, True),
    ("smooth-incompressibility", f"as incompressibility, {_SMOOTH}", simple.smooth_incompressibility, True),
    ("garden-size", "large blooms (embedded model only)", simple.garden_size, True),
    ("garden-lean", "flowers that lean to the right (embedded model only)", simple.garden_lean, True),
)
REWARDS = {
    name: Reward(name, likes, function, differentiable, written=name)
    for name, likes, function, differentiable in _BUILT_IN
}

NUMBER = r"-?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
FILES = {
    "clip": "a CLIP folder",
    "pickscore": "a PickScore folder",
    "hpsv2": "an HPSv2 folder",
    "aesthetic": "a CLIP folder with an aesthetic head",
    "picks": "a file of Reward From Picks",
}
"""The word before the colon of a spec, and what the path after it leads to."""


OWN_CODE = re.compile(r"(?P<file>.+\.py):(?P<function>[A-Za-z_]\w*)")
"""A function in a Python file of one's own."""


@torch.inference_mode(False)  # a host may call this inside it, where tensors are made that never allow gradients
def get_reward(spec: str, more: Mapping[str, Callable[[], Reward]] | None = None, own_code: bool = False) -> Reward:
    """Return the reward that a spec names, loaded from its path if it has one.

    Args:
        spec: terms joined by +, each a name, or a kind and a path (`clip:/folder`), optionally with a weight and *
            before it. Beside a path, + needs a space on either side.
        more: further names that are known where this is called, each with a function that loads its reward.
        own_code: whether `FILE.py:FUNCTION` may be named, whose code is run. Never for what comes from a page.

    Raises:
        D3POError: a name is unknown, a weight is not a number, or a path holds something else.
    """
    return weighted_sum([(weight, _named(name, more or {}, own_code)) for weight, name in _terms(spec)])


def canonical(spec: str) -> str:
    """Return a spec in the form of `Reward.written`: absolute paths, and one way to write spaces and weights.

    Raises:
        D3POError: a weight is not a number.
    """
    return write_sum([(weight, _absolute(name)) for weight, name in _terms(spec)])


def require_differentiable(reward: Reward) -> Reward:
    """Return the reward itself if it is differentiable.

    Raises:
        D3POError: it is not; the message names the terms that are not.
    """
    if reward.differentiable:
        return reward
    terms = reward.function.terms if isinstance(reward.function, WeightedSum) else ((1.0, reward),)
    culprits = ", ".join(f"'{term.name}'" for _, term in terms if not term.differentiable)
    choices = ", ".join(name for name, known in REWARDS.items() if known.differentiable)
    raise D3POError(
        f"The reward {culprits} is not differentiable, so there is no gradient to follow.",
        f"Choose one of {choices}, a CLIP-type scorer or Reward From Picks, or a method that only needs scores.",
    )


def _split(spec: str) -> list[str]:
    """Split a spec into its terms. A path may contain +, so beside one only a + between spaces separates terms."""
    parts: list[str] = []
    for text in re.split(r"\s\+\s", spec):
        if OWN_CODE.fullmatch(text.strip()):
            parts.append(text)
            continue
        plain, colon, path = text.partition(":")
        *before, last = re.split(r"(?<![\d.][eE])\+", plain)
        parts += [*before, last + colon + path]
    return parts


def _terms(spec: str) -> list[tuple[float, str]]:
    return [_term(text.strip()) for text in _split(spec)]


def _term(text: str) -> tuple[float, str]:
    """Return the weight and the name of a term."""
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
    if own := OWN_CODE.fullmatch(name):
        return f"{Path(os.path.expanduser(own['file'].strip())).absolute()}:{own['function']}"
    kind, colon, path = name.partition(":")
    if kind not in FILES or not path.strip():
        return name
    return f"{kind}{colon}{Path(os.path.expanduser(path.strip())).absolute()}"


def _named(name: str, more: Mapping[str, Callable[[], Reward]], own_code: bool) -> Reward:
    """Return the reward of a term without its weight; raises D3POError if there is none."""
    if name in more:
        return dataclasses.replace(more[name](), written=name)
    if name in REWARDS:
        return REWARDS[name]
    if OWN_CODE.fullmatch(name):
        if not own_code:
            raise D3POError(
                f"'{name}' is Python code, which is run on the command line only.", "Use it there, with d3po."
            )
        return _from_own_code(_absolute(name))
    kind, _, path = name.partition(":")
    if kind in FILES:
        if not path.strip():
            raise D3POError(f"'{name}' has no path.", f"Write {kind}:/path/to/{FILES[kind]}.")
        return dataclasses.replace(_loader(kind)(path.strip()), written=_absolute(name))
    choices = [*more, *REWARDS, *(f"{kind}:PATH" for kind in FILES)]
    raise D3POError(f"There is no reward called '{name}'.", f"Choose one of {', '.join(choices)}.")


def _from_own_code(written: str) -> Reward:
    """Return the reward that a function in a Python file is, from the file's absolute path, a colon and its name.

    Raises:
        D3POError: there is no such file or function, or the file cannot be run.
    """
    path, _, name = written.rpartition(":")
    file = Path(path)
    if not file.is_file():
        raise D3POError(f"There is no file {file}.", "Check the path of the reward.")
    if str(file.parent) not in sys.path:
        sys.path.insert(0, str(file.parent))  # it may import what lies beside it, also later, as a script does
    try:
        names = runpy.run_path(str(file))
    except (Exception, SystemExit) as error:
        raise D3POError(f"{file.name} cannot be run ({type(error).__name__}: {error}).", "Mend it first.") from error
    if name not in names:
        raise D3POError(f"There is no function '{name}' in {file.name}.", "Check its name.")
    return reward_of(names[name], f"{file.name}:{name}", written)


def _loader(kind: str) -> Callable[[str], Reward]:
    """Return the function that loads a reward of this kind; its module is imported only now, as it takes long."""
    if kind == "picks":
        from .judge import load_judge_reward

        return load_judge_reward
    from .clip import LOADERS

    return LOADERS[kind]
