"""Before and after on held-out prompts and seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..image_model import ImageModel
from ..rollout import Plan, make_plan
from ..settings import SampleSettings
from .compare import Comparison, compare
from .draw import deterministic, draw

Scorer = Callable[[Tensor, list[str]], Tensor]
Fidelity = Callable[[Tensor, list[str]], dict[str, Tensor]]


@dataclass(frozen=True)
class Pictures:
    """Images of P prompts and S seeds, (P, S, 3, H, W) in [0, 1], and what a scorer says of them, (P, S)."""

    images: Tensor
    scores: Tensor
    fidelity: dict[str, float]
    """For each attribute of the prompt, the share of images that show it; empty without a scorer for it."""


@dataclass(frozen=True)
class Drawn:
    """How far drawing has come."""

    done: int
    total: int


def plans(model: ImageModel, settings: SampleSettings) -> dict[str, Plan]:
    """The samplers of an evaluation: the ordinary deterministic one, and the one that training recorded."""
    return {"deterministic": deterministic(model, settings), "training": make_plan(model.denoiser, settings)}


def pictures(
    model: ImageModel,
    plan: Plan,
    prompts: list[str],
    seeds: int,
    settings: SampleSettings,
    scorer: Scorer,
    fidelity: Fidelity | None = None,
) -> Iterator[Drawn | Pictures]:
    """Draw and score; the last thing yielded is the `Pictures`.

    Args:
        model: with whatever LoRA is active.
        plan: the sampler.
        prompts: P held-out prompts.
        seeds: S seeds, shared by the prompts.
        settings: size, guidance and batch.
        scorer: images (B, 3, H, W) and B prompts to scores (B,).
        fidelity: the same to a bool (B,) for each attribute of the prompt.
    """
    parts = []
    for at, images in draw(model, plan, prompts, seeds, settings):
        parts.append(images)
        yield Drawn(at + len(images), len(prompts) * seeds)
    flat = torch.cat(parts)
    texts = [prompt for prompt in prompts for _ in range(seeds)]
    found = fidelity(flat, texts) if fidelity else {}
    yield Pictures(
        images=flat.unflatten(0, (len(prompts), seeds)),
        scores=scorer(flat, texts).double().cpu().unflatten(0, (len(prompts), seeds)),
        fidelity={name: float(right.double().mean()) for name, right in found.items()},
    )


@dataclass(frozen=True)
class Column:
    """One sampler's outcome."""

    comparison: Comparison
    fidelity_before: dict[str, float]
    fidelity_after: dict[str, float]


def column(before: Pictures, after: Pictures) -> Column:
    """Compare two sets of pictures of the same prompts and seeds."""
    return Column(compare(before.scores, after.scores), before.fidelity, after.fidelity)
