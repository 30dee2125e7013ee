"""What a host can do for the gallery besides showing pictures: draw, teach, stop. The core's default can do nothing."""

from __future__ import annotations

from typing import Any

from ..errors import D3POError
from ..run import Run
from ..run.picks import Counts
from ..settings import TrainSettings
from ..training.methods import needs_recording

MIN_PICKS = 16
"""Picks that are worth teaching from."""


class Actions:
    """A host that only shows; hosts override what they can do.

    `draw`, `teach` and `stop` only ask for the work and return at once.
    """

    def can(self, run: Run) -> list[str]:
        """Names of the actions that the page may offer now: "draw", "teach", "stop", "decide"."""
        return []

    def method(self, run: Run) -> str | None:
        """The method that this run is taught with; None if that is not known yet."""
        return str(run.settings.get("train", {}).get("method", TrainSettings.method))

    def counts(self, run: Run, who: str = "") -> Counts:
        """How much was done and is to do, for a person; of use is what the run's method can learn from."""
        return run.picks.counts(who, needs_recording(self.method(run)))

    def untaught(self, run: Run) -> int:
        """Groups judged since the last round was begun that the run's method can learn from."""
        return run.picks.untaught(needs_recording(self.method(run)))

    def seen(self, run: Run) -> None:
        """Somebody has this taste before them: it is worth drawing ahead for it."""

    def work(self, run: Run) -> dict[str, Any] | None:
        """What is being done for this run: kind, done, of, left_s (seconds, None if unknown), queued, text."""
        return None

    def problem(self, run: Run) -> D3POError | None:
        """What went wrong last, until something is asked for again."""
        return None

    def draw(self, run: Run, groups: int) -> None:
        """Draw more groups."""
        raise NotImplementedError

    def teach(self, run: Run) -> None:
        """Teach a round from the picks, then prepare its blind check."""
        raise NotImplementedError

    def stop(self, run: Run) -> None:
        """Stop what is being done, keeping what was done."""
        raise NotImplementedError

    def decide(self, run: Run, round: int, decision: str, strength: float) -> None:
        """What a person decided after a blind check: "keep", "gentler" (at a strength below 1) or "back" to a round."""
        raise NotImplementedError
