"""A progress bar on stderr, in plain characters; where nobody looks on, a line now and then instead."""

from __future__ import annotations

import shutil
import sys
import time

WIDTH = 24
QUIET_SECONDS = 10.0


class Bar:
    """Shows how far something has come.

    Args:
        label: what is being done.
    """

    def __init__(self, label: str) -> None:
        self.label = label
        self._begin = self._told = time.monotonic()
        self._live = sys.stderr.isatty()
        self._shown = False

    def show(self, done: int, total: int, note: str = "") -> None:
        """Draw the bar anew, with the time that is left."""
        now = time.monotonic()
        if not self._live and done < total and now - self._told < QUIET_SECONDS:
            return
        self._told, self._shown = now, True
        left = (now - self._begin) / max(done, 1) * (total - done)
        clock = f"{left / 60:.0f} min left" if left >= 90 else f"{left:.0f} s left" if done < total else "done"
        filled = WIDTH * done // max(total, 1)
        line = f"{self.label} [{'#' * filled}{'-' * (WIDTH - filled)}] {done} of {total}, {clock}{note and ', ' + note}"
        if self._live:
            columns = shutil.get_terminal_size().columns - 1
            print("\r" + line[:columns].ljust(columns), end="", file=sys.stderr, flush=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leave the line, so that what follows begins on its own."""
        if self._live and self._shown:
            print(file=sys.stderr, flush=True)
            self._shown = False
