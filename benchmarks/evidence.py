"""Is a taste that is there found, and is none found where there is none? By how many picks, on the embedded model.

    python -m benchmarks.evidence                  8 tastes and 8 random pickers, 5 seeds each (five minutes)
    python -m benchmarks.evidence --random 20      more random pickers

Each seed has a run of its own with 64 groups of four pictures; favourites are picked in the first 16, 24, 32 or all of
them. Nothing is trained. *Refused*: nothing of the taste would be taught. *Accepted*: more than a fifth of full
strength would be taught to somebody who clicks at random. *Seconds* is what a page waits for its "Predicts x% of your
hidden picks" (on a thread of its own), of statistics alone, once every picture has them.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from contextlib import closing
from functools import cache
from pathlib import Path

import torch

from benchmarks.any_taste import Case, pool
from benchmarks.garden import one_thread
from benchmarks.tastes import TASTES
from d3po_core.diffusion.rollout import generator
from d3po_core.models import load_model
from d3po_core.picks import Pick, pairs
from d3po_core.rewards.description import described, note_network, seen_in
from d3po_core.rewards.features import NETWORK, STATISTICS, get_features
from d3po_core.rewards.judge import above_chance, predicted_right, share_of
from d3po_core.run import Run
from d3po_core.run.run import read_images

CLICKS, SEEDS, ACCEPTED = (16, 24, 32, 64), range(5), 0.2


def evidence(run: Run, favourites: list[int]) -> tuple[float, float, float]:
    """Return the share of favourites in the first groups that Teach's judge predicts, z, and the gallery's seconds."""
    groups = run.groups.select()[: len(favourites)]
    kind = seen_in(run, [group.id for group in groups], [NETWORK])
    features = described(run, [group.id for group in groups], kind)
    of_all = {
        group.id: pairs(Pick("favourite", (best,)), group.candidates)
        for group, best in zip(groups, favourites, strict=True)
    }
    held_out = {group.id: of_all.pop(group.id) for group in groups if group.held_out}
    right = predicted_right(features, of_all, held_out, kind.scales)
    kind = get_features(STATISTICS)
    features = described(run, [group.id for group in groups], kind)
    started = time.process_time()
    predicted_right(features, of_all, held_out, kind.scales)
    predicted_right(features, of_all, {}, kind.scales, folds=2)  # whether more picks would help
    return float(right.mean()), above_chance(right), time.process_time() - started


@cache
def favourites(folder: Path, taste: str, seed: int) -> list[int]:
    """Return the favourite of every group of a run; a taste that is none picks at random."""
    run, best = Run.open(folder), []
    for number, group in enumerate(run.groups.select()[: CLICKS[-1]]):
        scores = torch.rand(group.candidates, generator=generator(seed, taste, number))
        if taste in TASTES:
            scores = TASTES[taste](read_images(run, group), [group.prompt] * group.candidates)
        best.append(int(scores.argmax()))
    run.close()
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--random", type=int, default=8, help="random pickers for each seed")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "d3po-benchmark")
    options = parser.parse_args()
    one_thread()
    model = load_model("garden")
    for seed in SEEDS:
        with closing(Run.open(pool(options.cache, Case("", seed)))) as run:
            note_network(run, model.denoiser)
    print(f"| picker | {' | '.join(f'{n} picks: predicted, z, taught' for n in CLICKS)} |\n|---|---|---|---|---|")
    shares: dict[tuple[bool, int], list[float]] = {}
    seconds: list[float] = []
    for picker in [*TASTES, *(f"random {number}" for number in range(options.random))]:
        cells = []
        for clicks in CLICKS:
            found = []
            for seed in SEEDS:
                folder = pool(options.cache, Case("", seed))
                run = Run.open(folder)
                found.append(evidence(run, favourites(folder, picker, seed)[:clicks]))
                run.close()
            of_seeds = [share_of(z) for _, z, _ in found]
            shares.setdefault((picker in TASTES, clicks), []).extend(of_seeds)
            seconds += [took for _, _, took in found] if clicks == CLICKS[-1] else []
            right, z, _ = (statistics.mean(column) for column in zip(*found, strict=True))
            cells.append(f"{right:.2f}, {z:+.1f}, {' '.join(f'{share:.2g}' for share in of_seeds)}")
        print(f"| {picker} | {' | '.join(cells)} |", flush=True)
    print("\n| picks | tastes refused | random pickers accepted |\n|---|---|---|")
    for clicks in CLICKS:
        there, none = shares[True, clicks], shares.get((False, clicks), [])
        print(
            f"| {clicks} | {sum(share == 0 for share in there)} of {len(there)} | "
            f"{sum(share > ACCEPTED for share in none)} of {len(none)} |"
        )
    print(f"\nSeconds of one core at {CLICKS[-1]} picks: {statistics.median(seconds):.2f}, at most {max(seconds):.2f}.")


if __name__ == "__main__":
    main()
