"""Distil the embedded model to four steps without guidance, draw with it by each sampler, and teach it tastes.

    python -m benchmarks.few_step_garden                   the student (ten minutes of one core), and what it draws
    python -m benchmarks.few_step_garden --known           prints what is in the results, of `any_taste --few-step` too

The student is a step-distilled model of LCM's kind: from each of four noise levels it predicts the end of the teacher's
path, which is that of its deterministic sampler with guidance, and noise is added anew at each (Song et al. 2023, arXiv
2303.01469; Luo et al. 2023, arXiv 2310.04378). The levels are those of the model's schedule at the ends of intervals
("trailing"), as distilled models use it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.garden import GUIDANCE, digest, drawn, one_thread
from d3po_core.diffusion.denoiser import Conditioning, stack, starting_latents
from d3po_core.diffusion.rollout import generator
from d3po_core.diffusion.steps import ancestral, step_mean
from d3po_core.embedded import PROMPTS, split_prompts
from d3po_core.embedded.classifier import GardenClassifier
from d3po_core.models import DiffusersModel, load_model
from d3po_core.settings import SampleSettings, replace

RESULTS = Path(__file__).parent / "results" / "few_step_garden.jsonl"
TASTES_TAUGHT = RESULTS.with_name("any_taste.jsonl")
STEPS = 4
"""Of the student."""
OWN_SETTINGS: dict[str, Any] = {"steps": STEPS, "guidance_scale": 1.0, "sampler": "lcm"}
"""Of drawing, which the student is made for."""


@dataclass(frozen=True)
class Recipe:
    """How the student is made.

    Attributes:
        paths: of the teacher.
        steps: of the teacher between two levels of the student.
        updates, batch, learning_rate: of the student; the rate falls to 0.
        softness: of the pseudo-Huber loss, a root mean square error, see `distance`.
    """

    paths: int = 768
    steps: int = 5
    updates: int = 500
    batch: int = 24
    learning_rate: float = 4e-4
    softness: float = 0.02


RECIPE = Recipe()


def made_of() -> str:
    """Return a hash of the recipe and of the embedded model's network."""
    return digest(asdict(RECIPE))


def trailing(model: DiffusersModel) -> DiffusersModel:
    """Return the model with noise levels at the ends of its schedule's intervals, the first the highest of all."""
    from diffusers import DDIMScheduler

    pipeline = model.pipeline
    changes = {"timestep_spacing": "trailing", "set_alpha_to_one": True}
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, **changes)
    return DiffusersModel(pipeline)


def load_student(cache: Path) -> DiffusersModel:
    """Load the student, which is made if it is not in the cache."""
    path = cache / f"few-step-student-{made_of()}.safetensors"
    model = trailing(load_model("garden"))
    if not path.exists():
        distil(model, paths(cache, RECIPE), RECIPE)
        write(path, dict(model.denoiser.module.state_dict()))
    model.denoiser.module.load_state_dict(load_file(path))
    return DiffusersModel(model.pipeline)  # whose identity is the student's


