"""Reward From Picks on the embedded model: how well a judge predicts a taste, how long it takes, and whether random
picks are refused.

    python -m benchmarks.picks_reward                  every taste, 5 seeds, and 100 random pickers (ten minutes)
    python -m benchmarks.picks_reward --random 0       no random pickers

Each seed has a run of its own with 128 groups of four pictures; a simulated person picks a favourite in the first
64, or in all. Accuracy is on groups that the head has not seen.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.garden import one_thread
from benchmarks.learning import Experiment, pool

TASTES = ("garden-size", "garden-lean", "warmth", "incompressibility")
CLICKS, SEEDS = (64, 128), range(5)


def picked(run: Any, who: str, clicks: int, taste: str = "", seed: int = 0) -> None:
    """Pick favourites in the first groups, at random if there is no taste."""
    import torch

    from d3po_core.diffusion.rollout import generator
    from d3po_core.picks import Pick
    from d3po_core.rewards import get_reward
    from d3po_core.run.run import read_images

    reward, rng = get_reward(taste) if taste else None, generator(seed, "picker")
    for group in itertools.islice(run.groups.select(), clicks):
        scores = torch.rand(group.candidates, generator=rng)
        if reward:
            scores = reward(read_images(run, group), [group.prompt] * group.candidates)
        run.picks.add(group.id, Pick("favourite", (int(scores.argmax()),)), who=who)


def runs(cache: Path, seed: int) -> Iterator[Any]:
    """Yield a copy of the seed's run, for one use."""
    from d3po_core.run import Run

    with tempfile.TemporaryDirectory() as folder:
        experiment = Experiment("picks-4x128", max(CLICKS), sample={"candidates": 4})
        shutil.copytree(pool(cache, experiment, seed), folder, dirs_exist_ok=True)
        run = Run.open(folder)
        yield run
        run.close()


def main() -> None:
    from d3po_core.rewards.judge import fit_judge
    from d3po_core.run.panel import Panel

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--random", type=int, default=10, help="random pickers for each seed and number of picks")
    parser.add_argument("--tastes", nargs="*", default=TASTES)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "d3po-benchmark")
    options = parser.parse_args()
    one_thread()
    print("| taste | picks | predicted | seed by seed | seconds of one core to fit |\n|---|---|---|---|---|")
    for taste, clicks in itertools.product(options.tastes, CLICKS):
        found, seconds = [], []
        for seed in SEEDS:
            for run in runs(options.cache, seed):
                picked(run, taste, clicks, taste)
                started = time.process_time()
                fitted = fit_judge(run)
                seconds.append(time.process_time() - started)
                fitted.reward()
                found.append(fitted.facts.accuracy)
        se = statistics.stdev(found) / len(found) ** 0.5
        each = " ".join(f"{accuracy:.2f}" for accuracy in found)
        mean = f"{statistics.mean(found):.3f} ± {se:.3f}"
        print(f"| {taste} | {clicks} | {mean} | {each} | {statistics.mean(seconds):.1f} |", flush=True)
    for clicks in CLICKS if options.random else ():
        z = []
        for seed in SEEDS:
            for run in runs(options.cache, seed):
                for number in range(options.random):
                    picked(run, f"random {number}", clicks, seed=number + 1000 * seed)
                    z.append(fit_judge(run, panel=Panel(frozenset({f"random {number}"}))).facts)
        used = sum(facts.usable for facts in z)
        print(
            f"Random picks in {clicks} groups: {used} of {len(z)} used; z {statistics.mean(f.z for f in z):+.2f} ± "
            f"{statistics.stdev(f.z for f in z):.2f}, highest {max(f.z for f in z):.2f}; predicted "
            f"{statistics.mean(f.accuracy for f in z):.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
