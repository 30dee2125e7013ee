"""A plan in words and tables."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from ..app.cost import duration, gigabytes
from ..diffusion.rollout import make_plan
from ..settings import (
    PUBLISHED,
    LoraSettings,
    RewardSettings,
    SampleSettings,
    TrainSettings,
    useful_epochs,
)
from ..settings import (
    replace as with_values,
)
from ..training.methods import METHODS
from .fitting import Fitting, card_for, fit, least_memory, memory_for
from .planner import ALLOWANCE, Planner

PARTS = {"unet": "network", "transformer": "network", "vae": "VAE"}
TILE = 256
"""Pixels of a side, of the line that decodes in tiles."""


@dataclass(frozen=True)
class Line:
    """One kind of work: what it is, how it is asked for, and its peak in bytes."""

    work: str
    peak: int

    def __str__(self) -> str:
        card = card_for(self.peak)
        return f"{self.work:58}{gigabytes(self.peak):>7}   {f'{card} GB' if card else 'no usual card'}"


def plan_lines(
    planner: Planner, sample: SampleSettings, train: TrainSettings, lora: LoraSettings, reward: RewardSettings
) -> Iterator[str]:
    """Yield the plan of a model as a table, each line as soon as it is counted."""
    height, width = planner.size(sample)
    where = "all parts in memory at once" if planner.together else "one part in memory at a time"
    head = f"{planner.name}, {width} by {height} pixels, {planner.dtype}, {where}"
    title = f"{'':58}{'GB':>7}   fits a card of"
    yield from (head, "", title)
    yield from map(str, work_lines(planner, sample, train, lora, reward))
    yield from ("", _weights(planner), _note())


def work_lines(
    planner: Planner, sample: SampleSettings, train: TrainSettings, lora: LoraSettings, reward: RewardSettings
) -> Iterator[Line]:
    """Count all kinds of work, each at its least and as the settings ask, one after the other."""
    one = replace(sample, batch=1)
    yield Line("reading a prompt", planner.encoding())
    yield Line("drawing a picture at a time (--batch 1)", planner.drawing(one)[0])
    at_once = min(sample.batch, sample.groups * sample.candidates)
    if at_once > 1:
        yield Line(f"drawing {at_once} at once (--batch {sample.batch})", planner.drawing(sample)[0])
    yield Line("decoding", max(planner.drawing(each)[1] for each in {one, sample}))
    for name, how, layers in _taught(train, lora):
        rows = how.micro_batch or 1
        yield Line(f"{name}, --micro-batch {rows}", planner.teaching(sample, how, layers).peak)
    followed = replace(reward, micro_batch=reward.micro_batch or 1)
    for tile in dict.fromkeys([followed.tile, TILE]):
        tiled = f", --tile {tile}" if tile else ""
        peak = planner.by_reward(sample, replace(followed, tile=tile), lora).peak
        yield Line(f"following a reward ({reward.variant}){tiled}, --micro-batch {followed.micro_batch}", peak)


def _taught(train: TrainSettings, lora: LoraSettings) -> list[tuple[str, TrainSettings, LoraSettings]]:
    """Return the ways to teach that a plan shows: as set, with activations computed again, and as published."""
    published = with_values(train, {**PUBLISHED["train"]}) if train.method == "d3po" else None
    ways = [(f"teaching ({train.method})", train, lora)]
    if not train.checkpointing:
        ways.append(("  with --checkpointing", replace(train, checkpointing=True), lora))
    if published and published != train:
        attention = with_values(lora, PUBLISHED["lora"])
        ways.append(("  and --preset published", replace(published, checkpointing=True), attention))
    return ways


def _weights(planner: Planner) -> str:
    sizes: dict[str, int] = {}
    for name, size in planner.weights.items():
        part = PARTS.get(name, "text encoders")
        sizes[part] = sizes.get(part, 0) + size
    return "Weights in it: " + ", ".join(f"{part} {gigabytes(size)}" for part, size in sizes.items()) + "."


def _note() -> str:
    return (
        f"Counted, in GB of 1,024 MB. Cards are taken to keep {ALLOWANCE:g} GB for the driver, its libraries and "
        "kernels (an allowance)."
    )


def fitting_lines(
    planner: Planner,
    memory: float,
    sample: SampleSettings,
    train: TrainSettings,
    lora: LoraSettings,
    dtypes: Sequence[str],
) -> Iterator[str]:
    """Yield lines with the settings that fit a card, or what would."""
    fitting = fit(planner, memory, sample, train, lora, dtypes)
    if fitting is None:
        yield f"Nothing fits {memory:g} GB. {_what_would(planner, sample, train, lora)}"
        return
    flags = " ".join(fitting.flags()) or "the defaults"
    yield f"{planner.name} fits {memory:g} GB with: {flags}"
    yield (
        f"  reading a prompt {gigabytes(fitting.reading)} GB; "
        f"drawing {gigabytes(fitting.drawing)} GB, {fitting.sample.batch} at once; "
        f"decoding {gigabytes(fitting.decoding)} GB; "
        f"teaching {gigabytes(fitting.teaching)} GB, {fitting.rows} row{'s' * (fitting.rows > 1)} at once"
    )


def _what_would(planner: Planner, sample: SampleSettings, train: TrainSettings, lora: LoraSettings) -> str:
    least: Fitting = least_memory(planner, sample, train, lora)
    card = card_for(least.peak)
    needs = f"{memory_for(least.peak):.1f} GB ({f'a card of {card} GB' if card else 'no usual card'})"
    height, width = planner.size(sample)
    return f"At {width} by {height} it takes {needs}, with: {' '.join(least.flags())}."


def time_lines(
    planner: Planner, sample: SampleSettings, train: TrainSettings, seconds: tuple[float, float] | None
) -> list[str]:
    """Return how much work a first round is: evaluations of the network, and the time if a step was measured.

    Args:
        planner: of the model.
        sample, train: how it is drawn and taught.
        seconds: of one image's step of drawing, and of one row's forward and backward pass; None if not measured.
    """
    plan = make_plan(planner.model.denoiser, sample)
    images = sample.groups * sample.candidates
    steps = images * sample.steps
    each = 2 if planner.guided_twice and sample.guidance_scale != 1 else 1
    rows = training_rows(sample, train, plan.trained)
    times = (
        ["", ""]
        if seconds is None
        else [f", about {duration(n * s)}" for n, s in zip((steps, rows), seconds, strict=True)]
    )
    return [
        f"Drawing {sample.groups} groups of {sample.candidates}: {steps:,} steps of a picture, "
        f"{each * steps:,} evaluations of the network{times[0]}.",
        f"Teaching from them: {rows:,} rows at most, each a forward and a backward pass{times[1]}.",
    ]


def training_rows(sample: SampleSettings, train: TrainSettings, recorded: int) -> int:
    """Return how many rows of (image, step) a round trains on at most.

    Args:
        sample, train: how it is drawn and taught.
        recorded: trained steps of a picture.
    """
    if METHODS[train.method].rows == "images":
        return train.epochs * sample.groups * sample.candidates * train.draws
    steps = min(train.trained_steps or recorded, recorded)
    return useful_epochs(train, recorded) * sample.groups * sample.candidates * steps


def short_plan(source: str, sample: SampleSettings, train: TrainSettings, lora: LoraSettings) -> str:
    """Return what drawing and teaching take at least, in a sentence.

    Args:
        source: see `networks.unloaded_model`; in float32, as the Studio loads it.
        sample, train, lora: how it is drawn and taught.

    Raises:
        D3POError: there is no such model, or it cannot draw in that size.
    """
    try:
        written = os.stat(source).st_mtime_ns
    except (OSError, ValueError):  # a kind of model, or none
        written = 0
    return _short_plan(source, written, sample, train, lora)


@lru_cache(maxsize=16)
def _short_plan(source: str, written: int, sample: SampleSettings, train: TrainSettings, lora: LoraSettings) -> str:
    """Return the sentence of `short_plan`; a path that was written anew, at another time in ns, is counted anew."""
    planner = Planner(source)
    drawing, decoding = planner.drawing(sample)
    taught = planner.teaching(sample, train, lora).peak
    return (
        f"Memory: drawing {gigabytes(max(drawing, decoding))} GB, teaching {gigabytes(taught)} GB at least "
        f"(counted; a graphics card needs about {ALLOWANCE:g} GB more)."
    )
