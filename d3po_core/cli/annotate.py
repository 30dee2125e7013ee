"""Pick in every group that has no pick yet, with a program as a stand-in for a person.

A scorer looks at the images only and always picks what it likes best. --flip makes it err now and then, --random makes
it blind: what is learnt from random picks is a measure of how much training drifts by itself.

Or import and export picks. --as names the form that --export writes: d3po (the D3PO authors' JSON, of one person),
jsonl (everybody's picks, flags and masks), dataset (a folder with pictures, for Hugging Face's datasets) or
label-studio (a folder for Label Studio's template of pairs). --import takes all of them, and Label Studio's JSON.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import D3POError
from ..rewards import REWARDS, get_reward
from . import common
from .flags import number

if TYPE_CHECKING:
    from ..rewards.auto_pick import AutoPickProgress
    from ..run import Run

EXAMPLE = """  d3po annotate --run my-taste --scorer warmth
  d3po annotate --run my-taste --scorer garden-size --kind ranking --flip 0.15
  d3po annotate --run my-taste --import feedback.json --who anna
  d3po annotate --run my-taste --export for-label-studio --as label-studio"""
OUT_OF_MEMORY = "Close other programs; picking needs little."
RANDOM = "random"
FORMS = ("d3po", "jsonl", "dataset", "label-studio")


def add_arguments(parser: argparse.ArgumentParser, advanced: bool) -> None:
    common.add_run(parser)
    likes = "\n".join(f"  {name}: Likes {reward.likes}" for name, reward in REWARDS.items())
    group = parser.add_argument_group("a scorer picks", description=likes)
    group.add_argument(
        "--scorer",
        metavar="NAME",
        help="which one, a function of your own as my_rewards.py:likes, or a weighted sum: 0.5*warmth + contrast",
    )
    group.add_argument("--random", action="store_true", help="pick at random instead")
    group.add_argument("--kind", choices=("favourite", "ranking"), default="favourite", help="what to say [favourite]")
    group.add_argument(
        "--flip",
        type=number(float, "--flip", 0, 1),
        default=0.0,
        metavar="X",
        help="share of mistaken picks, 0 to 1 [0]",
    )
    group.add_argument("--limit", type=number(int, "--limit", 1), metavar="N", help="pick in at most N groups")
    group.add_argument("--seed", type=number(int, "--seed"), default=0, metavar="N", help="of mistakes and chance [0]")
    group = parser.add_argument_group("files")
    group.add_argument(
        "--import",
        dest="import_",
        metavar="FILE",
        help="a feedback JSON, a folder of them, picks.jsonl, a data set's judgements.jsonl, or Label Studio's JSON",
    )
    group.add_argument("--export", metavar="PATH", help="write picks to a file, or to a new folder")
    group.add_argument("--as", dest="form", choices=FORMS, help="in which form [jsonl for PATH.jsonl, else d3po]")
    group.add_argument("--who", metavar="NAME", help="whose picks these are [the scorer's, or the file's name]")


def run(options: argparse.Namespace) -> int:
    from ..app.tournament import call_up
    from ..exchange.lines import import_file
    from ..rewards.auto_pick import auto_pick
    from ..run import Run

    if not (options.scorer or options.random or options.import_ or options.export):
        raise D3POError("Nobody was named to pick.", f"Choose --scorer {', '.join(REWARDS)}, or --random, or --import.")
    if options.scorer and options.random:
        raise D3POError("A scorer picks, or chance.", "Choose --scorer or --random.")
    reward = get_reward(options.scorer, own_code=True) if options.scorer else None
    run = Run.open(options.run)
    form = _form(options)
    if options.import_:
        print(import_file(run, options.import_, options.who))
    if reward or options.random:
        who = options.who or (reward.name if reward else RANDOM)
        picking = auto_pick(run, reward, who, options.kind, options.flip, options.limit, options.seed, call_up)
        count, mistakes = show_picking(picking)
        print(f"Picked in {count} groups{f', {mistakes} of them mistaken' if mistakes else ''}.")
    if options.export:
        print(_export(run, Path(os.path.expanduser(options.export)), form, options.who))
    else:
        print(f"The run has picks in {len(run.groups.select(picked=True))} of {len(run.groups.select())} groups.")
        print(f"Next: d3po train --run {common.quoted(options.run)}")
    return 0


def _form(options: argparse.Namespace) -> str:
    """Return the form to export in, once it is sure that it can be written.

    Raises:
        D3POError: the file is there, the folder is not empty, or the form is of everybody's picks and one is named.
    """
    from ..run.files import check_new_file

    if not options.export:
        if options.form:
            raise D3POError("--as is for --export, which is missing.", "Name where to write with --export.")
        return ""
    path = Path(os.path.expanduser(options.export))
    form: str = options.form or ("jsonl" if path.suffix.lower() == ".jsonl" else "d3po")
    if form != "d3po" and options.who and not (options.scorer or options.random or options.import_):
        raise D3POError(f"The form {form} holds everybody's picks.", "Leave out --who, or use --as d3po.")
    if form in ("d3po", "jsonl"):
        check_new_file(path)
    elif path.is_file() or (path.is_dir() and any(path.iterdir())):
        raise D3POError(f"{path} is there already.", "Name a folder that is new or empty.")
    return form


def _export(run: Run, path: Path, form: str, who: str | None) -> str:
    """Write picks in a form, and return in words what was written, and what could not be."""
    from ..exchange.authors_json import export_picks
    from ..exchange.label_studio import export_tasks
    from ..exchange.lines import export_dataset, pick_lines
    from ..run.files import replace

    if form == "dataset":
        return f"Wrote {export_dataset(run, path)} pictures and their picks to {path}."
    if form == "label-studio":
        written = export_tasks(run, path, pick_lines(run))
        return f"Wrote {written}: {path}. Paste config.xml as the labelling interface, then import the tasks."
    if form == "jsonl":
        replace(path, pick_lines(run).encode())
        return f"Wrote {path}."
    lost = export_picks(run, path, _annotator(run, who))
    note = f" {lost} pairs between middle places of rankings could not be expressed." if lost else ""
    return f"Wrote {path}.{note}"


def show_picking(picking: Iterator[AutoPickProgress]) -> tuple[int, int]:
    """Show a bar while a program picks; return the numbers of picks and of the mistakes among them."""
    done = mistakes = 0
    with common.ProgressBar("Picking") as bar:
        for judged in picking:
            done, mistakes = judged.done, judged.mistakes
            bar.show(done, judged.total)
    return done, mistakes


def _annotator(run: Run, who: str | None) -> str:
    common.check_who(run, who)
    people = sorted({judgement.who for judgement in run.picks.judgements()})
    if who is None and len(people) > 1:
        raise D3POError(f"Several people picked in this run: {', '.join(people)}.", "Say whose picks with --who.")
    return who if who is not None else people[0] if people else ""
