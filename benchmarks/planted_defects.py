"""Do flags make a model draw fewer defects? On the embedded model, after a defect was planted in it; prints a table.

    python -m benchmarks.planted_defects                    every experiment (an hour of one core or two)
    python -m benchmarks.planted_defects --only flags       some of them
    python -m benchmarks.planted_defects --detector         how often the detector is wrong, and nothing else

The defect is a purple bar across the picture, behind which part of the bloom disappears. The embedded model is
trained a little further on drawings, some of which have the bar independently of their captions, so that it draws one
now and then at random. That model is then the original that a simulated person teaches: in 64 groups of four they flag
every image with a bar as defective, and pick nothing.

A bar is a matter of composition, which is decided at high noise levels. This matters: the default trains only steps
above a noise-to-signal ratio of 2.5, and a defect that appears later, such as grain, cannot be removed by them.

Beside the rates: prompt fidelity, by a classifier that was trained on undamaged drawings alone, and how often an image
of the trained model has the larger bloom of two (as in `benchmarks.learning`; chance is 0.5, but bars hide blooms).

Bars are recognised by counting pixels, not by anything that learned with the model. Rates are of 16 held-out prompts x
13 pictures = 208, before and after, each pair from a starting noise of its own that no group had, drawn by an ordinary
deterministic sampler; the noises differ between seeds. Outcomes are appended to a file, and what is in it is not
computed again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.garden import GUIDANCE, changed_settings, digest, one_thread, sampled

RESULTS = Path(__file__).parent / "results" / "planted_defects.jsonl"
GROUPS, PICTURES = 64, 13  # groups judged; pictures of each held-out prompt

ROWS = slice(12, 24)  # of 64, where the bar is
PURPLE = (148, 52, 196)  # a colour of the garden, since its autoencoder knows no others; no sky comes near it
NEAR, EDGE, SHARE, THICK = 0.25, 6, 0.6, 4  # RGB distance of a pixel to it; columns; share of them; rows


@dataclass(frozen=True)
class Planting:
    """How the defect is trained into the model.

    Attributes:
        share: of the drawings that have the defect.
        drawings, batch, updates, learning_rate: of this training.
    """

    share: float = 0.35
    drawings: int = 2000
    batch: int = 32
    updates: int = 240
    learning_rate: float = 6e-4


@dataclass(frozen=True)
class Experiment:
    """A configuration; every seed of it is one job.

    Attributes:
        shuffled: the same number of flags is put on random images.
        taste: reward by which a favourite is picked in each group, too; "" for none.
    """

    name: str
    shuffled: bool = False
    taste: str = ""
    seeds: int = 5
    train: dict[str, Any] = field(default_factory=dict)


EXPERIMENTS = [
    Experiment("flags"),
    Experiment("flags at random", shuffled=True, seeds=3),
    Experiment("flags, and large blooms as favourites", taste="garden-size", seeds=2),
    Experiment("flags, diffusion-kto", train={"method": "diffusion-kto"}, seeds=2),
    Experiment("flags, ddpo", train={"method": "ddpo"}, seeds=2),
]


# -- the defect ------------------------------------------------------------------------------------------------------


def with_bar(picture: np.ndarray) -> np.ndarray:
    """Add the defect to a drawing, uint8 (64, 64, 3)."""
    spoilt = picture.copy()
    spoilt[ROWS] = PURPLE
    return spoilt


def bar_rows(images: Tensor) -> Tensor:
    """Count the rows that are purple at the left or the right edge, (B,), of images (B, 3, H, W) in [0, 1].

    No bloom reaches an edge, so an undamaged image has none.
    """
    purple = torch.tensor(PURPLE).view(3, 1, 1) / 255
    near = ((images - purple).square().sum(1).sqrt() < NEAR).float()
    left, right = near[..., :EDGE].mean(2) > SHARE, near[..., -EDGE:].mean(2) > SHARE
    return (left | right).sum(1)


def defective(images: Tensor) -> Tensor:
    """Return which images (B, 3, H, W) in [0, 1] have a bar, across the image or ending inside of it: bool (B,)."""
    return bar_rows(images) >= THICK


def detector_errors(count: int = 1000) -> str:
    """Count on fresh drawings how many clean ones are taken for defective, and how many bars are missed.

    Drawings are tried as they are, and after the autoencoder.
    """
    from d3po_core.models import load_model
    from tools.garden.pictures import render
    from tools.garden.training_tools import as_tensor, scenes_of

    model, clean = load_model("garden"), [render(scene) for scene in scenes_of(987_654, count)]
    lines = []
    for name, pictures in (("clean", clean), ("with a bar", [with_bar(picture) for picture in clean])):
        images = as_tensor(np.stack(pictures))
        with torch.no_grad():
            decoded = torch.cat([model.decode(model.encode_images(part)) for part in images.split(50)])
        counts = [int(defective(x).sum()) for x in (images, decoded)]
        lines.append(f"{name}: defective {counts[0]} of {count}, and {counts[1]} after the autoencoder")
    return "; ".join(lines) + "."


# -- the model that has it -------------------------------------------------------------------------------------------


def plant(planting: Planting) -> dict[str, Tensor]:
    """Train the embedded network further on drawings, some of which have the bar; return averaged weights by name."""
    from d3po_core.embedded import PROMPTS
    from d3po_core.models import load_model
    from tools.garden.pictures import caption, render
    from tools.garden.train_unet import Denoising, caption_table
    from tools.garden.training_tools import Average, as_tensor, scenes_of, shuffled

    torch.manual_seed(0)
    model, scenes = load_model("garden"), scenes_of(5, planting.drawings)
    spoilt = torch.rand(len(scenes)) < planting.share
    drawings = [with_bar(render(s)) if bad else render(s) for s, bad in zip(scenes, spoilt, strict=True)]
    latents = torch.cat(
        [model.encode_images(as_tensor(np.stack(drawings[i : i + 50]))) for i in range(0, len(drawings), 50)]
    )
    prompts = torch.tensor([PROMPTS.index(caption(scene)) for scene in scenes])
    problem = Denoising(latents, prompts, caption_table(model.pipeline.tokenizer), "cpu")
    network: Any = model.denoiser.module.requires_grad_(True).train()
    average, optimiser = Average(network, 0.98), torch.optim.AdamW(network.parameters(), lr=planting.learning_rate)
    batches = shuffled(len(scenes), planting.batch, seed=0)
    for update, index in zip(range(planting.updates), batches, strict=False):
        for group in optimiser.param_groups:
            group["lr"] = planting.learning_rate * min(1.0, (update + 1) / 20, 3 * (1 - update / planting.updates))
        loss = problem.loss(index, network, model.pipeline.text_encoder)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        average.update(network)
        if update % 50 == 0:
            print(f"planting, update {update} of {planting.updates}: loss {loss.item():.4f}", flush=True)
    return {name: value.contiguous() for name, value in average.module.state_dict().items()}


def planted_model(cache: Path, planting: Planting) -> Any:
    """Return the embedded model with the defect, which is trained once."""
    from safetensors.torch import load_file, save_file

    from d3po_core.models import DiffusersModel, load_model

    path = cache / f"planted-{digest(dataclasses.asdict(planting))}.safetensors"
    if not path.exists():
        save_file(plant(planting), path.with_suffix(".half"))
        path.with_suffix(".half").replace(path)
    model = load_model("garden")
    model.denoiser.module.load_state_dict(load_file(path))
    return DiffusersModel(model.pipeline)  # a new object, because it is another base model now


# -- teaching --------------------------------------------------------------------------------------------------------


def sample_settings(seed: int) -> Any:
    from d3po_core.settings import SampleSettings

    return SampleSettings(groups=GROUPS, guidance_scale=GUIDANCE, seed=seed, batch=16)


def pool(cache: Path, planting: Planting, seed: int) -> Path:
    """Return the folder of a run with all groups of a seed, sampled once."""
    settings = sample_settings(seed)
    folder = cache / f"defects-{digest(changed_settings(settings), dataclasses.asdict(planting))}"
    return sampled(folder, settings, lambda: planted_model(cache, planting))


def judge(run: Any, experiment: Experiment, seed: int) -> dict[str, Any]:
    """Flag images, and pick favourites if there is a taste; return the part of the row that describes this."""
    from d3po_core.diffusion.rollout import generator
    from d3po_core.picks import Pick
    from d3po_core.rewards import get_reward
    from d3po_core.run.run import read_images

    groups = run.groups.select()
    images = [read_images(run, group) for group in groups]
    bad = torch.stack([defective(x) for x in images])
    mixed = float((bad.any(1) & ~bad.all(1)).float().mean())
    flagged = bad
    if experiment.shuffled:
        flagged = bad.flatten()[torch.randperm(bad.numel(), generator=generator(seed, "flags"))].view_as(bad)
    for group, x, flags in zip(groups, images, flagged.tolist(), strict=True):
        if experiment.taste:
            scores = get_reward(experiment.taste)(x, [group.prompt] * len(x))
            best = int(scores.masked_fill(torch.tensor(flags), -torch.inf).argmax())
            run.picks.add(group.id, Pick("favourite", (best,)))
        for candidate, has_flag in enumerate(flags):
            if has_flag:
                run.flags.add(group.id, candidate, "defective")
    return {"in_groups": round(float(bad.float().mean()), 3), "mixed_groups": round(mixed, 3)}


def drawn(model: Any, seed: int) -> tuple[Tensor, list[str]]:
    """Draw the images to measure on, each from another starting noise; return them and their prompts, by prompt."""
    from d3po_core.embedded import split_prompts
    from d3po_core.evaluation.evaluate import deterministic, draw

    settings, prompts = sample_settings(seed), split_prompts()[1]
    plan = deterministic(model, settings)
    parts = [
        images
        for number, prompt in enumerate(prompts)
        for _, images in draw(model, plan, [prompt], PICTURES, settings, first_seed=number * PICTURES)
    ]
    return torch.cat(parts), [prompt for prompt in prompts for _ in range(PICTURES)]


def made_of(experiment: Experiment, planting: Planting, seed: int) -> str:
    """Return a digest of everything that decides a job's outcome but the code and its defaults."""
    from d3po_core.settings import TrainSettings, replace

    train = replace(TrainSettings(seed=seed), experiment.train)
    parts = [experiment.shuffled, experiment.taste, ROWS.start, ROWS.stop, PURPLE, NEAR, EDGE, SHARE, THICK, PICTURES]
    return digest(parts, dataclasses.asdict(planting), changed_settings(sample_settings(seed)), changed_settings(train))


