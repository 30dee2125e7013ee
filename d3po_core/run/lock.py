"""A lock that ends with its process: two trainers on one run would overwrite each other's state.

The operating system holds the lock, so a killed process leaves none. The facts about its holder (process, computer,
start) are in a file beside it, for the message alone.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import D3POError
from .files import writing

HOLDER = ".holder.json"
"""End of the name of the file that says who holds the lock. The lock file itself is emptied by older versions of
filelock."""
POLL_SECONDS = 0.02


@contextmanager
def hold(path: Path, wait: float = 0.0) -> Iterator[None]:
    """Hold the lock file while inside. It is not re-entrant, not even within one process.

    Args:
        path: the lock file; it is made when missing.
        wait: seconds to wait for another holder.

    Raises:
        D3POError: another holder has it (the message names its process, computer and start), the disk is full or the
            folder cannot be written to.
    """
    lock = FileLock(path, thread_local=False)  # a new one each time: filelock's own objects are re-entrant
    with writing(path.parent):
        path.parent.stat()  # filelock would make a missing folder again, even that of a run that was moved
        try:
            lock.acquire(timeout=wait, poll_interval=POLL_SECONDS)
        except Timeout:  # an OSError too, so it must not reach `writing`
            raise _held(path) from None
    holder = path.with_name(path.name + HOLDER)
    try:
        with suppress(OSError):  # on a full disk the lock must work all the same: it guards the freeing of space
            holder.write_text(json.dumps(_this_process()), encoding="utf-8")
        yield
    finally:
        with suppress(OSError):  # before the release: afterwards it may be the next holder's
            holder.unlink()
        lock.release()


def _this_process() -> dict[str, str | int]:
    return {"pid": os.getpid(), "host": socket.gethostname(), "start": time.strftime("%Y-%m-%d %H:%M:%S")}


def _held(path: Path) -> D3POError:
    try:
        facts = json.loads(path.with_name(path.name + HOLDER).read_text(encoding="utf-8"))
        holder = f"process {facts['pid']} on {facts['host']}, since {facts['start']}"
    except (OSError, ValueError, KeyError, TypeError):  # the holder has just taken the lock and not yet written
        holder = "another process"
    return D3POError(
        f"The run in {path.parent} is being trained already: {holder}.",
        "Wait until it has finished, or stop it.",
        "All picks are saved.",
    )
