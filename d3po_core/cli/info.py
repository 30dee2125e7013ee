"""Tell what is in a run: model, groups, picks, rounds and what they learnt, and how much room it takes.

--free-space deletes the recorded trajectories of groups that finished rounds were taught with, which is nearly all of a
run's size. Images, picks and LoRA files stay; those groups can then no longer be trained again.

--go-back lets an earlier round, or the original model, draw and be taught on. Where a round's LoRA file is missing or
damaged, --restore takes a copy of the file, and --go-on does without: it makes the file anew from the stronger one that
it was made from, or goes back to an earlier round. None of the three deletes anything.

--ranking lists the pictures of a tournament (see d3po import), best first.
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import D3POError
from . import common
from .flags import number

if TYPE_CHECKING:
    from ..run import Group, Round, Run

EXAMPLE = """  d3po info --run my-taste
  d3po info --run my-taste --free-space --keep-rounds 1
  d3po info --run my-taste --go-back base"""
DOES = ("--free-space", "--restore", "--go-on", "--go-back", "--ranking")
"""What is done in place of telling, one at a time."""
SOUND = "No LoRA file of this run is missing or damaged."
BACK = "The LoRA of round {} is back. Drawing and teaching go on from it."
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

    parser.add_argument("--ranking", action="store_true", help="list the pictures of a tournament, best first")
    group = parser.add_argument_group("rounds")
    group.add_argument("--go-back", metavar="ROUND", help="draw and teach on from this round, or from base")
    group.add_argument(
        "--go-on", action="store_true", help="go on without the LoRA file that is missing or damaged, as far as can be"
    )
    group.add_argument(
        "--restore", metavar="FILE", help="a copy of the LoRA file that is missing or damaged, to be used in its place"
    )


def run(options: argparse.Namespace) -> int:
    from ..run import Run

    _check_one(options)
    run = Run.open(options.run)
    if options.ranking:
        print("\n".join(_ranking(run)))
    elif options.free_space:
        print(run.space.free(options.keep_rounds))
    elif options.restore:
        print(_restore(run, Path(os.path.expanduser(options.restore))))
    elif options.go_on:
        print(_go_on(run))
    elif options.go_back:
        print(_go_back(run, options.go_back))
    else:
        for name, value in describe(run, options.run):
            print(f"{name + ':':9} {value}")
    return 0


def _check_one(options: argparse.Namespace) -> None:
    """Check that at most one thing is to be done.

    Raises:
        D3POError: it's several.
    """
    wanted = [flag for flag in DOES if getattr(options, flag.removeprefix("--").replace("-", "_"))]
    if len(wanted) > 1:
        raise D3POError(f"{' and '.join(wanted)} cannot be done in one call.", "Call d3po info once for each.")


def _restore(run: Run, copy: Path) -> str:
    """Bring a LoRA back from a copy, and return what was done.

    Raises:
        D3POError: none is missing or damaged, or this is no copy of it.
    """
    from ..app.loras import restore

    lost = run.rounds.lost()
    if lost is None:
        raise D3POError(SOUND, "There is nothing to restore.")
    restore(run, lost.round.number, copy)
    return BACK.format(lost.round.number)


def _go_on(run: Run) -> str:
    """Go on without a LoRA file, and return what was done.

    Raises:
        D3POError: none is missing or damaged, or a round is being trained.
    """
    from ..app.loras import go_on

    stopped = run.rounds.stopped()
    way = go_on(run)
    if way is None:
        raise D3POError(SOUND, "Draw or teach on.")
    if way.to == way.lost.round.number:
        return BACK.format(way.to)
    return _gone_back(way.to, anew=stopped is not None and run.rounds.stopped() is None)


def _ranking(run: Run) -> list[str]:
    """List the pictures of a tournament, prompt by prompt.

    Raises:
        D3POError: no pictures take part in one.
    """
    from ..app.tournament import standings

    lines = []
    for pool in standings(run):
        lines += [pool[0].entrant.prompt]
        lines += [f"  {each.place:3}. won {each.won} of {each.played}  {each.entrant.source}" for each in pool]
    if not lines:
        raise D3POError("There is no tournament in this run.", "Bring a folder of pictures with d3po import.")
    return lines


def _go_back(run: Run, name: str) -> str:
    """Let an earlier round draw and be taught on, and return what was done.

    Raises:
        D3POError: there is no such round, its file is missing or damaged, or a round is being trained.
    """
    from ..app.loras import policy_of

    policy = policy_of(run, name)
    return _gone_back(0 if policy == "base" else int(name), run.rounds.go_back(policy))


def _gone_back(to: int, anew: bool) -> str:
    begins = " The stopped round begins anew; what it had learnt is kept in its folder." if anew else ""
    return f"Drawing and teaching go on from {common.place(to)}; later rounds are kept.{begins}"


def describe(run: Run, folder: str) -> list[tuple[str, str]]:
    """Return what a person may want to know of a run in a folder, as names and values."""
    from ..app.loras import way_on
    from ..app.tournament import progress
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
    if (matches := progress(run)) is not None:
        lines.append(("Matches", f"{matches.done} of {matches.of} played"))
    flags = Counter(flag.kind for flag in run.flags.standing())
    if flags:
        lines.append(("Flags", ", ".join(f"{count} {kind}" for kind, count in flags.most_common())))
    if (overlap := run.leases.overlap) > 1:
        lines.append(("Overlap", f"every group is shown to {overlap} people"))
    if masks := run.masks.standing():
        lines.append(("Masks", f"{len(masks)} pictures painted on"))
    lines += _people(run)
    lines += [(f"Round {round.number}", _round(round)) for round in run.rounds.all()]
    way = way_on(run)
    if way is not None:
        lines.append(("Problem", f"{way.lost.what} {common.go_on(way, folder)}"))
    parts = ", ".join(f"{readable(size)} {kind}" for kind, size in sizes.items() if kind != "total" and size)
    return [*lines, ("Size", f"{readable(sizes['total'])} ({parts})")]


def _people(run: Run) -> list[tuple[str, str]]:
    """Return how much people agree, with each other and with themselves; nothing of what is not known."""
    from ..run.panel import agreement

    measured, again, lines = agreement(run), run.history.consistencies(), list[tuple[str, str]]()
    if measured is not None:
        text = f"two people chose the same in {measured.same:.0%} of {measured.groups} groups that several judged"
        text += f" (chance {measured.chance:.0%})"
        if measured.alpha is not None:
            text += f", Krippendorff's alpha {measured.alpha:.2f}"
        if measured.low is not None and measured.high is not None:
            text += f" (95%: {measured.low:.2f} to {measured.high:.2f})"
        lines.append(("Agreement", text))
    others = {person.who: person for person in measured.people} if measured else {}
    for who in sorted({*others, *again}):
        parts = []
        if one := others.get(who):
            parts.append(f"as the others in {one.same:.0%} of {one.groups} groups (chance {one.chance:.0%})")
        if who in again:
            parts.append("the same again in {} of {}".format(*again[who]))
        lines.append((f"  {who or 'no name'}", ", ".join(parts)))
    return lines


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
