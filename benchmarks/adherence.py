"""Does the base model notice that a prompt is being lost? Its own measure beside the embedded model's classifier.

    python -m benchmarks.adherence               8 tastes x 4 strengths, 1 seed (about 20 minutes on two cores)
    python -m benchmarks.adherence --seeds 0 1   more seeds

A LoRA is trained on each taste's own scores of 64 groups of four (D3PO, 4 epochs, no judge and no limit of drift, so
that prompts are lost), and used at several strengths on 16 held-out prompts x 4 seeds. `prompt_adherence` of the
original model is compared with the share of attributes that the classifier finds right.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.learning import GUIDANCE, one_thread, sampled
from benchmarks.tastes import TASTES
from d3po_core.diffusion.denoiser import Conditioning, Denoiser, stack
from d3po_core.diffusion.rollout import CandidateNoise
from d3po_core.embedded import split_prompts
from d3po_core.embedded.classifier import GardenClassifier
from d3po_core.evaluation.evaluate import deterministic
from d3po_core.lora import LoraWeights
from d3po_core.lora.attachment import applied
from d3po_core.lora.weights import scale_weights
from d3po_core.models import DiffusersModel, load_model
from d3po_core.run import Run
from d3po_core.settings import LoraSettings, SampleSettings, TrainSettings
from d3po_core.training.trainer import Trainer

STRENGTHS = (0.25, 0.5, 0.75, 1.0)
SEEDS = 4
"""Images for each held-out prompt."""


ADHERENCE_RATIOS = (1.0, 2.5, 5.0)
"""Ratios of noise to signal at which a prompt's content is decided, and adherence to it is measured."""


@torch.no_grad()
def prompt_adherence(
    denoiser: Denoiser,
    latents: Tensor,
    conditioning: Conditioning,
    draws: int = 2,
    batch: int = 32,
    seed: int = 0,
) -> Tensor:
    """Measure how much a prompt helps the model to denoise each image: E |D_uncond - x0|^2 - E |D_cond - x0|^2.

    This is the diffusion classifier (Li et al. 2023, arXiv 2303.16203, eq. 6) between a prompt and its negative. It
    falls as an image loses what its prompt says. The difference is not divided by the error, because that would
    confound it with how busy an image is.

    Args:
        denoiser: the base model, no LoRA active.
        latents: finished, (B, ...).
        conditioning: of each image's prompt, B rows.
        draws: noises at each of `ADHERENCE_RATIOS`. All images get the same ones.
        batch: rows per forward pass.
        seed: of the noises.

    Returns:
        (B,), float32 on the CPU, mean over draws, levels and latent elements. 0 for a network without a second branch.
    """
    clean, rng = denoiser.clean(latents.to(denoiser.device)).float(), torch.Generator().manual_seed(seed)
    total = torch.zeros(len(latents))
    for ratio in ADHERENCE_RATIOS:
        flow = denoiser.family == "flow"
        sigma, signal = (ratio / (1 + ratio), 1 / (1 + ratio)) if flow else (ratio, 1.0)
        for _ in range(draws):
            x = signal * clean + sigma * torch.randn(clean.shape[1:], generator=rng).to(clean)
            for first in range(0, len(x), batch):
                part = slice(first, first + batch)
                rows = {name: value[part].to(clean.device) for name, value in conditioning.items()}
                level = torch.full((len(x[part]),), sigma, dtype=torch.float64)
                prediction = denoiser(x[part], level, rows, guidance_scale=0.0)  # guided by 0: the negative alone
                errors = [(each - clean[part]).flatten(1).square().mean(1) for each in vars(prediction).values()]
                total[part] += (errors[1] - errors[0]).float().cpu()
    return total / (len(ADHERENCE_RATIOS) * draws)


@dataclass(frozen=True)
class Point:
    """What was measured of one taste's LoRA at one strength, beside the original model.

    Attributes:
        adherence: relative change of the mean.
        fidelity: change of the share of right attributes, mean over attributes, in points.
    """

    taste: str
    seed: int
    strength: float
    adherence: float
    fidelity: float


