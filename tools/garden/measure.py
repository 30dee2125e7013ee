"""Measure the embedded model with its classifier: `python -m tools.garden.measure [--model DIR]`.

The classifier is applied to fresh renderings, to their reconstructions by the autoencoder, and to samples of all 60
prompts, for each guidance and eta. The counts are printed as JSON.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from PIL import Image

from d3po_core.embedded import ATTRIBUTES, GARDEN_FOLDER, PROMPTS
from d3po_core.embedded.classifier import GardenClassifier
from tools.garden.pictures import LEAN_STD, SIZE_STD, caption, random_scene, render
from tools.garden.train_vae import reconstruct
from tools.garden.training_tools import as_tensor


def load_pipeline(folder: Path) -> StableDiffusionPipeline:
    """Load a pipeline in float32 with its DDIM scheduler, without progress bars."""
    pipe = StableDiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def count_correct(classifier: GardenClassifier, images: torch.Tensor, prompts: list[str]) -> dict[str, Any]:
    """Count the images that are right in each attribute and in all; add mean and spread of size and lean."""
    right = classifier.attribute_correct(images, prompts)
    with torch.no_grad():
        outputs = classifier(images)
    facts: dict[str, Any] = {name: int(hits.sum()) for name, hits in right.items()}
    facts["all three"] = int(torch.stack(list(right.values())).all(0).sum())
    facts["of"] = len(prompts)
    for name in ("size", "lean"):
        facts[name] = {"mean": round(outputs[name].mean().item(), 3), "std": round(outputs[name].std().item(), 3)}
    return facts


def renderings(count: int, seed: int) -> tuple[torch.Tensor, list[str], dict[str, torch.Tensor]]:
    """Return renderings (count, 3, 64, 64), their captions, and their true size and lean in the classifier's units."""
    rng = np.random.default_rng(seed)
    scenes = [random_scene(rng) for _ in range(count)]
    truth = {
        "size": torch.tensor([(s.size - 0.5) / SIZE_STD for s in scenes]),
        "lean": torch.tensor([s.lean / LEAN_STD for s in scenes]),
    }
    return as_tensor(np.stack([render(s) for s in scenes])), [caption(s) for s in scenes], truth


def count_with_errors(
    classifier: GardenClassifier, images: torch.Tensor, prompts: list[str], truth: dict[str, torch.Tensor]
) -> dict:
    """Return the counts of `count_correct`, with the root mean square errors of size and lean."""
    facts, outputs = count_correct(classifier, images, prompts), classifier(images)
    for name, value in truth.items():
        facts[name]["error"] = round((outputs[name] - value).square().mean().sqrt().item(), 3)
    return facts


@torch.no_grad()
def sample(
    pipe: StableDiffusionPipeline, prompts: list[str], seed: int, guidance: float, eta: float, steps: int = 20
) -> torch.Tensor:
    """Draw images (B, 3, 64, 64) in [0, 1] of B prompts."""
    generator = torch.Generator(pipe.device).manual_seed(seed)
    return pipe(prompts, num_inference_steps=steps, guidance_scale=guidance, eta=eta, generator=generator,
                output_type="pt").images.float().cpu()  # fmt: skip


def contact_sheet(images: torch.Tensor, path: Path, columns: int = 10, zoom: int = 3) -> None:
    """Write images (B, 3, H, W) as a PNG, row by row."""
    rows = [torch.cat(list(row), 2) for row in images[: len(images) // columns * columns].split(columns)]
    sheet = (torch.cat(rows, 1).permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    Image.fromarray(sheet).resize((sheet.shape[1] * zoom, sheet.shape[0] * zoom), Image.Resampling.BICUBIC).save(path)


def count_missed(classifier: GardenClassifier, images: torch.Tensor, prompts: list[str]) -> dict[str, dict[str, int]]:
    """Count how often each value was missed, by attribute."""
    missed: dict[str, dict[str, int]] = {name: {} for name in ATTRIBUTES}
    for name, hits in classifier.attribute_correct(images, prompts).items():
        for hit, prompt in zip(hits.tolist(), prompts, strict=True):
            if not hit:
                value = next(v for v in ATTRIBUTES[name] if v in prompt)
                missed[name][value] = missed[name].get(value, 0) + 1
    return missed


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=GARDEN_FOLDER)
    parser.add_argument("--judge", type=Path, help="folder of the classifier; by default that of the model")
    parser.add_argument("--guidance", type=float, nargs="*", default=[2.5])
    parser.add_argument("--eta", type=float, nargs="*", default=[0.0, 1.0])
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--renderings", type=int, default=3000)
    parser.add_argument("--sheet", type=Path, help="PNG of one sample for every prompt at the first setting")
    args = parser.parse_args()
    classifier, pipe = GardenClassifier.load(args.judge or args.model / "judge"), load_pipeline(args.model)
    if args.renderings:
        images, prompts, truth = renderings(args.renderings, seed=987_654)
        print(json.dumps({"renderings": count_with_errors(classifier, images, prompts, truth)}), flush=True)
        reconstructed = reconstruct(pipe.vae, images)
        error = round((reconstructed - images).abs().mean().item(), 4)
        facts = {
            "reconstructions": count_with_errors(classifier, reconstructed, prompts, truth),
            "mean absolute error": error,
        }
        print(json.dumps(facts), flush=True)
    for guidance in args.guidance:
        for eta in args.eta:
            images = torch.cat([sample(pipe, PROMPTS, 1000 + seed, guidance, eta) for seed in range(args.seeds)])
            prompts = PROMPTS * args.seeds
            facts = {"guidance": guidance, "eta": eta, **count_correct(classifier, images, prompts)}
            print(json.dumps({**facts, "missed": count_missed(classifier, images, prompts)}), flush=True)
            if args.sheet:
                contact_sheet(images[:60], args.sheet.with_stem(f"{args.sheet.stem}-g{guidance:g}-eta{eta:g}"))


if __name__ == "__main__":
    main()
