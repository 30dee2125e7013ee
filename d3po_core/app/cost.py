"""What work takes, time and room on disk, for people to read before it begins; and what is done if memory runs out.

Training halves its micro-batches by itself first (`training.preference_optimizer`, `training.reward_trainer`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from ..errors import D3POError
from ..settings import SampleSettings, TrainSettings, useful_epochs

if TYPE_CHECKING:
    from ..training.reports import TeachingMemory

T = TypeVar("T")
BYTES_PER_PIXEL = 5.0
"""Of an image on disk: a PNG takes about 2 bytes a pixel, its recorded steps about 2.5 with SD's latents (six steps of
three tensors in float16, a sixteenth of an element a pixel)."""
BACKWARD = 3.0
"""Forward and backward pass together, in forward passes."""


def drawing_cost(groups: int, settings: SampleSettings, pixels: int, seconds_per_image: float | None) -> str:
    """Return what drawing will take, in words: "8 groups of 4 are 32 images, about 4 min, 90 MB on disk".

    Args:
        groups: number of groups to be drawn.
        settings: how they are drawn.
        pixels: of one image.
        seconds_per_image: measured last time, None if never.
    """
    images = groups * settings.candidates
    megabytes = images * pixels * BYTES_PER_PIXEL / 1e6
    time = "" if seconds_per_image is None else f", about {duration(images * seconds_per_image)}"
    return f"{groups} groups of {settings.candidates} are {images} images{time}, {max(1, megabytes):.0f} MB on disk"


def training_cost(groups: int, images: int, steps: int, settings: TrainSettings, seconds_per_row: float | None) -> str:
    """Return what training will take at most, in words: "64 groups of 256 pictures, about 6 min at most".

    Args:
        groups: number of groups to learn from.
        images: in them.
        steps: recorded steps of each image.
        settings: how it is trained.
        seconds_per_row: of one forward pass of the network with guidance, None if not known.
    """
    text = f"{groups} groups of {images} pictures"
    if seconds_per_row is None:
        return text
    rows = useful_epochs(settings, steps) * images * min(settings.trained_steps or steps, steps)
    each = seconds_per_row if settings.guided_loss else seconds_per_row / 2
    return f"{text}, about {duration(rows * each * BACKWARD)} at most"


def teaching_memory(memory: TeachingMemory | None) -> str:
    """Return what a round takes in memory, in a sentence, "" where it is not known.

    Text encoders and VAE, which may be on the same device, are no part of it.
    """
    if memory is None:
        return ""
    parts = f"network {gigabytes(memory.network)}, LoRA {gigabytes(memory.lora)}"
    rows = f"{memory.rows} row{'s' * (memory.rows > 1)} at once of {gigabytes(memory.row)}"
    return f"Teaching, the network and its LoRA take about {gigabytes(memory.total)} GB ({parts}, {rows})."


def gigabytes(size: float) -> str:
    """Write bytes in GB of 1,024 MB, as cards are sold: two digits of what is not more than nothing."""
    amount = size / 2**30
    return f"{amount:.1f}" if amount >= 1 else f"{amount:.2f}"


def duration(seconds: float) -> str:
    """Write a time as people say it: "80 s" or "4 min"."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error is torch's, whose class differs by version and device, or the processor's allocator's."""
    kind, message = type(error).__name__.lower(), str(error).lower()
    return isinstance(error, MemoryError) or "outofmemory" in kind or "not enough memory" in message


def within_memory(
    work: Callable[[], T],
    do: str,
    safe: str,
    *,
    what: str = "There is not enough memory for this.",
    free: Callable[[], object] = lambda: None,
    recognises: Callable[[Exception], bool] = is_out_of_memory,
) -> T:
    """Run a piece of work and return what it returns.

    Args:
        work: the work.
        do, safe, what: as for `D3POError`, if memory runs out.
        free: called if memory runs out: releases what is not needed.
        recognises: returns whether an error is a lack of memory.

    Raises:
        D3POError: memory ran out. Other errors pass.
    """
    try:
        return work()
    except Exception as error:
        if not recognises(error):
            raise
    free()  # only here, where the error's traceback holds no tensors any more
    raise D3POError(what, do, safe)
