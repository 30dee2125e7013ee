"""Copy a round's LoRA to where you need it, under a name of your choice.

The file loads in ComfyUI, A1111, Forge and diffusers like any other LoRA. No file is ever overwritten, because those
programs remember LoRAs by name.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import D3POError
from . import common

if TYPE_CHECKING:
    from ..run import Run

EXAMPLE = """  d3po export --run my-taste --to ComfyUI/models/loras
  d3po export --run my-taste --round 1 --to my-taste.safetensors"""
OUT_OF_MEMORY = "Close other programs; this needs little."


def add_arguments(parser: argparse.ArgumentParser, advanced: bool) -> None:
    common.add_run(parser)
    common.add_round(parser)
    parser.add_argument("--to", required=True, metavar="PATH", help="a folder, or a file ending in .safetensors")


def run(options: argparse.Namespace) -> int:
    from ..run import Run

    print(f"Wrote {export(Run.open(options.run), options.to, options.round)}")
    return 0


def export(run: Run, to: str | Path, round: str | None = None) -> Path:
    """Copy a LoRA and return the path of the copy.

    Args:
        run: that taught it.
        to: a folder, where the LoRA gets the run's name and the round's number, or a file. What ends as a file of
            another kind does is a folder only if it exists, or with / at its end.
        round: number of the round; None takes the newest.

    Raises:
        D3POError: there is no such LoRA, the file exists or is of another kind, or it cannot be written.
    """
    from ..app.loras import copy_to, lora_of, publish

    lora, target = lora_of(run, round or 0), Path(os.path.expanduser(to))
    if target.suffix.lower() == ".safetensors" and not target.is_dir():
        return copy_to(lora, target)
    if target.suffix[1:].isalpha() and not target.is_dir() and not str(to).endswith(("/", os.sep)):
        raise D3POError(
            f"{target} does not end in .safetensors.", "Name such a file, or a folder with / at the end of its name."
        )
    return publish(lora, target)