def run_job(cache: Path, experiment: Experiment, planting: Planting, seed: int) -> dict[str, Any]:
    """Flag, train and measure; return the row of results."""
    from d3po_core.embedded.classifier import GardenClassifier
    from d3po_core.evaluation.compare import compare
    from d3po_core.lora.attachment import applied
    from d3po_core.rewards import get_reward
    from d3po_core.run import Run
    from d3po_core.settings import LoraSettings, TrainSettings, replace
    from d3po_core.training.trainer import Trainer

    model = planted_model(cache, planting)
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(pool(cache, planting, seed), folder, dirs_exist_ok=True)
        run = Run.open(folder)
        judged = judge(run, experiment, seed)
        started = time.process_time()
        settings = replace(TrainSettings(seed=seed), experiment.train)
        with Trainer.open(run, model.denoiser, settings, LoraSettings()) as trainer:
            reports, result = list(trainer.steps()), trainer.result()
        seconds = time.process_time() - started
        run.close()
    original, prompts = drawn(model, seed)
    with applied(model.denoiser, result.weights):
        taught, _ = drawn(model, seed)
    fidelity = [GardenClassifier.load().fidelity(x, prompts) for x in (original, taught)]
    size = [get_reward("garden-size")(x, prompts).double().unflatten(0, (-1, PICTURES)) for x in (original, taught)]
    return {
        "experiment": experiment.name,
        "seed": seed,
        "made_of": made_of(experiment, planting, seed),
        "rate": [round(float(defective(x).float().mean()), 4) for x in (original, taught)],
        "doubtful": [
            round(float(((bar_rows(x) > 0) & (bar_rows(x) < 2 * THICK)).float().mean()), 4) for x in (original, taught)
        ],
        "fidelity": {name: [round(side[name], 3) for side in fidelity] for name in fidelity[0]},
        "larger": round(compare(*size).win_rate, 3),
        **judged,
        "strength": round(result.strength, 3),
        "z": round(result.z, 2) if result.z is not None else None,
        "guessed": f"{result.guessed:g}/{result.guessed_of}",
        "epochs": reports[-1].epoch + 1 if reports else 0,
        "drift": round(result.strength_scan[0][1], 5) if result.strength_scan else 0.0,
        "train_seconds": round(seconds),
    }


