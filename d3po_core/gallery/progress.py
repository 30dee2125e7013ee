"""How far a piece of work is, and how long it will still take."""

from __future__ import annotations

import time
from typing import TypedDict


class WorkState(TypedDict):
    """A piece of work as the gallery's page gets it.

    Attributes:
        kind: as in `WorkProgress`.
        done, of: steps done, and how many there are; 0 while that is unknown.
        queued: pieces of work that wait after this one.
        text: a sentence to show; empty if there is none.
        left_s: seconds until it is done; None while that is unknown.
    """

    kind: str
    done: int
    of: int
    queued: int
    text: str
    left_s: float | None


class WorkProgress:
    """The progress of one piece of work, read by other threads while it goes on.

    Args:
        kind: "loading", "drawing", "checking", "teaching", "blind", "importing" or "idle".
        of: how many steps it has, 0 while that is unknown.
    """

    def __init__(self, kind: str, of: int) -> None:
        self.kind = kind
        self._of, self._done = of, 0
        self._began = self._last = time.monotonic()
        self._before = 0  # steps that were done before `_began`, so that their duration is unknown

    def at(self, done: int, of: int | None = None) -> None:
        """Note that this many steps are done.

        Args:
            done: steps of the present piece of work.
            of: how many it has; None: as before.
        """
        of = self._of if of is None else of
        if self._done == 0 or done < self._done or of != self._of:  # the first step, or another piece of the same kind
            self._began, self._before = self._last, done - 1
        self._last, self._done, self._of = time.monotonic(), done, of

    def seconds_each(self) -> float:
        """Return how long a step has taken on average; at least one must be done."""
        return (self._last - self._began) / (self._done - self._before)

    def shown(self, queued: int) -> WorkState:
        """Return the present state.

        Args:
            queued: pieces of work that wait after this one.
        """
        left = self._of - self._done
        seconds = self.seconds_each() * left if self._done and left >= 0 else None
        return {
            "kind": self.kind,
            "done": self._done,
            "of": self._of,
            "queued": queued,
            "text": "",
            "left_s": None if seconds is None else round(seconds, 1),
        }
