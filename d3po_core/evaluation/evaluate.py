"""Before and after: the model without and with a LoRA, on held-out prompts and seeds."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ..diffusion.image_model import ImageModel
from ..diffusion.rollout import SamplingPlan, make_plan
from ..lora import LoraWeights
from ..run import files
from ..settings import SampleSettings
from .compare import Comparison, compare
from .images import Show, before_after, counted, deterministic, draw_all

Scorer = Callable[[Tensor, list[str]], Tensor]
"""From images (B, 3, H, W) in [0, 1] and B prompts to scores (B,), such as a `Reward`."""
Fidelity = Callable[[Tensor, list[str]], dict[str, Tensor]]
"""From the same to a bool (B,) for each attribute of the prompt: whether the image shows it."""
GRID_PROMPTS, GRID_SEEDS = 6, 5
"""Images of each side in before-after.png, at most."""


@dataclass(frozen=True)
class ScoredImages:
    """Images of one side of a comparison, of P prompts and S seeds.

    Attributes:
        images: (P, S, 3, H, W) in [0, 1].
        scores: (P, S), float64.
        fidelity: for each attribute of the prompt the share of images that show it; empty if it was not measured.
    """

    images: Tensor
    scores: Tensor
    fidelity: dict[str, float]


@dataclass(frozen=True)
class Outcome:
    """The comparison of both sides for one sampler; fidelity as in `ScoredImages`."""

    comparison: Comparison
    fidelity_before: dict[str, float]
    fidelity_after: dict[str, float]


@dataclass(frozen=True)
class Evaluation:
    """The result of `evaluate`.

    Attributes:
        outcomes: by sampler, "deterministic" and "training".
        before, after: images of the deterministic sampler.
    """

    outcomes: dict[str, Outcome]
    before: ScoredImages
    after: ScoredImages

    def figures(self) -> dict[str, object]:
        """Return the numbers of each sampler's outcome, JSON-able."""
        return {name: dataclasses.asdict(outcome) for name, outcome in self.outcomes.items()}

    def save(self, folder: Path) -> Path:
        """Write evaluation.json and before-after.png to a folder.

        Returns:
            The path of the PNG.

        Raises:
            D3POError: the folder cannot be written to.
        """
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
    show: Show = lambda done, total: None,
) -> Evaluation:
    """Draw images without and with a LoRA, by both samplers, and compare them.

    Args:
        model: the base model.
        lora: weights or a file, used at strength 1 in all steps.
        prompts: P prompts that were not trained on, at least two.
        seeds: S seeds, at least two, shared by the prompts and by both sides.
        settings: of the training sampler; size, guidance and batch of both.
        scorer: scores the images.
        fidelity: measures whether images show their prompts.
        show: see `Show`.
    """
    plans = sampling_plans(model, settings)
    drawn = counted(show, 2 * len(plans) * len(prompts) * seeds)
    outcomes, deterministic_sides = {}, list[ScoredImages]()
    for sampler, plan in plans.items():
        sides = []
        for weights in (None, lora):
            images = draw_all(model, weights, plan, prompts, seeds, settings, "peft", drawn)
            sides.append(score(images, prompts, scorer, fidelity))
        before, after = sides
        outcomes[sampler] = Outcome(compare(before.scores, after.scores), before.fidelity, after.fidelity)
        deterministic_sides = deterministic_sides or sides
    return Evaluation(outcomes, *deterministic_sides)


def sampling_plans(model: ImageModel, settings: SampleSettings) -> dict[str, SamplingPlan]:
    """Return the two samplers of an evaluation by name: an ordinary one without noise, and the one of training."""
    return {"deterministic": deterministic(model, settings), "training": make_plan(model.denoiser, settings)}


def score(images: Tensor, prompts: list[str], scorer: Scorer, fidelity: Fidelity | None) -> ScoredImages:
    """Score images (P, S, 3, H, W) of P prompts."""
    flat, shape = images.flatten(0, 1), images.shape[:2]
    texts = [prompt for prompt in prompts for _ in range(shape[1])]
    shows = fidelity(flat, texts) if fidelity else {}
    return ScoredImages(
        images=images,
        scores=scorer(flat, texts).double().cpu().unflatten(0, shape),
        fidelity={name: float(right.double().mean()) for name, right in shows.items()},
    )
