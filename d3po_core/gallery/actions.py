"""What a host can do for the gallery besides showing images: draw, teach, stop. The core's default can do nothing."""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import D3POError
from ..run import Run
from ..run.picks import Counts
from ..settings import TrainSettings
from ..training.methods import needs_recording

MIN_PICKS = 16
"""Number of picks from which training is worthwhile."""


class Actions:
    """A host that only shows groups; hosts override what they can do.

    `draw`, `teach` and `stop` only request the work and return at once.
    """

    def can(self, run: Run) -> list[str]:
        """Return the names of the actions that the page may offer now: "draw", "teach", "stop", "decide"."""
        return []

    def method(self, run: Run) -> str | None:
        """Return the method that this run is trained with; None if that is not known yet."""
        return str(run.settings.get("train", {}).get("method", TrainSettings.method))

    def counts(self, run: Run, who: str = "") -> Counts:
        """Count groups and picks for a person; those that the run's method can learn from are usable."""
        return run.picks.counts(who, needs_recording(self.method(run)))

    def untaught(self, run: Run) -> int:
        """Count groups judged since the last round was begun that the run's method can learn from."""
        return run.picks.untaught(needs_recording(self.method(run)))

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