def write(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write tensors so that a file that is there is whole."""
    half = path.with_suffix(f".{os.getpid()}")
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, half)
    half.replace(path)


def paths(cache: Path, recipe: Recipe) -> dict[str, Tensor]:
    """Return the teacher's paths, drawn once.

    Returns:
        "x": latents at the student's levels, then the end, (P, STEPS + 1, C, h, w); "prompt": numbers in `PROMPTS`,
        (P,).
    """
    path = cache / f"few-step-paths-{digest(recipe.paths, recipe.steps)}.safetensors"
    if not path.exists():
        model = trailing(load_model("garden"))
        prompts = torch.arange(recipe.paths) % len(PROMPTS)
        noise = torch.randn(recipe.paths, *model.latent_shape(), generator=generator("few steps", "paths"))
        rows, x = model.encode(PROMPTS), list[Tensor]()
        for start, numbers in zip(noise.split(32), prompts.split(32), strict=True):
            x.append(teachers_path(model, start, stack([rows[n] for n in numbers]), recipe))
        write(path, {"x": torch.cat(x), "prompt": prompts})
    return load_file(path)


@torch.no_grad()
def teachers_path(model: DiffusersModel, noise: Tensor, conditioning: Conditioning, recipe: Recipe) -> Tensor:
    """Take the teacher's deterministic steps, and return latents at the student's levels, (B, STEPS + 1, C, h, w)."""
    levels = finer(model.denoiser.sigmas(STEPS, "model"), recipe.steps)
    steps = ancestral(levels, torch.zeros(len(levels) - 1))
    x = starting_latents(model.denoiser, noise, float(levels[0]))
    kept = [x]
    for i in range(len(steps)):
        prediction = model.denoiser(x, steps.sigma[i].expand(len(x)), conditioning, GUIDANCE)
        x = step_mean(steps[i], x, prediction.guided)
        if (i + 1) % recipe.steps == 0:
            kept.append(x)
    return torch.stack(kept, 1)


def finer(levels: Tensor, steps: int) -> Tensor:
    """Return noise levels with `steps` steps between each two of `levels`, which end with 0.

    They are even in the levels' seventh root, as Karras et al. 2022 (arXiv 2206.00364) space them; the last ones, where
    the root falls too steeply, in the levels themselves.
    """
    roots, part = levels ** (1 / 7), torch.arange(steps, dtype=levels.dtype) / steps
    inner = [(a + part * (b - a)) ** 7 for a, b in itertools.pairwise(roots[:-1])]
    return torch.cat([*inner, levels[-2] * (1 - part), levels[-1:]])


def distance(predicted: Tensor, target: Tensor, softness: float) -> Tensor:
    """Return the mean over rows of sqrt(|predicted - target|^2 + softness^2), mean squares of latents (B, C, h, w)."""
    return ((predicted - target).square().flatten(1).mean(1) + softness**2).sqrt().mean()


def distil(model: DiffusersModel, known: dict[str, Tensor], recipe: Recipe) -> None:
    """Train the teacher's network to be the student, in place."""
    levels = model.denoiser.sigmas(STEPS, "model")
    x, prompts = known["x"], known["prompt"]
    rows, network = model.encode(PROMPTS), model.denoiser.module
    weights = [each.requires_grad_(True) for each in network.parameters()]
    optimizer = torch.optim.AdamW(weights, recipe.learning_rate, weight_decay=0.0)
    rng = generator("few steps", "renoised")
    for update in range(recipe.updates):
        fallen = 0.5 + 0.5 * math.cos(math.pi * update / recipe.updates)
        optimizer.param_groups[0]["lr"] = recipe.learning_rate * min(1.0, (update + 1) / 20) * fallen
        path = torch.randint(len(x), (recipe.batch,), generator=rng)
        step = torch.arange(recipe.batch) % STEPS
        conditioning = stack([rows[n] for n in prompts[path]])
        predicted = model.denoiser(x[path, step], levels[step], conditioning, 1.0).cond
        loss = distance(predicted, x[path, -1], recipe.softness)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        if update % 50 == 0 or update == recipe.updates - 1:
            print(f"update {update}, loss {loss.item():.4f}", flush=True)
    network.eval().requires_grad_(False)


def sharpness(images: Tensor) -> float:
    """Return the mean absolute difference of a pixel's luminance from its right and lower neighbours', of 255."""
    light = 255 * images.mean(1)
    return float((light.diff(dim=-1).abs().mean() + light.diff(dim=-2).abs().mean()) / 2)


@dataclass(frozen=True)
class Pictures:
    """A way of drawing whose pictures are looked at.

    Attributes:
        model: "teacher" or "student".
        settings: of drawing, JSON.
        sampler: "deterministic", or "training" for noise in the window, see `garden.drawn`.
    """

    model: str
    settings: str
    sampler: str = "deterministic"


def ways() -> list[Pictures]:
    """Return what is compared."""
    teacher = [Pictures("teacher", json.dumps({"steps": n, "guidance_scale": GUIDANCE})) for n in (20, STEPS)]
    drawings: list[tuple[dict[str, Any], str]] = [
        ({"sampler": "lcm"}, "deterministic"),
        ({"sampler": "ancestral"}, "deterministic"),
        ({"sampler": "ancestral"}, "training"),
        ({"sampler": "ancestral", "noise": "all"}, "training"),
        ({"sampler": "lcm", "steps": 8}, "deterministic"),
        ({"sampler": "ancestral", "steps": 8}, "deterministic"),
        ({"sampler": "lcm", "guidance_scale": GUIDANCE}, "deterministic"),
        ({"sampler": "ancestral", "guidance_scale": GUIDANCE}, "deterministic"),
    ]
    return teacher + [
        Pictures("student", json.dumps({**OWN_SETTINGS, **changes}), sampler) for changes, sampler in drawings
    ]


def look(cache: Path, way: Pictures) -> dict[str, Any]:
    """Draw held-out prompts and return a row of results."""
    model = trailing(load_model("garden")) if way.model == "teacher" else load_student(cache)
    settings = replace(SampleSettings(batch=32), json.loads(way.settings))
    images = drawn(model, settings, way.sampler, SEEDS)
    texts = [prompt for prompt in split_prompts()[1] for _ in range(SEEDS)]
    right = GardenClassifier.load().fidelity(images, texts)
    return {**asdict(way), "made_of": made_of(), **right, "sharpness": sharpness(images)}


SEEDS = 8
"""Pictures of each held-out prompt."""


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return a line for each way of drawing."""
    lines = ["| model | drawn with | kind | colour | sky | sharpness |", "|---" * 6 + "|"]
    for row in rows:
        how = ", ".join(f"{name} {value}" for name, value in json.loads(row["settings"]).items())
        noise = " with noise in the window" if row["sampler"] == "training" else ""
        shares = " | ".join(f"{row[name]:.1%}" for name in ("kind", "colour", "sky"))
        lines.append(f"| {row['model']} | {how}{noise} | {shares} | {row['sharpness']:.2f} |")
    return "\n".join(lines)


def taught(results: Path) -> str:
    """Return a line for each way in which a taste was taught to the student, from the results of `any_taste`."""
    lines = ["| taste | drawn with | taught with | win rate | kind | sharpness | drift |", "|---" * 7 + "|"]
    for row in map(json.loads, results.read_text("utf-8").splitlines()):
        if row.get("few_step") and row["made_of"] == digest():
            ways = (", ".join(f"{n} {v}" for n, v in json.loads(row[key]).items()) for key in ("draw", "train"))
            drawn_with, taught_with = (way or "the defaults" for way in ways)
            what = f"| {row['taste']} | {drawn_with} | {taught_with} | {row['win']:.3f} | "
            kind = row["fidelity"].get("kind", 0.0)
            lines.append(what + f"{kind:+.1f} | {row['sharpness']:.2f} | {row['drift'][0][1]:.3f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "d3po-benchmark")
    parser.add_argument("--known", action="store_true")
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    one_thread()
    rows = [json.loads(line) for line in options.results.read_text().splitlines()] if options.results.exists() else []
    rows = [row for row in rows if row["made_of"] == made_of()]
    known = {json.dumps({name: row[name] for name in ("model", "settings", "sampler")}): row for row in rows}
    for way in [] if options.known else ways():
        key = json.dumps(asdict(way))
        if key not in known:
            known[key] = look(options.cache, way)
            with options.results.open("a") as file:
                file.write(json.dumps(known[key]) + "\n")
            print(json.dumps(known[key]), flush=True)
    print("\n" + table([known[key] for way in ways() if (key := json.dumps(asdict(way))) in known]))
    print("\nTaught to the student, which is lcm in 4 steps; kind in points, sharpness as a share, full strength:\n")
    print(taught(TASTES_TAUGHT))


if __name__ == "__main__":
    main()
