"""All methods on the same rewards: what each gains, in which time, from how many picks, and what it costs elsewhere.

    python -m benchmarks.methods                        3 rewards x 11 methods x 5 seeds (hours on two cores)
    python -m benchmarks.methods --only "warmth: d3po"  some of it; --list names all
    python -m benchmarks.methods --plot methods.svg     draws it too (needs matplotlib)

D3PO, Diffusion-DPO and DiffusionNFT learn only which of four images a simulated person likes best. DDPO and DPOK use
the reward itself, as in their papers; DRaFT and ReFL its gradient (of the JPEG rewards: that of their smooth forms,
while the table has the real file size). Measured as in benchmarks/learning.py. Seconds are those of
one core, drawing the pictures to learn from included. Drift is the KL from base in nats per latent element; of
DRaFT and ReFL down to lower noise levels than of the others, see `training.reward_trainer.LOWEST_SIGMA`.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from benchmarks.learning import Experiment, arguments, outcomes
from d3po_core.settings import PUBLISHED

RESULTS = Path(__file__).parent / "results" / "methods.jsonl"
REWARDS = ("warmth", "compressibility", "incompressibility")
UNJUDGED = {"judge": False}
"""As their papers train: from the picks or the reward alone, without a judge between."""
METHODS: dict[str, dict[str, Any]] = {
    "D3PO": {},
    "D3PO, published": dict(PUBLISHED),
    "DDPO": {"train": {"method": "ddpo", **UNJUDGED}, "sees_reward": True},
    "DPOK": {"train": {"method": "dpok", **UNJUDGED}, "sees_reward": True},
    "Diffusion-DPO": {"train": {"method": "diffusion-dpo", **UNJUDGED}},
    "DiffusionNFT": {"train": {"method": "diffusion-nft", **UNJUDGED}},
    "DRaFT-1": {"draft": {"variant": "draft-k", "last": 1}},
    "DRaFT-5": {"draft": {"variant": "draft-k", "last": 5}},
    "DRaFT-LV": {"draft": {"variant": "draft-lv"}},
    "DRaFT-LV, no limit": {"draft": {"variant": "draft-lv", "drift_limit": 0.0}},
    "ReFL": {"draft": {"variant": "refl"}},
}
"""Picks are in 64 groups of four images, or of two as published; each update by a gradient draws four new images."""
EXPERIMENTS = [
    Experiment(
        **{
            **{"name": f"{taste}: {name}", "taste": taste, "clicks": 64, "sample": {"candidates": 4}},
            **{"samplers": ("deterministic",), **how},
        }
    )
    for taste in REWARDS
    for name, how in METHODS.items()
]


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the means over one experiment's seeds."""
    experiment = next(e for e in EXPERIMENTS if e.name == rows[0]["experiment"])
    candidates = experiment.sample.get("candidates", 2)
    picks = 0 if experiment.draft is not None or experiment.sees_reward else experiment.clicks
    learns_from = f"{picks} picks" if picks else "its gradient" if experiment.draft is not None else "the reward"
    pictures = 0 if experiment.draft is not None else experiment.clicks * candidates

    def mean(of: list[float]) -> float:
        return statistics.mean(of)

    results = [row["deterministic"] for row in rows]
    wins, gains = ([result[name] for result in results] for name in ("win", "gain"))
    fidelity = {
        kind: mean([100 * (result["fidelity"][kind][1] - result["fidelity"][kind][0]) for result in results])
        for kind in results[0]["fidelity"]
    }
    return {
        "seeds": len(rows),
        **{"picks": picks, "learns_from": learns_from},
        "seconds": mean([row["train_seconds"] + pictures * row["seconds_a_picture"] for row in rows]),
        **{"win": mean(wins), "win_se": standard_error(wins)},
        **{"gain": mean(gains), "gain_se": standard_error(gains)},
        "fidelity": fidelity,
        "drift": mean([row["drift"] for row in rows]),
    }


