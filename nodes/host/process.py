"""The host's process: its progress bar, and the user's wish to stop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import comfy.model_management
import comfy.utils

from ...d3po_core.errors import D3POError

T = TypeVar("T")


def check_interrupted() -> None:
    """Raise the host's interruption if the user asked for it."""
    comfy.model_management.throw_exception_if_processing_interrupted()


def interrupt() -> None:
    """Ask what is being done to stop."""
    comfy.model_management.interrupt_current_processing()


def is_out_of_memory(error: Exception) -> bool:
    """Whether the host takes an error for a lack of memory."""
    return bool(comfy.model_management.is_oom(error))


def within_memory(work: Callable[[], T], do: str, safe: str) -> T:
    """What a piece of work returns.

    Args:
        work: what to do.
        do, safe: as for `D3POError`, if memory runs out; the host then frees what it can.

    Raises:
        D3POError: it ran out.
    """
    try:
        return work()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    free_memory()  # only here, where the error's traceback holds no tensors any more
    raise D3POError("There is not enough memory to teach this model.", do, safe)


def total_memory(device: Any) -> int:
    """Bytes of a device: a graphics card's own, or the computer's."""
    return int(comfy.model_management.get_total_memory(device))


def free_memory() -> None:
    """Let the host give back what it holds and does not need."""
    comfy.model_management.unload_all_models()
    comfy.model_management.soft_empty_cache()


class ProgressBar:
    """The host's progress bar; every step is a place where the host may interrupt."""

    def __init__(self) -> None:
        self._bar: Any = None

    def at(self, done: int, total: int) -> None:
        """So many steps are done. Raises the host's interruption if the user asked for it."""
        check_interrupted()
        if self._bar is None or self._bar.total != total:
            self._bar = comfy.utils.ProgressBar(total)
        self._bar.update_absolute(done, total)
