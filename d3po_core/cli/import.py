"""Bring pictures that exist already into a run, with which were preferred, for methods that learn from pictures alone.

--from takes a folder with winners/ and losers/ in it: pictures of the same name and prompt are a pair, the others are
liked or disliked each alone. Or a .jsonl file of pairs, rankings or scores, one a line:

  {"prompt": "a lake", "winner": "a.png", "loser": "b.png"}
  {"prompt": "a lake", "images": ["a.png", "b.png", "c.png"], "ranking": [2, 0, 1]}
  {"caption": "a lake", "jpg_0": "a.jpg", "jpg_1": "b.jpg", "label_0": 1, "label_1": 0}

Or a data set that the Studio exported. Any other folder of pictures is taken for pictures that nobody has judged: the
gallery shows those of one prompt and size two at a time, and d3po info --ranking lists them afterwards. A prompt that
is missing is read from a .txt of the same name beside the picture, or from what ComfyUI, A1111 and Forge wrote into it.
"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import D3POError
from ..settings import SampleSettings, replace
from . import common

if TYPE_CHECKING:
    from ..diffusion.image_model import Encoder
    from ..importing import Imported, JudgedImages
    from ..run import Run

EXAMPLE = """  d3po import --run my-taste --from my-pictures --model my-model.safetensors
  d3po import --run my-taste --from pairs.jsonl --who anna"""
OUT_OF_MEMORY = "Scale the pictures down: each is encoded whole."
MAX_LINES = 20
"""Of what was left out, printed."""


def add_arguments(parser: argparse.ArgumentParser, advanced: bool) -> None:
    common.add_run(parser)
    parser.add_argument("--from", dest="source", required=True, metavar="PATH", help="a folder, or a .jsonl file")
    parser.add_argument("--who", default="imported", metavar="NAME", help="whose picks these are [imported]")
    common.add_model(parser)


def run(options: argparse.Namespace) -> int:
    from ..app.runs import import_outcome, train_settings
    from ..importing import read_source
    from .sample import new_run

    old = common.open_if_there(options.run)
    images = read_source(options.source)  # before a model is loaded for nothing
    model = common.load(options, old)
    made = not os.path.lexists(options.run)
    run = old or new_run(options, model, replace(SampleSettings(), common.model_defaults(options, old)), "taste")
    try:
        imported = _bring(run, images, model, options.who)
    except (D3POError, KeyboardInterrupt):
        if old is None and not run.groups.select():  # a run without anything in it would have to be deleted by hand
            run.close()
            _delete(run.folder, itself=made)
        raise
    message, lines = import_outcome(imported, train_settings(run).method, MAX_LINES)
    print(message)
    print("".join(f"  {line}\n" for line in lines), end="")
    return 0


def _delete(folder: Path, itself: bool) -> None:
    """Delete all that a new run has put into a folder, which was empty; and that, unless a person had made it."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    if itself:
        folder.rmdir()


def _bring(run: Run, images: JudgedImages, model: Encoder, who: str) -> Imported:
    """Import, showing a progress bar, and return the last report."""
    from ..importing import import_pictures

    with common.ProgressBar("Importing") as bar:
        for report in import_pictures(run, images, model, who):
            bar.show(report.done, report.total)
    return report
