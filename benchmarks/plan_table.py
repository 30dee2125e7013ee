"""The tables of docs/memory.md, counted: `python -m benchmarks.plan_table`.

What work takes for each known model at two sizes, and the settings that fit cards of 8, 12 and 24 GB, by `d3po plan`.
Nothing is loaded or measured, so any machine prints the same; it takes some minutes.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

from d3po_core.app.cost import gigabytes
from d3po_core.planning.fitting import PRESET_CARDS, fit, least_memory
from d3po_core.planning.networks import NAMES
from d3po_core.planning.planner import Planner
from d3po_core.settings import PUBLISHED, LoraSettings, RewardSettings, SampleSettings, TrainSettings
from d3po_core.settings import replace as with_values

DTYPE = "bfloat16"
SHARES = (1.0, 0.75)
"""Sides of pictures, in native ones."""
TRAIN, LORA = TrainSettings(), LoraSettings()
ONE_BY_ONE = RewardSettings(micro_batch=1, tile=256)
WORK = "| model | pixels | weights | draw 1 | draw 4 | decode | teach | again | published | reward |"
FITS = "| model | parts | 8 GB | 12 GB | 24 GB |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=list(NAMES), help="some of them")
    options = parser.parse_args()
    print(_table_head(WORK))
    for name in options.models:
        planner = Planner(name, dtype=DTYPE)
        for share in SHARES:
            print(work_row(planner, share), flush=True)
    print("\n" + _table_head(FITS))
    for name in options.models:
        for together in (True, False):
            print(fit_row(Planner(name, dtype=DTYPE, together=together)), flush=True)


def _table_head(line: str) -> str:
    return line + "\n|" + "---|" * (line.count("|") - 1)


def work_row(planner: Planner, share: float) -> str:
    """Return the row of a model at a share of its native size."""
    height, width = (int(side * share) for side in planner.size(SampleSettings()))
    sample = SampleSettings(width=width, height=height)
    again = replace(TRAIN, checkpointing=True)
    published = replace(with_values(TRAIN, PUBLISHED["train"]), checkpointing=True)
    sizes = [
        sum(planner.weights.values()),
        planner.drawing(replace(sample, batch=1))[0],
        planner.drawing(replace(sample, batch=4))[0],
        planner.drawing(replace(sample, batch=4))[1],
        planner.teaching(sample, TRAIN, LORA).peak,
        planner.teaching(sample, again, LORA).peak,
        planner.teaching(sample, published, with_values(LORA, PUBLISHED["lora"])).peak,
        planner.by_reward(sample, ONE_BY_ONE, LORA).peak,
    ]
    return " | ".join([f"| {planner.name}", f"{width} by {height}", *map(gigabytes, sizes)]) + " |"


def fit_row(planner: Planner) -> str:
    """Return the row of the settings with which a model fits each card."""
    cells = [_cell(planner, memory) for memory in PRESET_CARDS]
    return " | ".join([f"| {planner.name}", "all" if planner.together else "one", *cells]) + " |"


def _cell(planner: Planner, memory: int) -> str:
    fitting = fit(planner, memory, SampleSettings(), TRAIN, LORA, (DTYPE,))
    if fitting is None:
        least = least_memory(planner, SampleSettings(), TRAIN, LORA)
        return f"nothing; {gigabytes(least.peak)} GB at least"
    flags = [flag for flag in fitting.flags() if not flag.startswith("--dtype")]
    return f"`{' '.join(flags)}`" if flags else "the defaults"


if __name__ == "__main__":
    main()
