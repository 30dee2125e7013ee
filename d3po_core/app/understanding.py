"""How well a person's picks are understood while they still pick: a judge is fitted beside, never on a pick's own path.

A page asks for the state of a taste after every pick. It gets what was known last, and a thread finds out anew if picks
have changed since.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ..errors import D3POError
from ..rewards.features import get_features
from ..rewards.judge import above_chance, enough, fit, group_features, preferences, share_of
from ..run import Run

HELPS = 0.01
"""Share of hidden picks, predicted right from four fifths of the others and not from half of them, that says that more
picks would help."""


@dataclass(frozen=True)
class Understanding:
    """What a judge makes of a run's picks.

    Attributes:
        right: share of hidden picks predicted right; chance is 0.5.
        groups: number of groups that were predicted.
        share: of what can be learnt that this evidence allows.
        more: whether more picks would help.
    """

    right: float
    groups: int
    share: float
    more: bool


def understand(run: Run) -> Understanding | None:
    """Fit a judge to a run's picks and predict all of them, each without having seen it; None with too few picks.

    Raises:
        D3POError: an image is missing.
    """
    training, held_out = preferences(run)
    if not enough(training, held_out):
        return None
    extractor = get_features("statistics")
    features = {group_id: group_features(run, group_id, extractor) for group_id in (*training, *held_out)}
    right = fit(features, training, held_out, extractor.scales).right
    half = fit(features, training, {}, extractor.scales, folds=2).right
    share, known = share_of(above_chance(right)), float(right[: len(half)].mean())
    return Understanding(float(right.mean()), len(right), share, share < 1 or known - float(half.mean()) > HELPS)


class Watch:
    """Keeps what is understood of every run, by its folder."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[int, Understanding | None]] = {}
        self._busy: set[Path] = set()
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, "d3po-judge")

    def latest(self, run: Run) -> Understanding | None:
        """Return what was known last, at once, and begin to find out anew if picks have changed."""
        revision = run.picks.revision
        with self._lock:
            seen, known = self._known.get(run.folder, (-1, None))
            if seen != revision and run.folder not in self._busy:
                self._busy.add(run.folder)
                self._thread.submit(self._find_out, run, revision)
        return known

    def _find_out(self, run: Run, revision: int) -> None:
        try:
            found = understand(run)
        except (D3POError, OSError):  # the page shows what else is wrong with the run
            found = None
        finally:
            with self._lock:
                self._busy.discard(run.folder)
        with self._lock:
            self._known[run.folder] = revision, found


watch = Watch()
"""The one of this process."""
