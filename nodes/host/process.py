"""The host's process: its progress bar, its memory, and the user's wish to stop."""

from __future__ import annotations

import comfy.model_management
import comfy.utils
import torch


def check_interrupted() -> None:
    """Raise the host's interruption if the user asked for it."""
    comfy.model_management.throw_exception_if_processing_interrupted()


def interrupt() -> None:
    """Ask what is being done to stop."""
    comfy.model_management.interrupt_current_processing()


def is_out_of_memory(error: Exception) -> bool:
    """Return whether the host takes an error for a lack of memory."""
    return bool(comfy.model_management.is_oom(error))


def total_memory(device: torch.device) -> int:
    """Return the bytes of a device: a graphics card's own, or the computer's."""
    return int(comfy.model_management.get_total_memory(device))


def free_memory() -> None:
    """Let the host give back what it holds and does not need."""
    comfy.model_management.unload_all_models()
    comfy.model_management.soft_empty_cache()


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
