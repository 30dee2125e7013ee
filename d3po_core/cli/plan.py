"""Say before an evening whether a model fits: how much memory drawing, decoding and teaching take, and how long.

Nothing is loaded. The network is run once without values (shapes alone), and what is in memory at every moment is
counted. --memory 8 names the settings that fit a graphics card of 8 GB with the least loss. Times come from a measured
step: --measure loads the model and takes one.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import D3POError
from ..settings import LoraSettings, RewardSettings, SampleSettings, TrainSettings, replace
from . import common
from .flags import add_settings, number, settings_of

EXAMPLE = """  d3po plan --model sdxl --dtype bfloat16
  d3po plan --model my-model.safetensors --size 768x1024 --memory 12"""
OUT_OF_MEMORY = "Leave out --measure, which loads the model; the rest needs little."
SIZE = re.compile(r"(\d+)(?:x(\d+))?")


def add_arguments(parser: argparse.ArgumentParser, advanced: bool) -> None:
    group = parser.add_argument_group("model")
    group.add_argument(
        "--model",
        default="sd15",
        metavar="MODEL",
        help="sd15, sdxl, sd35-medium or flux-dev; a diffusers pipeline folder, a .safetensors checkpoint, or garden "
        "[sd15]",
    )
    group.add_argument("--base-config", metavar="FOLDER", help="for a checkpoint: a folder with its configuration")
    group.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), help="of the network [float32]")
    group.add_argument("--device", help="where --measure loads the model [the GPU if there is one]")
    group.add_argument(
        "--parts",
        choices=("all", "one"),
        default="all",
        help="all parts of the model in memory at once, as on the command line and in the Studio; or one, as in "
        "ComfyUI and Forge [all]",
    )
    group = parser.add_argument_group("the plan")
    group.add_argument("--size", metavar="SIDE", help="of a picture in pixels: 1024, or width x height as 768x1024")
    group.add_argument(
        "--memory",
        type=number(float, "--memory", 1, 10_000),
        metavar="GB",
        help="of a graphics card: name the settings that fit it",
    )
    group.add_argument("--measure", action="store_true", help="load the model and measure a step, for times")
    add_settings(parser, ("sample", "lora", "train"), advanced, without=("train.batch", "train.seed"))


def run(options: argparse.Namespace) -> int:
    common.be_quiet()
    sample = settings_of(options, SampleSettings, _model_defaults(options))
    sample = replace(sample, _sides(options.size)) if options.size else sample
    train, lora = settings_of(options, TrainSettings), settings_of(options, LoraSettings)
    reward = settings_of(options, RewardSettings)
    from ..models.loading import check_base_config
    from ..models.placement import devices_of
    from ..planning.planner import Planner
    from ..planning.words import fitting_lines, plan_lines, time_lines

    devices_of(options.device)
    if options.base_config:
        check_base_config(options.base_config)
    dtypes = [options.dtype] if options.dtype else ["float32", "bfloat16"]
    with _counting():
        planner = Planner(options.model, options.base_config, dtypes[0], options.parts == "all")
    planner.size(sample)
    if options.memory:
        lines = fitting_lines(planner, options.memory, sample, train, lora, dtypes)
    else:
        lines = plan_lines(planner, sample, train, lora, reward)
    for line in _counted(lines):
        print(line, flush=True)
    seconds = _measured(options, planner.dtype, sample, train) if options.measure else None
    print("\n".join(time_lines(planner, sample, train, seconds)))
    return 0


@contextmanager
def _counting() -> Iterator[None]:
    """Show at a terminal that work goes on; a network is run few times, too few for a bar."""
    shown = "Counting ..." if sys.stderr.isatty() else ""
    print(shown, end="\r" * bool(shown), file=sys.stderr, flush=True)
    try:
        yield
    finally:
        print(" " * len(shown), end="\r" * bool(shown), file=sys.stderr, flush=True)


def _counted(lines: Iterator[str]) -> Iterator[str]:
    """Yield the lines of a plan, showing while each is counted that work goes on."""
    while True:
        with _counting():
            line = next(lines, None)
        if line is None:
            return
        yield line


def _model_defaults(options: argparse.Namespace) -> dict[str, Any]:
    from ..embedded import GARDEN, GARDEN_DEFAULTS

    return GARDEN_DEFAULTS if options.model == GARDEN else {}


def _sides(size: str) -> dict[str, object]:
    """Return width and height of a size as it was written.

    Raises:
        D3POError: it is none.
    """
    match = SIZE.fullmatch(size.lower().replace(" ", ""))
    if match is None or not int(match[1]) or (match[2] and not int(match[2])):
        raise D3POError(f"--size is '{size}'.", "Write it in pixels, as 1024 or 768x1024 (width by height).")
    return {"width": int(match[1]), "height": int(match[2] or match[1])}


def _measured(
    options: argparse.Namespace, dtype: str, sample: SampleSettings, train: TrainSettings
) -> tuple[float, float]:
    """Load the model, and return the seconds of a step of drawing and of a row of teaching.

    Raises:
        D3POError: it cannot be loaded: a name of a known model has no weights.
    """
    from ..models import load_model
    from ..planning.loaded import seconds_per_step
    from ..planning.networks import NAMES

    if options.model in NAMES:
        raise D3POError(f"'{options.model}' is a kind of model, without weights.", "Name your model's file or folder.")
    model = load_model(options.model, base_config=options.base_config, dtype=dtype, device=options.device)
    return seconds_per_step(model, sample, train)