def standard_error(values: list[float]) -> float:
    """Return the standard error of the mean; 0 for a single value."""
    return statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0


def summaries(rows: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the summaries by reward and method, in the order of `EXPERIMENTS`."""
    by_name: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_name.setdefault(row["experiment"], []).append(row)
    pairs = [(taste, method) for taste in REWARDS for method in METHODS]
    return {pair: summary(by_name[": ".join(pair)]) for pair in pairs if ": ".join(pair) in by_name}


def table(results: dict[tuple[str, str], dict[str, Any]]) -> str:
    """Return a line for each method and a column for each reward: win rate, reward gained, points of fidelity lost."""
    heads = ["method", "learns from", "seconds", *REWARDS, "drift", "seeds"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for method in METHODS:
        of = {taste: results[taste, method] for taste in REWARDS if (taste, method) in results}
        if not of:
            continue
        cells = [cell(of[taste]) if taste in of else "" for taste in REWARDS]
        seconds, drift = (statistics.mean(s[name] for s in of.values()) for name in ("seconds", "drift"))
        seeds = sorted({s["seeds"] for s in of.values()})
        columns = [method, next(iter(of.values()))["learns_from"], f"{seconds:.0f}", *cells, f"{drift:.3f}"]
        lines.append(f"| {' | '.join(columns)} | {' to '.join(map(str, seeds))} |")
    return "\n".join(lines)


def cell(s: dict[str, Any]) -> str:
    """Return the cell of one method on one reward."""
    error = f" ± {s['win_se']:.2f}" if s["seeds"] > 1 else ""
    return f"{s['win']:.2f}{error}, {s['gain']:+.1f}, {min(0.0, *s['fidelity'].values()):+.0f}"


def left_alone(rows: list[dict[str, Any]]) -> str:
    """List the methods that saw no evidence of a taste and left the model as it was, and on how many seeds."""
    lines = []
    for name in dict.fromkeys(row["experiment"] for row in rows if not row["strength"]):
        every = [row for row in rows if row["experiment"] == name]
        wins = [row["deterministic"]["win"] for row in every if row["strength"]]
        others = f"; on the others it won {statistics.mean(wins):.2f}" if wins else ""
        lines.append(f"{name} left the model as it was on {len(every) - len(wins)} of {len(every)} seeds{others}")
    return "\n".join(lines)


def plot(results: dict[tuple[str, str], dict[str, Any]], path: Path) -> None:
    """Plot the reward gained, with its standard error over seeds, against seconds and against prompt fidelity lost."""
    from matplotlib import pyplot

    figure, rows = pyplot.subplots(2, len(REWARDS), figsize=(12, 7), sharey="col", layout="constrained")
    colours = dict(zip(METHODS, pyplot.colormaps["tab20"].colors, strict=False))
    for column, taste in enumerate(REWARDS):
        for (of, method), s in results.items():
            if of != taste:
                continue
            # pictures judged by clicks alone, by the reward itself, or by its gradient
            marker = "o" if s["picks"] else "s" if method in ("DDPO", "DPOK") else "^"
            for axis, x in ((rows[0, column], s["seconds"]), (rows[1, column], -min(s["fidelity"].values()))):
                axis.errorbar(
                    *(x, s["gain"], s["gain_se"]), color=colours[method], fmt=marker, markersize=8, label=method
                )
        rows[0, column].set(title=taste, xlabel="seconds on one core", xlim=(0, None), ylim=(0, None))
        rows[1, column].set(xlabel="points lost in kind, colour or sky, whichever lost most")
    for row in rows:
        row[0].set_ylabel("reward gained, in standard deviations")
    handles, labels = rows[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = arguments(__doc__, RESULTS)
    parser.add_argument("--plot", type=Path, help="file to draw to")
    options = parser.parse_args()
    rows = outcomes(EXPERIMENTS, options)
    results = summaries(rows)
    print(f"\n{table(results)}\n\n{left_alone(rows)}")
    if options.plot:
        plot(results, options.plot)


if __name__ == "__main__":
    main()
