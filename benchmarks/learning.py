"""Is a taste learnt? Simulated pickers on the embedded model, over seeds; prints a table.

    python -m benchmarks.learning                      every experiment, 5 seeds (hours on two cores)
    python -m benchmarks.learning --only default-64    some of them
    python -m benchmarks.learning --list               the names of all

Win rates are on independent seeds, by the taste's own scorer, on 16 held-out prompts x 13 seeds = 208 images a side.
Outcomes are appended to a file, and what is in it is not computed again.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import math
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.garden import EVALUATION_SEEDS, GUIDANCE, before, changed_settings, digest, drawn, one_thread, sampled
from benchmarks.next_group import least_sure_first
from d3po_core.settings import PUBLISHED

if TYPE_CHECKING:
    from d3po_core.settings import SampleSettings

RESULTS = Path(__file__).parent / "results" / "learning.jsonl"


@dataclass(frozen=True)
class Experiment:
    """A configuration; every seed of it is one job.

    Attributes:
        clicks: groups judged, held-out ones among them.
        kind: of pick, "favourite" or "ranking".
        flip: share of picks that are turned round.
        random: picks are random.
        least_sure: groups are shown least sure first (`next_group`), not in the order drawn.
        sees_reward: the method uses the taste's own scores of all images in place of picks.
        draft: the gradient of the taste's scores is followed, with these reward settings, in place of picks.
        from_picks: the reward that is followed is a judge, fitted to picks.
        samplers: that draw the images to be compared.
    """

    name: str
    clicks: int = 128
    taste: str = "garden-size"
    kind: str = "favourite"
    flip: float = 0.0
    random: bool = False
    least_sure: bool = False
    sees_reward: bool = False
    draft: dict[str, Any] | None = None
    from_picks: bool = False
    seeds: int = 5
    samplers: tuple[str, ...] = ("deterministic", "training")
    sample: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)
    lora: dict[str, Any] = field(default_factory=dict)


SMOOTH = {"compressibility": "smooth-compressibility", "incompressibility": "smooth-incompressibility"}
"""Rewards with a gradient that replace those without one."""
EXPERIMENTS = [
    Experiment("default-64", 64),
    Experiment("default-128", 128),
    Experiment("flipped-128", 128, flip=0.15),
    Experiment("random-128", 128, random=True, seeds=10),
    Experiment("published-128", 128, sample=PUBLISHED["sample"], train=PUBLISHED["train"], lora=PUBLISHED["lora"]),
    Experiment("lean-128", 128, taste="garden-lean"),
    Experiment("compressibility-128", 128, taste="compressibility"),
    Experiment("karras-128", 128, sample={"schedule": "karras"}, seeds=3),
    Experiment("4-steps-128", 128, sample={"steps": 4}, seeds=3),
    # the default as it is, four candidates, on other tastes, schedules and sizes
    Experiment("lean-4x64", 64, taste="garden-lean", sample={"candidates": 4}),
    Experiment("incompressibility-4x64", 64, taste="incompressibility", sample={"candidates": 4}),
    Experiment("compressibility-4x64", 64, taste="compressibility", sample={"candidates": 4}),
    Experiment("4-steps-4x64", 64, sample={"candidates": 4, "steps": 4}, seeds=3),
    Experiment("karras-4x64", 64, sample={"candidates": 4, "schedule": "karras"}, seeds=3),
    # at 96 x 96 the embedded model itself fails (0.24 of its flowers are of the right kind); at 80 x 64 it does not
    Experiment("96-pixels-4x64", 64, sample={"candidates": 4, "width": 96, "height": 96}, seeds=3),
    Experiment("80-by-64-4x64", 64, sample={"candidates": 4, "width": 80, "height": 64}, seeds=3),
    # at equal images: 256 images are 128 pairs or 64 groups of four; at equal clicks: 64 groups of either
    Experiment("4-favourite-64", 64, sample={"candidates": 4}),
    Experiment("4-ranking-64", 64, kind="ranking", sample={"candidates": 4}),
    # `batch` counts pairs, of which a group of four gives 3 (favourite) or 6: so many updates as 64 pairs of two
    Experiment("4-favourite-64 equal updates", 64, sample={"candidates": 4}, train={"batch": 12}),
    Experiment("4-ranking-64 equal updates", 64, kind="ranking", sample={"candidates": 4}, train={"batch": 24}),
    # which group to show next: out of 64 groups of four, as drawn or least sure first
    Experiment("as-drawn-24", 24, sample={"candidates": 4}),
    Experiment("as-drawn-32", 32, sample={"candidates": 4}),
    Experiment("least-sure-24", 24, least_sure=True, sample={"candidates": 4}),
    Experiment("least-sure-32", 32, least_sure=True, sample={"candidates": 4}),
    # the other methods, on the same picks as 4-favourite-64
    *(
        Experiment(f"{method}-4x64", 64, sample={"candidates": 4}, train={"method": method})
        for method in ("ddpo", "dpok", "diffusion-dpo", "diffusion-kto", "diffusion-nft")
    ),
    # a reward fitted to the same picks as default-128 and 4-favourite-64, then climbed
    Experiment("picks, draft-lv-128", 128, draft={"variant": "draft-lv"}, from_picks=True),
    Experiment("picks, draft-lv-4x64", 64, draft={"variant": "draft-lv"}, from_picks=True, sample={"candidates": 4}),
]


def sample_settings(experiment: Experiment, seed: int) -> SampleSettings:
    """Return how an experiment draws its groups: as many as the largest experiment that draws in the same way needs."""
    from d3po_core.settings import SampleSettings, replace

    base = SampleSettings(candidates=2, guidance_scale=GUIDANCE, seed=seed, batch=16)
    most = max((e.clicks for e in EXPERIMENTS if e.sample == experiment.sample), default=0)
    return replace(base, {"groups": max(most, experiment.clicks), **experiment.sample})


def made_of(experiment: Experiment, seed: int) -> str:
    """Return a digest of everything that decides a job's outcome but the code and its defaults.

    A row of results with another digest was made with other settings, and is not taken for this job's.
    """
    from d3po_core.settings import LoraSettings, RewardSettings, TrainSettings, replace

    parts: list[object] = [experiment.clicks, experiment.taste, experiment.kind, experiment.flip, experiment.random]
    if experiment.least_sure:
        parts.append("least sure")
    if experiment.sees_reward:
        parts.append("sees reward")
    if experiment.draft is not None:
        parts.append(changed_settings(replace(RewardSettings(seed=seed), experiment.draft)))
        parts.append("from picks" if experiment.from_picks else SMOOTH.get(experiment.taste, experiment.taste))
    return digest(
        parts,
        changed_settings(sample_settings(experiment, seed)),
        changed_settings(replace(TrainSettings(seed=seed), experiment.train)),
        changed_settings(replace(LoraSettings(), experiment.lora)),
    )


def pool(cache: Path, experiment: Experiment, seed: int) -> Path:
    """Return the folder of a run with all groups that experiments with these sampling settings need, sampled once."""
    from d3po_core.models import load_model

    settings = sample_settings(experiment, seed)
    return sampled(cache / f"pool-{digest(dataclasses.asdict(settings))}", settings, lambda: load_model("garden"))


def annotate(run: Any, experiment: Experiment, seed: int) -> None:
    """Judge groups of a run as a person with this taste would."""
    import torch

    from d3po_core.diffusion.rollout import generator
    from d3po_core.picks import Pick
    from d3po_core.rewards import get_reward
    from d3po_core.run.run import read_images

    reward, rng = get_reward(experiment.taste), generator(seed, "picker")
    favourites: dict[str, int] = {}
    for group in itertools.islice(shown(run, experiment, seed, favourites), experiment.clicks):
        scores = reward(read_images(run, group), [group.prompt] * group.candidates)
        if experiment.random:
            scores = torch.rand(group.candidates, generator=rng)
        if torch.rand((), generator=rng) < experiment.flip:
            scores = -scores
        order = tuple(scores.argsort(descending=True).tolist())
        pick = Pick("favourite", order[:1]) if experiment.kind == "favourite" else Pick("ranking", order)
        run.picks.add(group.id, pick)
        favourites[group.id] = order[0]


def shown(run: Any, experiment: Experiment, seed: int, favourites: dict[str, int]) -> Iterable[Any]:
    """Return groups in the order in which a person sees them; their favourites are added to `favourites` meanwhile."""
    from d3po_core.diffusion.rollout import generator

    groups = run.groups.select()
    if not experiment.least_sure:
        return groups
    return least_sure_first(
        groups, lambda g: run.groups.trajectory(g)["latents"], favourites.__getitem__, generator(seed, "next")
    )


def teach(run: Any, model: Any, experiment: Experiment, seed: int) -> tuple[Any, dict[str, Any]]:
    """Train by picks, or by scores; return the result, and its part of the row."""
    from d3po_core.rewards import get_reward
    from d3po_core.settings import LoraSettings, TrainSettings, replace
    from d3po_core.training.trainer import Trainer

    if not experiment.sees_reward:
        annotate(run, experiment, seed)
    started = time.process_time()
    settings, lora = replace(TrainSettings(seed=seed), experiment.train), replace(LoraSettings(), experiment.lora)
    reward = get_reward(experiment.taste) if experiment.sees_reward else None
    with Trainer.open(run, model.denoiser, settings, lora, reward=reward) as trainer:
        reports = list(trainer.steps())
    result, hidden = trainer.result(), reports[-1].hidden if reports else None
    last_epoch = [r.training.accuracy for r in reports if r.epoch == reports[-1].epoch]
    return result, {
        "train_seconds": round(time.process_time() - started, 1),
        "strength": round(result.strength, 3),
        "z": round(result.z, 2) if result.z is not None else None,
        "guessed": f"{result.guessed:g}/{result.guessed_of}",
        "epochs": reports[-1].epoch + 1 if reports else 0,
        "train_accuracy": round(statistics.mean(last_epoch), 3) if reports else None,
        "hidden_accuracy": round(hidden.accuracy, 3) if hidden else None,
        "hidden_loss": round(hidden.loss, 4) if hidden else None,
    }


def climb(run: Any, model: Any, experiment: Experiment, seed: int) -> tuple[Any, dict[str, Any]]:
    """Train by a reward's gradient; return the result, and its part of the row."""
    from d3po_core.rewards import get_reward
    from d3po_core.rewards.judge import fit_judge
    from d3po_core.settings import LoraSettings, RewardSettings, replace
    from d3po_core.training.reward_trainer import RewardTrainer

    if experiment.from_picks:
        annotate(run, experiment, seed)
    started = time.process_time()
    named = SMOOTH.get(experiment.taste, experiment.taste)
    reward = fit_judge(run).reward() if experiment.from_picks else get_reward(named)
    settings = replace(RewardSettings(seed=seed), experiment.draft or {})
    lora, sample = replace(LoraSettings(), experiment.lora), sample_settings(experiment, seed)
    curve, updates = [], 0
    with RewardTrainer.open(run, model, reward, settings, lora, sample) as trainer:
        for report in trainer.steps():
            updates = report.update
            if report.watched is not None:
                curve.append([round(time.process_time() - started, 1), round(report.watched, 5)])
    result = trainer.result()
    return result, {
        "train_seconds": round(time.process_time() - started, 1),
        "strength": 1.0,
        "updates": updates,
        "curve": curve,
        "kl_base": round(result.figures["kl_base"], 2),
        "climbed": [round(result.figures[name], 5) for name in ("reward_before", "reward")],
        "reason": result.reason,
    }


