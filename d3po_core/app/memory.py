"""What is done where memory runs out, in every front end: one sentence that says what to lower, and nothing lost.

Training halves its micro-batches by itself first (`training.preference_optimizer`, `training.reward_trainer`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from ..errors import D3POError

T = TypeVar("T")


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
    """Return what a piece of work returns.

    Args:
        work: what to do.
        do, safe, what: as for `D3POError`, if memory runs out.
        free: called then: gives back what is not needed.
        recognises: tells a lack of memory from other errors.

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
