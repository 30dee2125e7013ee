"""Tell what is in a run: model, groups, picks, rounds and what they learnt, and how much room it takes.

--free-space deletes the recorded trajectories of groups that finished rounds were taught with, which is nearly all of a
run's size. Images, picks and LoRA files stay; those groups can then no longer be trained again.
"""

from __future__ import annotations

import argparse
from collections import Counter
from typing import TYPE_CHECKING

from . import common
from .flags import number

if TYPE_CHECKING:
    from ..run import Group, Round, Run

EXAMPLE = """  d3po info --run my-taste
  d3po info --run my-taste --free-space --keep-rounds 1"""
OUT_OF_MEMORY = "Close other programs; this needs little."


def add_arguments(parser: argparse.ArgumentParser, advanced: bool) -> None:
    common.add_run(parser)
    group = parser.add_argument_group("room")
    group.add_argument("--free-space", action="store_true", help="delete what only retraining would need")
    group.add_argument(
        "--keep-rounds",
        type=number(int, "--keep-rounds", 0),
        default=0,
        metavar="N",
        help="but spare the last N rounds [0]",
    )


def run(options: argparse.Namespace) -> int:
    from ..run import Run

    run = Run.open(options.run)
    if options.free_space:
        print(run.space.free(options.keep_rounds))
        return 0
    for name, value in describe(run):
        print(f"{name + ':':9} {value}")
    return 0


def describe(run: Run) -> list[tuple[str, str]]:
    """Return what a person may want to know of a run, as names and values."""
    from ..run.space import readable

    groups, picks = run.groups.select(), run.picks.standing()
    kinds = Counter(stored.pick.kind for stored in picks)
    sizes = run.space.size()
    lines = [
        ("Run", f"{run.name}, in {run.folder}"),
        ("Model", run.model.get("source", "named by another program")),
        ("Prompts", str(len(run.prompts.all()))),
        ("Groups", _groups(groups)),
        ("Picks", ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in kinds.most_common()) or "none yet"),
    ]
    flags = Counter(flag.kind for flag in run.flags.standing())
    if flags:
        lines.append(("Flags", ", ".join(f"{count} {kind}" for kind, count in flags.most_common())))
    lines += [(f"Round {round.number}", _round(round)) for round in run.rounds.all()]
    parts = ", ".join(f"{readable(size)} {kind}" for kind, size in sizes.items() if kind != "total" and size)
    return [*lines, ("Size", f"{readable(sizes['total'])} ({parts})")]


def _groups(groups: list[Group]) -> str:
    counts = {
        "imported": sum(not group.recorded for group in groups),
        "held out": sum(group.held_out for group in groups),
        "freed": sum(group.freed for group in groups),
    }
    notes = [f"{number} {word}" for word, number in counts.items() if number]
    return f"{len(groups)} ({', '.join(notes)})" if notes else str(len(groups))


def _round(round: Round) -> str:
    if round.finished is None:
        return "unfinished; d3po train goes on with it"
    summary = round.summary
    share = f"{summary.guessed / summary.guessed_of:.0%} of hidden picks predicted, " if summary.guessed_of else ""
    win, kept = summary.win, summary.prompt_kept
    told = "" if win is None else f"{win:.0%} of new pictures preferred (expected), "
    told += "" if kept is None else f"{kept:.0%} of the prompt kept, "
    return f"{share}{told}strength {summary.strength * summary.lora_strength:.0%}, {round.lora_file}"