# -- results ---------------------------------------------------------------------------------------------------------


def mean(values: list[float], digits: int = 3) -> str:
    """Return the mean with its standard error."""
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return f"{statistics.mean(values):.{digits}f} ± {error:.{digits}f}"


def table(rows: Iterable[dict[str, Any]]) -> str:
    """Return a line for each job, then means over seeds."""
    lines = [
        "| experiment | seed | defective before | after | strength | fidelity, change in points |",
        "|---" * 6 + "|",
    ]
    by_name: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_name.setdefault(row["experiment"], []).append(row)
        change = ", ".join(f"{k} {100 * (b - a):+.1f}" for k, (a, b) in row["fidelity"].items())
        lines.append(
            f"| {row['experiment']} | {row['seed']} | {row['rate'][0]:.3f} | {row['rate'][1]:.3f} | "
            f"{row['strength']:.2f} | {change} |"
        )
    lines += ["", "| experiment | seeds | defective before | after | fidelity, change in points | larger bloom |"]
    lines.append("|---" * 6 + "|")
    for name, group in by_name.items():
        before, after = ([row["rate"][i] for row in group] for i in (0, 1))
        kinds = group[0]["fidelity"]
        shift = [f"{k} {mean([100 * (r['fidelity'][k][1] - r['fidelity'][k][0]) for r in group], 1)}" for k in kinds]
        larger = mean([row["larger"] for row in group])
        lines.append(f"| {name} | {len(group)} | {mean(before)} | **{mean(after)}** | {', '.join(shift)} | {larger} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", help="names of experiments")
    parser.add_argument("--seeds", type=int, nargs="*", help="instead of each experiment's own number of seeds")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "d3po-benchmark")
    parser.add_argument("--detector", action="store_true", help="how often the detector is wrong, and nothing else")
    options = parser.parse_args()
    one_thread()
    if options.detector:
        print(detector_errors())
        return
    options.cache.mkdir(parents=True, exist_ok=True)
    options.results.parent.mkdir(parents=True, exist_ok=True)
    chosen = [e for e in EXPERIMENTS if not options.only or e.name in options.only]
    jobs = [(e, s) for e in chosen for s in (options.seeds if options.seeds is not None else range(e.seeds))]
    done = [json.loads(line) for line in options.results.read_text().splitlines()] if options.results.exists() else []
    known, planting = {(row["experiment"], row["seed"], row["made_of"]): row for row in done}, Planting()
    rows = []
    for experiment, seed in jobs:
        row = known.get((experiment.name, seed, made_of(experiment, planting, seed)))
        if row is None:
            row = run_job(options.cache, experiment, planting, seed)
            with options.results.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)
        rows.append(row)
    print("\n" + table(rows))


if __name__ == "__main__":
    main()
