"""The host's process: its progress bar, its memory, and the user's wish to stop."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import comfy.model_management
import comfy.utils
import torch

from ...d3po_core.app.cost import within_memory

T = TypeVar("T")


def check_interrupted() -> None:
    """Raise the host's interruption if the user asked for it."""
    comfy.model_management.throw_exception_if_processing_interrupted()


def is_interrupted() -> bool:
    """Return whether the user asked what is being done to stop, and it has not yet."""
    return bool(comfy.model_management.processing_interrupted())


def interrupt() -> None:
    """Ask what is being done to stop."""
    comfy.model_management.interrupt_current_processing()


def total_memory(device: torch.device) -> int:
    """Return the bytes of a device: a graphics card's own, or the computer's."""
    return int(comfy.model_management.get_total_memory(device))


def within_host_memory(work: Callable[[], T], do: str) -> T:
    """Train as `work` does, and return what it returns; the host knows best what a lack of memory is.

    Raises:
        D3POError: memory ran out; the host then gives back all that it holds.
    """

    def free() -> None:
        comfy.model_management.unload_all_models()
        comfy.model_management.soft_empty_cache()

    return within_memory(
        work,
        do,
        "Your picks and what was learnt so far are saved.",
        what="There is not enough memory to teach this model.",
        free=free,
        recognises=comfy.model_management.is_oom,
    )


class ProgressBar:
    """The host's progress bar; every step is a place where the host may interrupt."""

    def __init__(self) -> None:
        self._bar: comfy.utils.ProgressBar | None = None

    def at(self, done: int, total: int) -> None:
        """Show how many steps are done. Raises the host's interruption if the user asked for it."""
        check_interrupted()
        if self._bar is None or self._bar.total != total:
            self._bar = comfy.utils.ProgressBar(total)
        self._bar.update_absolute(done, total)
