"""Fit a reward to the picks of a run: a program that likes what you like, for d3po draft and d3po annotate.

It takes seconds. How well it predicts groups that it has not seen is printed beside how consistent you are yourself; a
reward that does no better than chance is not written.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from ..errors import D3POError
from . import common

EXAMPLE = """  d3po reward --run my-taste --to my-taste.reward.safetensors
  d3po draft --run climbed --reward picks:my-taste.reward.safetensors"""
OUT_OF_MEMORY = "Close other programs, or leave out --features."


def add_arguments(parser: argparse.ArgumentParser, advanced: bool) -> None:
    common.add_run(parser)
    parser.add_argument("--to", required=True, metavar="FILE", help="a new file ending in .safetensors")
    parser.add_argument("--who", metavar="NAME", help="whose picks [everybody's]")
    parser.add_argument(
        "--features",
        default="statistics",
        metavar="FEATURES",
        help="what it sees of a picture: statistics (colours, edges, sizes), or clip:FOLDER with a CLIP model "
        "[statistics]",
    )


def run(options: argparse.Namespace) -> int:
    from ..rewards.features import get_features
    from ..rewards.judge import fit_judge, save_judge
    from ..run import Run
    from ..run.files import check_new_file
    from ..run.panel import EVERYBODY, Panel

    target = Path(os.path.expanduser(options.to))
    if target.suffix != ".safetensors":
        raise D3POError(f"The reward cannot be written to {target}.", "Name a file that ends in .safetensors.")
    if target.exists():
        raise D3POError(f"There is a file {target} already.", "Choose another name.")
    check_new_file(target)
    run = Run.open(options.run)
    common.check_who(run, options.who)
    panel = EVERYBODY if options.who is None else Panel(frozenset({options.who}))
    fitted = fit_judge(run, get_features(options.features), panel)
    save_judge(fitted, target)
    print(fitted.facts)
    print(f"Wrote {target}")
    print(f"Next: d3po draft --run OTHER-FOLDER --reward {common.quoted(f'picks:{target}')}")
    return 0
