"""What a host can do for the gallery besides showing images: draw, teach, stop. The core's default can do nothing.

Also how far a piece of its work is, and how long that will still take.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

from ..app.loras import NO_COPIES, go_on
from ..app.runs import train_settings
from ..errors import D3POError
from ..run import Run
from ..run.panel import Panel
from ..run.picks import Counts
from ..settings import TrainSettings
from ..training.methods import needs_recording


class Actions:
    """A host that only shows groups; hosts override what they can do.

    `draw`, `teach` and `stop` only request the work and return at once.
    """

    def can(self, run: Run) -> list[str]:
        """Return the names of the actions that the page may offer now: "draw", "teach", "stop", "decide"."""
        return []

    def training(self, run: Run) -> TrainSettings | None:
        """Return how this run is trained; None if that is not known yet."""
        return train_settings(run)

    def counts(self, run: Run, who: str = "") -> Counts:
        """Count groups and picks for a person; those that the run is trained on are usable."""
        settings = self.training(run)
        return run.picks.counts(
            who, needs_recording(None if settings is None else settings.method), Panel.of(run, settings).people
        )

    def untaught(self, run: Run) -> int:
        """Count groups judged since the last round was begun that the run is trained on."""
        settings = self.training(run)
        return run.picks.untaught(
            needs_recording(None if settings is None else settings.method), Panel.of(run, settings).people
        )

    def seen(self, run: Run) -> None:
        """Note that a page shows this run, so that drawing ahead for it is worthwhile."""

    def work(self, run: Run) -> Mapping[str, object] | None:
        """Return the work in progress for this run, as a `WorkState`, to which hosts may add; None if there is none."""
        return None

    def problem(self, run: Run) -> D3POError | None:
        """Return the last error, until other work is requested; None if there is none."""
        return None

    def draw(self, run: Run, groups: int) -> None:
        """Draw this many more groups."""
        raise NotImplementedError

    def teach(self, run: Run) -> None:
        """Train a round from the picks, then prepare its blind check."""
        raise NotImplementedError

    def stop(self, run: Run) -> None:
        """Stop the work in progress, and keep its results so far."""
        raise NotImplementedError

    def decide(self, run: Run, round: int, decision: str, strength: float) -> None:
        """Apply what a person decided after a blind check.

        Args:
            run: with the check.
            round: number of the round that is meant.
            decision: "keep" its LoRA, make it "gentler", or go "back" to it.
            strength: of the LoRA, below 1 for "gentler".
        """
        raise NotImplementedError

    def copies(self, run: Run) -> Mapping[Path, str]:
        """Return LoRA files of the host's, some of which may be copies of this run's; see `app.loras.way_on`."""
        return NO_COPIES

    def go_on(self, run: Run) -> None:
        """Let a run go on whose LoRA file is missing or damaged; see `app.loras.go_on`."""
        go_on(run, self.copies(run))


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
        kind: "loading", "drawing", "checking", "teaching", "blind", "importing", "stopping" or "idle".
        of: how many steps it has, 0 while that is unknown.
        text: a sentence to show beside it; "" for none.
    """

    def __init__(self, kind: str, of: int, text: str = "") -> None:
        self.kind, self.text = kind, text
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
            "text": self.text,
            "left_s": None if seconds is None else round(seconds, 1),
        }