def run_job(cache: Path, experiment: Experiment, seed: int) -> dict[str, Any]:
    """Pick, train and evaluate; return the row of results."""
    from d3po_core.embedded import split_prompts
    from d3po_core.embedded.classifier import GardenClassifier
    from d3po_core.evaluation.compare import compare
    from d3po_core.lora.attachment import applied
    from d3po_core.models import load_model
    from d3po_core.rewards import get_reward
    from d3po_core.run import Run

    row: dict[str, Any] = {"experiment": experiment.name, "seed": seed, "made_of": made_of(experiment, seed)}
    model, judge, reward = load_model("garden"), GardenClassifier.load(), get_reward(experiment.taste)
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(pool(cache, experiment, seed), folder, dirs_exist_ok=True)
        run = Run.open(folder)
        train = climb if experiment.draft is not None else teach
        result, figures = train(run, model, experiment, seed)
        run.close()
    row |= figures
    row["drift"] = round(result.strength_scan[0][1], 5) if result.strength_scan else 0.0
    prompts = split_prompts()[1]
    texts = [prompt for prompt in prompts for _ in range(EVALUATION_SEEDS)]
    for sampler in experiment.samplers:
        originals = before(cache, model, sample_settings(experiment, 0), sampler)
        started = time.process_time()
        with applied(model.denoiser, result.weights):
            tuned = drawn(model, sample_settings(experiment, 0), sampler)
        row["seconds_a_picture"] = round((time.process_time() - started) / len(tuned), 4)
        scores = [reward(x, texts).double().unflatten(0, (len(prompts), -1)) for x in (originals, tuned)]
        c = compare(*scores)
        fidelity = [judge.fidelity(x, texts) for x in (originals, tuned)]
        row[sampler] = {
            "win": round(c.win_rate, 4),
            "se": round(c.win_rate_se, 4),
            "gain": round(c.gain, 3),
            "reward": [round(float(of.mean()), 5) for of in scores],
            "fidelity": {k: [round(f[k], 3) for f in fidelity] for k in fidelity[0]},
        }
    return row


