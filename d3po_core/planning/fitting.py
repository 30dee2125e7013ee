"""The settings with which a model fits a graphics card, at the least loss.

What costs nothing to speak of is tried first: bfloat16 in place of float32. Then what costs time: activations computed
again. Then what costs quality: a LoRA on fewer layers, and smaller pictures. How many pictures are drawn, and how many
rows are taught at once, costs hardly anything and is chosen last: as many as fit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ..settings import LoraSettings, SampleSettings, TrainSettings
from .planner import ALLOWANCE, GIB, Planner

CARDS = (2, 4, 6, 8, 12, 16, 24, 32, 48, 80, 141)
"""GiB of usual graphics cards."""
PRESET_CARDS = (2, 4, 6, 8, 12, 24)
"""Those that there are presets for."""
SMALLER = (1.0, 0.75, 0.5)
"""Sides of pictures that are tried, in native ones."""


@dataclass(frozen=True)
class Fitting:
    """Settings that fit, and what they take.

    Attributes:
        dtype: of network and text encoders.
        sample, train, lora: how it is drawn and taught.
        rows: of (image, step), in one backward pass.
        reading, drawing, decoding, teaching: peaks in bytes, weights included; of reading a prompt first.
    """

    dtype: str
    sample: SampleSettings
    train: TrainSettings
    lora: LoraSettings
    rows: int
    reading: int
    drawing: int
    decoding: int
    teaching: int

    @property
    def peak(self) -> int:
        """Return the most that any of the work takes, in bytes."""
        return max(self.reading, self.drawing, self.decoding, self.teaching)

    def flags(self) -> list[str]:
        """Return what differs from the defaults, as the command line takes it."""
        flags = [] if self.dtype == "float32" else [f"--dtype {self.dtype}"]
        if self.sample.width:
            flags.append(f"--width {self.sample.width} --height {self.sample.height}")
        if self.sample.batch != SampleSettings().batch:
            flags.append(f"--batch {self.sample.batch}")
        flags += ["--checkpointing"] * self.train.checkpointing
        flags += [f"--targets {self.lora.targets}"] * (self.lora.targets != "auto")
        return flags


def memory_for(peak: float) -> float:
    """Return the GiB that a card must have for a peak in bytes, up to the next tenth: what is written does fit."""
    return math.ceil(10 * (peak / GIB + ALLOWANCE)) / 10


def card_for(peak: float) -> int | None:
    """Return the smallest usual card that a peak in bytes fits, in GiB; None if there is none."""
    return next((card for card in CARDS if peak / GIB + ALLOWANCE <= card), None)


def fit(
    planner: Planner,
    memory: float,
    sample: SampleSettings,
    train: TrainSettings,
    lora: LoraSettings,
    dtypes: Sequence[str] = ("float32", "bfloat16"),
) -> Fitting | None:
    """Return the settings that fit a card, nearest to these ones; None if none do.

    Args:
        planner: of the model.
        memory: of the card, in GiB.
        sample, train, lora: as they should be. A size, checkpointing and targets that are set stay as they are.
        dtypes: those that may be used, best first.
    """
    most = (memory - ALLOWANCE) * GIB
    planners = [each for dtype in dtypes if (each := planner.with_dtype(dtype)).encoding() <= most]
    for sized in _sizes(planner, sample):
        drawn = {each.dtype: drawing for each in planners if (drawing := _drawing(each, sized, most))}
        for changed, layers in _ways(train, lora):
            for each in planners:
                if each.dtype not in drawn or each.teaching(sized, changed, layers).peak > most:
                    continue
                fitting, decoding, peak = drawn[each.dtype]
                taught = each.teaching(sized, changed, layers, memory)
                if taught.peak > most:  # what the trainer would try; it then takes fewer
                    taught = each.teaching(sized, changed, layers)
                peaks = (each.encoding(), peak, decoding, taught.peak)
                return Fitting(each.dtype, fitting, changed, layers, taught.rows, *peaks)
    return None


def least_memory(planner: Planner, sample: SampleSettings, train: TrainSettings, lora: LoraSettings) -> Fitting:
    """Return the settings that take the least memory at this size."""
    smallest = planner.with_dtype("bfloat16")
    one = replace(sample, batch=1)
    changed, layers = list(_ways(train, lora))[-1]
    drawing, decoding = smallest.drawing(one)
    taught = smallest.teaching(one, changed, layers)
    peaks = (smallest.encoding(), drawing, decoding, taught.peak)
    return Fitting(smallest.dtype, one, changed, layers, taught.rows, *peaks)


def _sizes(planner: Planner, sample: SampleSettings) -> Iterator[SampleSettings]:
    """Yield the settings in the sizes to try: the chosen one, or the native one and smaller ones."""
    yield sample
    if sample.width or sample.height:
        return
    unit, native = planner.model.unit, planner.size(sample)
    for share in SMALLER[1:]:
        height, width = (max(unit, int(side * share) // unit * unit) for side in native)
        yield replace(sample, height=height, width=width)


def _ways(train: TrainSettings, lora: LoraSettings) -> Iterator[tuple[TrainSettings, LoraSettings]]:
    """Yield the ways to teach, the best first."""
    for targets in [lora.targets] if lora.targets != "auto" else ["auto", "attention"]:
        for again in [True] if train.checkpointing else [False, True]:
            yield replace(train, checkpointing=again), replace(lora, targets=targets)


def _drawing(planner: Planner, sample: SampleSettings, most: float) -> tuple[SampleSettings, int, int] | None:
    """Return the settings with as many pictures at once as fit, and their peaks decoding and drawing; None if none."""
    batch = sample.batch
    while batch:
        tried = replace(sample, batch=batch)
        drawing, decoding = planner.drawing(tried)
        if max(drawing, decoding) <= most:
            return tried, decoding, drawing
        batch //= 2
    return None
