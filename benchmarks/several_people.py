"""Several people, some of them unreliable: does it help to weigh them by how much they agree? On the embedded model.

    python -m benchmarks.several_people             3 panels, 8 tastes, 5 seeds (a quarter of an hour)
    python -m benchmarks.several_people --each 2    as many people look at each group

Five simulated people pick favourites among four pictures; as many of them as `--each` says, drawn at random, look at
each of 64 groups. A person of reliability 0.8 picks by the taste in 80% of the groups and at random in the others; one
of -1 picks what the taste likes least. A judge is fitted, as Teach fits it but to colours and edges alone, to what they
said of two thirds of the groups: with all people alike (*same*), weighed by their agreement on these groups
(*agreement*), and by the reliability that nobody can know (*known*). The figure is the share of pairs with the taste's
own favourite that it predicts right in the last third, which it has not seen. Nothing is trained.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from contextlib import closing
from pathlib import Path

import numpy as np
from torch import Tensor

from benchmarks.any_taste import Case, pool
from benchmarks.garden import one_thread
from benchmarks.tastes import TASTES
from d3po_core.picks import Pick, pairs, weighted
from d3po_core.rewards.description import described
from d3po_core.rewards.features import STATISTICS, get_features
from d3po_core.rewards.judge import fit
from d3po_core.run import Run
from d3po_core.run.agreement import Table, reliability
from d3po_core.run.run import read_images

GROUPS, CANDIDATES, SEEDS = 64, 4, range(5)
PANELS = {
    "all careful": (0.95, 0.85, 0.75, 0.6, 0.6),
    "one at random, one contrary": (0.9, 0.75, 0.6, 0.0, -1.0),
    "two at random, one contrary": (0.9, 0.7, 0.0, 0.0, -1.0),
}
Said = tuple[int, int, int]
"""A person's number, a group's, and the favourite."""


def picked(scores: np.ndarray, panel: tuple[float, ...], each: int, rng: np.random.Generator) -> list[Said]:
    """Return what people of these reliabilities pick, by the taste's scores (G, C)."""
    said = []
    for group, values in enumerate(scores):
        for who in rng.permutation(len(panel))[:each].tolist():
            by_taste = rng.random() < abs(panel[who])
            best = (values if panel[who] > 0 else -values).argmax() if by_taste else rng.integers(len(values))
            said.append((who, group, int(best)))
    return said


def by_agreement(said: list[Said], people: int) -> list[float]:
    """Return each person's reliability by their agreement with the others, which every group shows."""
    who, groups, best = np.array(said).T
    levels = np.zeros((len(said), CANDIDATES))
    levels[np.arange(len(said)), best] = 1
    table = Table(tuple(map(str, range(people))), who, np.unique(groups, return_inverse=True)[1], levels)
    known = reliability(table)
    return [known[str(number)] for number in range(people)]


def right(
    features: list[Tensor], scores: np.ndarray, said: list[Said], weights: list[float], hidden: list[int]
) -> float:
    """Fit a judge and return the share of pairs with the favourite that it predicts right in hidden groups."""
    counts = np.bincount([who for who, _, _ in said], minlength=len(weights))
    mean = float(np.array(weights) @ counts / counts.sum()) or 1.0
    learnt, seen, known_by = {}, {}, {}
    for number, (who, group, best) in enumerate(said):
        if weights[who] > 0:
            name = str(number)
            learnt[name] = weighted(pairs(Pick("favourite", (best,)), CANDIDATES), weights[who] / mean)
            seen[name], known_by[name] = features[group], [group] * CANDIDATES
    kind = get_features(STATISTICS)
    fitted = fit(seen, learnt, kind.scales, related=known_by)
    found = []
    for group in hidden:
        judged = ((features[group] - fitted.mean) @ (fitted.weights / fitted.std)).numpy()
        best = int(scores[group].argmax())
        found.append(float(np.mean([judged[best] > judged[c] for c in range(CANDIDATES) if c != best])))
    return statistics.mean(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--each", type=int, default=3, help="people who look at each group")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "d3po-benchmark")
    options = parser.parse_args()
    one_thread()
    found: dict[tuple[str, str], list[float]] = {}
    for seed in SEEDS:
        with closing(Run.open(pool(options.cache, Case("", seed)))) as run:
            groups = run.groups.select()[:GROUPS]
            by_id = described(run, [group.id for group in groups], get_features(STATISTICS))
            features = [by_id[group.id] for group in groups]
            images = [(read_images(run, group), [group.prompt] * group.candidates) for group in groups]
        for number, taste in enumerate(TASTES.values()):
            scores = np.stack([taste(*each).numpy() for each in images])
            order = np.random.default_rng(seed).permutation(GROUPS).tolist()
            hidden, shown = order[: GROUPS // 3], set(order[GROUPS // 3 :])
            for name, panel in PANELS.items():
                rng = np.random.default_rng([seed, number])
                said = [each for each in picked(scores, panel, options.each, rng) if each[1] in shown]
                ways = {
                    "same": [1.0] * len(panel),
                    "agreement": by_agreement(said, len(panel)),
                    "known": [max(0.0, each) for each in panel],
                }
                for way, weights in ways.items():
                    share = right(features, scores, said, weights if any(weights) else ways["same"], hidden)
                    found.setdefault((name, way), []).append(share)
    print(f"{options.each} of 5 people look at each group; {len(SEEDS)} seeds x {len(TASTES)} tastes.\n")
    print("| panel | same | agreement | known | agreement - same |\n|---|---|---|---|---|")
    for name in PANELS:
        cells = [f"{statistics.mean(found[name, way]):.3f}" for way in ("same", "agreement", "known")]
        gained = [b - a for a, b in zip(found[name, "same"], found[name, "agreement"], strict=True)]
        error = statistics.stdev(gained) / len(gained) ** 0.5
        print(f"| {name} | {' | '.join(cells)} | {statistics.mean(gained):+.3f} ± {error:.3f} |")


if __name__ == "__main__":
    main()