def table(rows: Iterable[dict[str, Any]]) -> str:
    """Return means over seeds, a line for each experiment."""
    lines = [
        "| experiment | seeds | win (deterministic) | per seed | win (training sampler) | fidelity, change in points |"
    ]
    lines += ["| strength | drift |", "|---" * 8 + "|"]
    lines[0:2] = [lines[0][:-1] + lines[1]]
    by_name: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_name.setdefault(row["experiment"], []).append(row)
    for name, found in by_name.items():
        wins = [row["deterministic"]["win"] for row in found]
        se = statistics.stdev(wins) / len(wins) ** 0.5 if len(wins) > 1 else 0.0
        train = statistics.mean(row["training"]["win"] for row in found)
        kinds = found[0]["deterministic"]["fidelity"]
        change = {
            k: statistics.mean(
                100 * (row["deterministic"]["fidelity"][k][1] - row["deterministic"]["fidelity"][k][0]) for row in found
            )
            for k in kinds
        }
        strength, drift = (statistics.mean(row.get(key, math.nan) for row in found) for key in ("strength", "drift"))
        lines.append(
            f"| {name} | {', '.join(str(r['seed']) for r in found)} | **{statistics.mean(wins):.3f}** ± {se:.3f} | "
            f"{' '.join(f'{w:.2f}' for w in wins)} | {train:.3f} | "
            f"{', '.join(f'{k} {v:+.1f}' for k, v in change.items())} | "
            f"{strength:.2f} | {drift:.3f} |"
        )
    return "\n".join(lines)