def settings(seed: int) -> SampleSettings:
    """Return how groups are drawn."""
    return SampleSettings(candidates=4, groups=64, guidance_scale=GUIDANCE, seed=seed, batch=16)


def train(folder: Path, model: DiffusersModel, taste: str, seed: int) -> LoraWeights:
    """Train on the taste's own scores of the groups in a run, and return the LoRA."""
    how = TrainSettings(seed=seed, epochs=4, judge=False, drift_limit=0.0)
    with tempfile.TemporaryDirectory() as copy:
        run = Run.open(clone(folder, Path(copy)))
        with Trainer.open(run, model.denoiser, how, LoraSettings(), reward=TASTES[taste]) as trainer:
            list(trainer.steps())
            weights = trainer.result().weights
        run.close()
    return weights


def clone(folder: Path, to: Path) -> Path:
    """Copy a run, and return the copy."""
    import shutil

    return Path(shutil.copytree(folder, to / "run"))


def drawn(model: DiffusersModel, seed: int) -> tuple[Tensor, Tensor]:
    """Draw the held-out prompts with what is attached; return finished latents and images."""
    prompts, how = split_prompts()[1], settings(seed)
    plan, shape = deterministic(model, how), model.latent_shape()
    rows, latents = model.encode(prompts), []
    for prompt, row in enumerate(rows):
        noises = [CandidateNoise(1000 + seed, prompt, each, shape, "independent") for each in range(SEEDS)]
        latents.append(model.sample(plan, noises, [row] * SEEDS, GUIDANCE).latents)
    joined = torch.cat(latents)
    return joined, torch.cat([model.decode(part) for part in joined.split(16)])


def measure(job: tuple[Path, str, int]) -> list[Point]:
    """Train and measure one taste and seed."""
    folder, taste, seed = job
    model, classifier = load_model("garden"), GardenClassifier.load()
    weights = train(folder, model, taste, seed)
    prompts = split_prompts()[1]
    rows = stack([row for row in model.encode(prompts) for _ in range(SEEDS)])
    texts = [prompt for prompt in prompts for _ in range(SEEDS)]

    def figures(lora: LoraWeights | None) -> tuple[float, float]:
        with applied(model.denoiser, lora):
            latents, images = drawn(model, seed)
        shown = classifier.fidelity(images, texts)
        return float(prompt_adherence(model.denoiser, latents, rows).mean()), sum(shown.values()) / len(shown)

    base, right = figures(None)
    points = []
    for strength in STRENGTHS:
        adherence, fidelity = figures(scale_weights(weights, strength))
        points.append(Point(taste, seed, strength, adherence / base - 1, 100 * (fidelity - right)))
    return points


def rank_correlation(pairs: list[tuple[float, float]]) -> float:
    """Return Spearman's rank correlation."""
    ranks = torch.tensor(pairs, dtype=torch.float64).argsort(0).argsort(0).double()
    return float(torch.corrcoef(ranks.T)[0, 1])


def measured(options: argparse.Namespace) -> Iterator[list[Point]]:
    """Yield the points of every taste and seed, as they come."""
    options.cache.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(options.jobs, initializer=one_thread) as executor:
        folders = {
            seed: sampled(options.cache / f"adherence-{seed}", settings(seed), lambda: load_model("garden"))
            for seed in options.seeds
        }
        jobs = [(folders[seed], taste, seed) for seed in options.seeds for taste in options.only or TASTES]
        yield from executor.map(measure, jobs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--only", nargs="*", help="names of tastes")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "d3po-benchmark")
    parser.add_argument("--jobs", type=int, default=2)
    points: list[Point] = []
    print("| taste | seed | strength: adherence / attributes right, points |\n|---|---|---|", flush=True)
    for of_taste in measured(parser.parse_args()):
        points += of_taste
        cells = [f"{p.strength:g}: {p.adherence:+.0%} / {p.fidelity:+.1f}" for p in of_taste]
        print(f"| {of_taste[0].taste} | {of_taste[0].seed} | {', '.join(cells)} |", flush=True)
    print(
        f"\nRank correlation over {len(points)} points: "
        f"{rank_correlation([(p.adherence, p.fidelity) for p in points]):.3f}"
    )


if __name__ == "__main__":
    main()
