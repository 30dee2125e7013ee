"""Before and after on held-out prompts and seeds."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..diffusion.image_model import ImageModel
from ..diffusion.rollout import SamplingPlan, make_plan
from ..lora import LoraWeights
from ..lora.attach import applied
from ..run import files
from ..settings import SampleSettings
from .compare import Comparison, compare
from .images import before_after, deterministic, draw

Scorer = Callable[[Tensor, list[str]], Tensor]
Fidelity = Callable[[Tensor, list[str]], dict[str, Tensor]]


@dataclass(frozen=True)
class ImageSet:
    """Images of P prompts and S seeds, (P, S, 3, H, W) in [0, 1], and what a scorer says of them, (P, S)."""

    images: Tensor
    scores: Tensor
    fidelity: dict[str, float]
    """For each attribute of the prompt, the share of images that show it; empty without a scorer for it."""


@dataclass(frozen=True)
class DrawProgress:
    """How far drawing has come."""

    done: int
    total: int


def sampling_plans(model: ImageModel, settings: SampleSettings) -> dict[str, SamplingPlan]:
    """The samplers of an evaluation: the ordinary deterministic one, and the one that training recorded."""
    return {"deterministic": deterministic(model, settings), "training": make_plan(model.denoiser, settings)}


def draw_and_score(
    model: ImageModel,
    plan: SamplingPlan,
    prompts: list[str],
    seeds: int,
    settings: SampleSettings,
    scorer: Scorer,
    fidelity: Fidelity | None = None,
) -> Iterator[DrawProgress | ImageSet]:
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
        yield DrawProgress(at + len(images), len(prompts) * seeds)
    flat = torch.cat(parts)
    texts = [prompt for prompt in prompts for _ in range(seeds)]
    found = fidelity(flat, texts) if fidelity else {}
    yield ImageSet(
        images=flat.unflatten(0, (len(prompts), seeds)),
        scores=scorer(flat, texts).double().cpu().unflatten(0, (len(prompts), seeds)),
        fidelity={name: float(right.double().mean()) for name, right in found.items()},
    )


@dataclass(frozen=True)
class Outcome:
    """One sampler's outcome."""

    comparison: Comparison
    fidelity_before: dict[str, float]
    fidelity_after: dict[str, float]


def compare_sets(before: ImageSet, after: ImageSet) -> Outcome:
    """Compare two sets of pictures of the same prompts and seeds."""
    return Outcome(compare(before.scores, after.scores), before.fidelity, after.fidelity)


GRID_PROMPTS, GRID_SEEDS = 6, 5


@dataclass(frozen=True)
class Evaluation:
    """Outcome by sampler ("deterministic", "training"), and the deterministic sampler's pictures."""

    columns: dict[str, Outcome]
    before: ImageSet
    after: ImageSet

    def figures(self) -> dict[str, Any]:
        """The numbers, JSON-able."""
        return {name: dataclasses.asdict(outcome) for name, outcome in self.columns.items()}

    def save(self, folder: Path) -> Path:
        """Write evaluation.json and before-after.png; the picture's path."""
        before, after = (side.images[:GRID_PROMPTS, :GRID_SEEDS] for side in (self.before, self.after))
        path = folder / "before-after.png"
        with files.writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        files.replace(path, files.png(before_after(before, after)))
        files.replace(folder / "evaluation.json", json.dumps(self.figures(), indent=2).encode())
        return path


def evaluate(
    model: ImageModel,
    lora: LoraWeights | Path,
    prompts: list[str],
    seeds: int,
    settings: SampleSettings,
    scorer: Scorer,
    fidelity: Fidelity | None = None,
    attachment: str = "peft",
) -> Iterator[DrawProgress | Evaluation]:
    """Draw before and after with both samplers and compare; the last thing yielded is the `Report`.

    Args:
        model: the base model.
        lora: weights or a file, used at strength 1 in all steps.
        prompts: P prompts that were not trained on.
        seeds: S seeds, shared by the prompts.
        settings: as sampled.
        scorer, fidelity: see `pictures`.
        attachment: how a LoRA is attached to this model.
    """
    samplers = sampling_plans(model, settings)
    per_set = len(prompts) * seeds
    total, done = 2 * per_set * len(samplers), 0
    found: dict[str, list[ImageSet]] = {}
    for name, plan in samplers.items():
        for weights in (None, lora):
            with applied(model.denoiser, weights, attachment):
                for step in draw_and_score(model, plan, prompts, seeds, settings, scorer, fidelity):
                    if isinstance(step, DrawProgress):
                        yield DrawProgress(done + step.done, total)
                    else:
                        found.setdefault(name, []).append(step)
            done += per_set
    yield Evaluation({name: compare_sets(*both) for name, both in found.items()}, *found["deterministic"])
