"""Before and after: images of fixed prompts and seeds without and with a LoRA, drawn by an ordinary deterministic
sampler and by the one of training.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from ..diffusion.image_model import ImageModel, check_finite
from ..diffusion.rollout import CandidateNoise, SamplingPlan, make_plan
from ..diffusion.steps import make_steps
from ..lora import LoraWeights
from ..lora.attachment import applied
from ..processes import ALONE, Message, Processes
from ..run import files
from ..run.run import to_image
from ..settings import SampleSettings
from .compare import Comparison, compare


def deterministic(model: ImageModel, settings: SampleSettings) -> SamplingPlan:
    """Return the sampler of these settings, without noise after the start (except for lcm, which needs it)."""
    plan = make_plan(model.denoiser, settings)
    sigmas = model.denoiser.sigmas(settings.steps, settings.schedule)
    steps = make_steps(settings.sampler, model.denoiser.family, sigmas, torch.zeros(settings.steps))
    return dataclasses.replace(plan, steps=steps)


def draw(
    model: ImageModel,
    plan: SamplingPlan,
    prompts: list[str],
    seeds: int,
    settings: SampleSettings,
    first_seed: int = 0,
    processes: Processes = ALONE,
) -> Iterator[tuple[int, Tensor]]:
    """Draw `seeds` images for each prompt.

    Seeds are shared by the prompts, and never coincide with those of a run's groups, whatever the run's seed is.

    Args:
        model: draws the images, with the LoRA that is active now.
        plan: the sampler.
        prompts: P texts.
        seeds: S, images per prompt.
        settings: size, guidance, negative prompt, batch and seed.
        first_seed: number of the first seed.
        processes: which draw together, each a batch in turn; all of them get all images.

    Yields:
        Batches of at most `settings.batch`, prompt by prompt: the number of the batch's first image out of P * S, and
        the images (b, 3, H, W) in [0, 1] on the CPU.
    """
    shape = model.latent_shape(settings.height, settings.width)
    encoded = model.encode(prompts, settings.negative)
    flat = [(prompt, seed) for prompt in range(len(prompts)) for seed in range(seeds)]

    def drawn(first: int) -> Tensor:
        part = flat[first : first + settings.batch]
        noises = [CandidateNoise(settings.seed, -1 - first_seed - seed, 0, shape, "same") for _, seed in part]
        conditioning = [encoded[prompt] for prompt, _ in part]
        trajectory = model.sample(plan, noises, conditioning, settings.guidance_scale)
        latents = check_finite(trajectory.latents, "network")
        return check_finite(model.decode(latents), "VAE").cpu()

    starts = list(range(0, len(flat), settings.batch))
    while turn := starts[: processes.size]:
        del starts[: processes.size]
        ours = [Message(None, {"images": drawn(first)}) for first in processes.mine(turn)]
        for first, message in zip(turn, processes.gather(*ours or [Message()]), strict=False):
            yield first, message.tensors["images"]


Show = Callable[[int, int], object]
"""Called with how many images are drawn, and how many there will be. Drawing may be stopped by what it raises."""


def draw_all(
    model: ImageModel,
    lora: LoraWeights | Path | None,
    plan: SamplingPlan,
    prompts: list[str],
    seeds: int,
    settings: SampleSettings,
    attachment: str,
    drawn: Callable[[int], object],
    first_seed: int = 0,
    processes: Processes = ALONE,
) -> Tensor:
    """Draw `seeds` images for each prompt with a LoRA, as `draw` does, and return them, (P, S, 3, H, W) in [0, 1].

    Args:
        model, plan, prompts, seeds, settings, first_seed, processes: as for `draw`.
        lora: weights or a file; None for the base model.
        attachment: how a LoRA is attached to this model, "peft" or "hooks".
        drawn: called with the number of images of every batch.
    """
    parts: list[Tensor] = []
    with applied(model.denoiser, lora, attachment):
        for _, images in draw(model, plan, prompts, seeds, settings, first_seed, processes):
            parts.append(images)
            drawn(len(images))
    return torch.cat(parts).unflatten(0, (len(prompts), seeds))


def counted(show: Show, total: int) -> Callable[[int], None]:
    """Return a function that takes the number of images of every batch and shows how far drawing has come."""
    done = 0

    def drawn(images: int) -> None:
        nonlocal done
        done += images
        show(done, total)

    return drawn


GAP, HEADING, MIN_WIDTH = 4, 18, 96
"""Pixels of a grid: between images, above them for the labels, and to which small images are enlarged."""


def before_after(before: Tensor, after: Tensor) -> Image.Image:
    """Return a grid of images of the same prompts and seeds, before and after side by side, a prompt in each row.

    Args:
        before, after: (P, S, 3, H, W) in [0, 1].
    """
    prompts, seeds, _, height, width = before.shape
    scale = max(1, round(MIN_WIDTH / width))
    w, h = width * scale, height * scale
    half = seeds * (w + GAP)
    sheet = Image.new("RGB", (2 * half + 3 * GAP, prompts * (h + GAP) + HEADING + GAP), "white")
    pen = ImageDraw.Draw(sheet)
    for side, (images, label) in enumerate(((before, "before"), (after, "after"))):
        left = GAP + side * (half + GAP)
        pen.text((left, 2), label, fill="black")
        for p in range(prompts):
            for s in range(seeds):
                tile = to_image(images[p, s]).resize((w, h), Image.Resampling.NEAREST)
                sheet.paste(tile, (left + s * (w + GAP), HEADING + p * (h + GAP)))
    return sheet


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
    processes: Processes = ALONE,
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
        processes: which draw together; all of them return the same.
    """
    plans = sampling_plans(model, settings)
    drawn = counted(show, 2 * len(plans) * len(prompts) * seeds)
    outcomes, deterministic_sides = {}, list[ScoredImages]()
    for sampler, plan in plans.items():
        sides = []
        for weights in (None, lora):
            images = draw_all(model, weights, plan, prompts, seeds, settings, "peft", drawn, processes=processes)
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
