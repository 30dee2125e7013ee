"""Does the base model notice that a prompt is being lost? Its own measure beside the embedded model's classifier.

    python -m benchmarks.adherence               12 tastes x 4 strengths, 1 seed (about half an hour on two cores)
    python -m benchmarks.adherence --seeds 0 1   more seeds

Eight tastes are those of any_taste, which today's recipe mostly learns without a loss; four cost what prompts say. A
LoRA is trained on each taste's own scores of 64 groups of four (with the default recipe and no limits, so that
prompts are lost), and used at several strengths on 16 held-out prompts x 4 seeds. The share of prompts that is kept, as
`evaluation.effect` measures it, is compared with the share of attributes that the classifier finds right.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.garden import GUIDANCE, digest, one_thread, sampled
from benchmarks.tastes import CONTRARY, TASTES
from d3po_core.diffusion.rollout import CandidateNoise
from d3po_core.embedded import split_prompts
from d3po_core.embedded.classifier import GardenClassifier
from d3po_core.evaluation.effect import prompt_adherence, share_kept
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


@dataclass(frozen=True)
class Point:
    """What was measured of one taste's LoRA at one strength, beside the original model.

    Attributes:
        adherence: `share_kept`, less 1.
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
    how = TrainSettings(seed=seed)
    with tempfile.TemporaryDirectory() as copy:
        run = Run.open(clone(folder, Path(copy)))
        with Trainer.open(run, model.denoiser, how, LoraSettings(), reward={**TASTES, **CONTRARY}[taste]) as trainer:
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
    rows = [row for row in model.encode(prompts) for _ in range(SEEDS)]
    texts = [prompt for prompt in prompts for _ in range(SEEDS)]

    def figures(lora: LoraWeights | None) -> tuple[Tensor, float]:
        with applied(model.denoiser, lora):
            latents, images = drawn(model, seed)
        shown = classifier.fidelity(images, texts)
        return prompt_adherence(model.denoiser, latents, rows, GUIDANCE), sum(shown.values()) / len(shown)

    base, right = figures(None)
    points = []
    for strength in STRENGTHS:
        adherence, fidelity = figures(scale_weights(weights, strength))
        kept = share_kept(base, adherence) or 0.0
        points.append(Point(taste, seed, strength, kept - 1, 100 * (fidelity - right)))
    return points


def rank_correlation(pairs: list[tuple[float, float]]) -> float:
    """Return Spearman's rank correlation; equal values share their mean rank."""
    values = torch.tensor(pairs, dtype=torch.float64)
    below = (values[:, None] > values[None]).sum(1).double()
    equal = (values[:, None] == values[None]).sum(1).double()
    return float(torch.corrcoef((below + (equal - 1) / 2).T)[0, 1])


def measured(options: argparse.Namespace) -> Iterator[list[Point]]:
    """Yield the points of every taste and seed, as they come."""
    options.cache.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(options.jobs, initializer=one_thread) as executor:
        folders = {
            seed: sampled(
                options.cache / f"adherence-{digest(asdict(settings(seed)))}",
                settings(seed),
                lambda: load_model("garden"),
            )
            for seed in options.seeds
        }
        jobs = [
            (folders[seed], taste, seed) for seed in options.seeds for taste in options.only or (*TASTES, *CONTRARY)
        ]
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