def arguments(description: str | None, results: Path) -> argparse.ArgumentParser:
    """Return the command line of a benchmark that runs experiments."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", help="names of experiments")
    parser.add_argument("--seeds", type=int, nargs="*", help="instead of each experiment's own number of seeds")
    parser.add_argument("--set", nargs="*", default=[], help="train settings to try, name=value; stored under the name")
    parser.add_argument("--results", type=Path, default=results)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "d3po-benchmark")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--list", action="store_true", help="name the experiments and do nothing")
    parser.add_argument("--known", action="store_true", help="print what is in the results and do nothing")
    return parser


def outcomes(experiments: list[Experiment], options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the rows of the experiments that were asked for, running those that are not in the file of results."""
    chosen = [e for e in experiments if not options.only or e.name in options.only]
    if options.list:
        print("\n".join(f"{e.name}: {e}" for e in chosen))
        return []
    if options.set:
        chosen = [changed(e, options.set) for e in chosen]
    options.cache.mkdir(parents=True, exist_ok=True)
    options.results.parent.mkdir(parents=True, exist_ok=True)
    done = [json.loads(line) for line in options.results.read_text().splitlines()] if options.results.exists() else []
    jobs = [(e, s) for e in chosen for s in (options.seeds if options.seeds is not None else range(e.seeds))]
    known = {(row["experiment"], row["seed"], row["made_of"]) for row in done}
    todo = [(e, s) for e, s in jobs if (e.name, s, made_of(e, s)) not in known and not options.known]
    with ProcessPoolExecutor(options.jobs, initializer=one_thread) as executor:
        pools = {(json.dumps(e.sample, sort_keys=True), s): (e, s) for e, s in todo}
        list(
            executor.map(pool, *zip(*((options.cache, e, s) for e, s in pools.values()), strict=True)) if pools else []
        )
        for row in executor.map(run_job, *zip(*((options.cache, e, s) for e, s in todo), strict=True)) if todo else []:
            done.append(row)
            with options.results.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)
    requested = {(e.name, s, made_of(e, s)) for e, s in jobs}
    return [row for row in done if (row["experiment"], row["seed"], row["made_of"]) in requested]


def changed(experiment: Experiment, texts: list[str]) -> Experiment:
    """Return an experiment with other train or reward settings, `name=value` each."""
    extra = {k: json.loads(v) for k, v in (item.split("=") for item in texts)}
    name = " ".join([experiment.name, *texts])
    if experiment.draft is not None:
        return dataclasses.replace(experiment, name=name, draft={**experiment.draft, **extra})
    return dataclasses.replace(experiment, name=name, train={**experiment.train, **extra})


def main() -> None:
    options = arguments(__doc__, RESULTS).parse_args()
    print("\n" + table(outcomes(EXPERIMENTS, options)))


if __name__ == "__main__":
    main()
