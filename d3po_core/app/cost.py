"""What work will take, told before it begins."""

from __future__ import annotations

from ..settings import SampleSettings, TrainSettings

BYTES_PER_PIXEL = 5.0
"""Of an image on disk: a PNG takes about 2 bytes a pixel, its recorded steps about 2.5 with SD's latents (six steps of
three tensors in float16, a sixteenth of an element a pixel)."""
BACKWARD = 3.0
"""Forward and backward pass together, in forward passes."""


def drawing_cost(groups: int, settings: SampleSettings, pixels: int, seconds_per_image: float | None) -> str:
    """What drawing will take, in words: "8 groups of 4 are 32 images, about 4 min, 90 MB on disk".

    Args:
        groups: to be drawn.
        settings: how.
        pixels: of one image.
        seconds_per_image: as it was last time, None if there was none.
    """
    images = groups * settings.candidates
    room = images * pixels * BYTES_PER_PIXEL / 1e6
    spent = "" if seconds_per_image is None else f", about {duration(images * seconds_per_image)}"
    return f"{groups} groups of {settings.candidates} are {images} images{spent}, {max(1, room):.0f} MB on disk"


def training_cost(groups: int, rows: int, settings: TrainSettings, seconds_per_row: float | None) -> str:
    """What teaching will take at most, in words: "64 picks of 448 recorded steps, about 6 min at most".

    Args:
        groups: to learn from.
        rows: recorded steps of all their images.
        settings: how.
        seconds_per_row: of one forward pass of the network with guidance, None if that is not known.
    """
    passes = settings.epochs * (2 if settings.cross_check else 1)  # the two checks have half of the picks each
    text = f"{groups} picks of {rows} recorded steps"
    if seconds_per_row is None:
        return text
    each = seconds_per_row if settings.guided_loss else seconds_per_row / 2
    return f"{text}, about {duration(passes * rows * each * BACKWARD)} at most"


def duration(seconds: float) -> str:
    """A time as people say it."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
