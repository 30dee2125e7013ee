"""Several people: how much they agree in a run, and whose judgements a round learns from, and how much from each.

Everything that learns from picks, or counts what there is to learn from, asks a `Panel`: pairs, the judge, its
evidence, held-out groups, masks and the gallery's counts. So what is counted is what is learnt from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..errors import D3POError
from ..settings import TrainSettings, listed, names_in
from .agreement import Agreement, Table, measure, reliability, tabulate
from .picks import Judgement
from .run import Run

AGREEMENT = "agreement"


@dataclass(frozen=True)
class Panel:
    """The people that are learnt from.

    Attributes:
        people: their names; None for everybody.
        weights: how much a judgement of each counts, by name; 1 where none stands here.
    """

    people: frozenset[str] | None = None
    weights: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, run: Run, settings: TrainSettings | None) -> Panel:
        """Return whom a run is trained on by these settings; everybody where there are none.

        With `people_weight` "agreement" those who share groups with others count by `reliability` on these groups, 1 in
        the mean over all their judgements; those who share none count 1. Whoever would count 0 is left out. Names of
        people who have not picked yet are no error here, see `check_people`.
        """
        people = None if settings is None else names_in(settings.people)
        if settings is None or settings.people_weight != AGREEMENT:
            return EVERYBODY if people is None else cls(people)
        return _by_agreement(run, people)

    def __contains__(self, who: str) -> bool:
        return self.people is None or who in self.people

    def weight(self, who: str) -> float:
        """Return how much a judgement of this person counts."""
        return self.weights.get(who, 1.0) if who in self else 0.0

    def judgements(self, run: Run) -> list[Judgement]:
        """Return the judgements that stand of the people that are learnt from."""
        return [judgement for judgement in run.picks.judgements() if judgement.who in self]


EVERYBODY = Panel()


def check_people(run: Run, settings: TrainSettings) -> None:
    """Check that all people that are to be learnt from have picked.

    Raises:
        D3POError: a name is of nobody who has.
    """
    known = run.history.people()
    if unknown := sorted((names_in(settings.people) or frozenset()).difference(known)):
        there = (
            f"There are picks of {listed(known)}: name some of these, or leave it empty for all."
            if known
            else "Pick first."
        )
        raise D3POError(f"There are no picks of {listed(unknown)} in this run.", there, "Your picks are saved.")


def shared_table(run: Run, people: frozenset[str] | None = None) -> Table:
    """Return what people said of groups that several of them judged.

    Args:
        run: with picks.
        people: their names; None for everybody.
    """
    judgements = run.picks.judgements()
    return tabulate((each for each in judgements if people is None or each.who in people), run.groups.select())


_measured: dict[tuple[str, str], tuple[int, Agreement | None]] = {}
_weighed: dict[tuple[str, str, frozenset[str] | None], tuple[int, Panel]] = {}


def agreement(run: Run) -> Agreement | None:
    """Return how much people agree in a run, measured once for the same picks; None where no group has two judges."""
    revision = run.picks.revision
    copy = str(run.folder), run.run_id  # a copy of a run has the same id
    kept = _measured.get(copy)
    if kept is None or kept[0] != revision:
        kept = _measured[copy] = revision, measure(shared_table(run))
    return kept[1]


def _by_agreement(run: Run, people: frozenset[str] | None) -> Panel:
    """Return these people, weighed once for the same picks: the gallery asks for them at every click."""
    revision, key = run.picks.revision, (str(run.folder), run.run_id, people)
    kept = _weighed.get(key)
    if kept is None or kept[0] != revision:
        kept = _weighed[key] = revision, _weigh(run, people)
    return kept[1]


def _weigh(run: Run, people: frozenset[str] | None) -> Panel:
    """Return these people, each with the weight that their agreement with the others gives."""
    known = reliability(shared_table(run, people))
    counts = {name: len(run.picks.judgements(who=name)) for name in known}
    mean = sum(known[name] * count for name, count in counts.items()) / max(1, sum(counts.values()))
    if not mean:  # nobody shares a group with another, or all contradict each other
        return Panel(people)
    weights = {name: value / mean for name, value in known.items()}
    everybody = frozenset(run.history.people()) if people is None else people
    return Panel(frozenset(name for name in everybody if weights.get(name, 1.0) > 0), weights)
