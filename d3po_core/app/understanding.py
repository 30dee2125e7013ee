"""How well a person's picks are understood while they still pick: a judge is fitted beside, never on a pick's own path.

A page asks for the state of a taste after every pick. It gets what was known last, and a thread finds out anew if picks
have changed since.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ..errors import D3POError
from ..rewards.description import described
from ..rewards.features import STATISTICS, get_features
from ..rewards.judge import above_chance, enough, predicted_right, preferences, related_groups, share_of
from ..run import Run
from ..run.panel import EVERYBODY, Panel
from ..settings import TrainSettings

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


def understand(run: Run, panel: Panel = EVERYBODY) -> Understanding | None:
    """Fit a judge to a run's picks and predict all of them, each without having seen it; None with too few picks."""
    training, held_out = preferences(run, panel)
    if not enough(training, held_out):
        return None
    kind = get_features(STATISTICS)  # the rest is known once Teach has been pressed
    features = described(run, [*training, *held_out], kind)
    training, held_out = ({name: of[name] for name in of if name in features} for of in (training, held_out))
    related = related_groups(run, training)
    right = predicted_right(features, training, held_out, kind.scales, related=related)
    half = predicted_right(features, training, {}, kind.scales, folds=2, related=related)
    if not (len(right) and len(half)):  # of a tournament in which all pictures have met each other
        return None
    share, known = share_of(above_chance(right)), float(right[: len(half)].mean())
    return Understanding(float(right.mean()), len(right), share, share < 1 or known - float(half.mean()) > HELPS)


class Watch:
    """Keeps what is understood of every run, by its id."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[object, Understanding | None]] = {}
        self._busy: set[str] = set()
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, "d3po-judge")

    def latest(self, run: Run, settings: TrainSettings | None = None) -> Understanding | None:
        """Return what was known last, at once, and begin to find out anew if picks have changed, or whose count."""
        revision = run.picks.revision, settings and (settings.people, settings.people_weight)
        with self._lock:
            seen, known = self._known.get(run.run_id, (None, None))
            if seen != revision and run.run_id not in self._busy:
                self._busy.add(run.run_id)
                self._thread.submit(self._find_out, run, revision, settings)
        return known

    def _find_out(self, run: Run, revision: object, settings: TrainSettings | None) -> None:
        found = None
        try:
            found = understand(run, Panel.of(run, settings))
        except (D3POError, RuntimeError):  # a closed or damaged run, or features that are no numbers
            pass
        finally:
            with self._lock:
                self._busy.discard(run.run_id)
                self._known[run.run_id] = revision, found


watch = Watch()
"""The one of this process."""
