"""A lock that dies with its process: two trainers on one run would overwrite each other's state.

The operating system holds the lock, so a killed process leaves none. What stands in the file (process, computer, start)
is for the message alone.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import D3POError
from .files import writing

if sys.platform == "win32":
    import msvcrt

    _FAR = 1 << 30  # Windows' locks forbid reading too, so the locked byte lies far behind the text

    def _try_lock(handle: int) -> None:
        os.lseek(handle, _FAR, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _try_lock(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def hold(path: Path, wait: float = 0.0) -> Iterator[None]:
    """Hold the lock file while inside. It is not re-entrant, not even within one process.

    Args:
        path: the lock file; it is made when missing and never deleted.
        wait: seconds to wait for another holder.

    Raises:
        D3POError: another holder has it; the message names its process, computer and start.
    """
    with writing(path.parent):
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        deadline = time.monotonic() + wait
        while True:
            try:
                _try_lock(handle)
                break
            except (BlockingIOError, PermissionError):
                if time.monotonic() >= deadline:
                    raise _held(path) from None
                time.sleep(0.02)
        who = {"pid": os.getpid(), "host": socket.gethostname(), "start": time.strftime("%Y-%m-%d %H:%M:%S")}
        os.lseek(handle, 0, os.SEEK_SET)
        os.write(handle, json.dumps(who).ljust(500).encode())  # always as long, so nothing of an older holder stays
        yield
    finally:
        os.close(handle)


def _held(path: Path) -> D3POError:
    try:
        who = json.loads(path.read_text())
        holder = f"process {who['pid']} on {who['host']}, since {who['start']}"
    except (OSError, ValueError, KeyError):  # the holder has just locked and not yet written
        holder = "another process"
    return D3POError(
        f"The run in {path.parent} is being trained already: {holder}.",
        "Wait until it has finished, or stop it.",
        "All picks are saved.",
    )
