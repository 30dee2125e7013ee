"""How far something has come, and how long it will still take."""

from __future__ import annotations

import time
from typing import Any


class Progress:
    """Of one piece of work, read by other threads while it goes on.

    Args:
        kind: "loading", "drawing", "checking", "teaching" or "blind".
        of: how many steps it has, 0 while that is unknown.
    """

    def __init__(self, kind: str, of: int) -> None:
        self.kind = kind
        self._done, self._of = 0, of
        self._began = time.monotonic()

    def at(self, done: int, of: int | None = None) -> None:
        """So many steps are done."""
        if (of is not None and of != self._of) or done < self._done:
            self._began = time.monotonic()  # another piece of the same kind
        self._done, self._of = done, self._of if of is None else of

    def seconds_each(self) -> float:
        """What a step has taken so far, on average; at least one must be done."""
        return (time.monotonic() - self._began) / self._done

    def shown(self, queued: int) -> dict[str, Any]:
        """As the gallery tells it."""
        spent, left = time.monotonic() - self._began, self._of - self._done
        seconds = spent / self._done * left if self._done and left >= 0 else None
        return {
            **{"kind": self.kind, "done": self._done, "of": self._of, "queued": queued, "text": ""},
            "left_s": None if seconds is None else round(seconds, 1),
        }
