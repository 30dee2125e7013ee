"""A tournament of pictures that exist already: those of one prompt and size play against each other, two at a time.

Everything follows from what the run keeps, so it can be left and gone on with at any time and by several people, and a
pick that is taken back is played again. What is picked are pairs of finished pictures.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..picks import pairs
from ..run import Run
from ..run.matches import Entrant, Match
from .runs import next_round
from .swiss import Table

_calling = threading.Lock()
"""Held while matches are made: two pages at once must not both make the last ones."""


@dataclass(frozen=True)
class Pool:
    """Pictures of one prompt and size.

    Attributes:
        entrants: in the order in which they came.
        table: what was played among them, by their place in `entrants`.
    """

    entrants: list[Entrant]
    table: Table

    def add_matches(self, run: Run, count: int, rng: random.Random) -> int:
        """Make up to `count` more matches, and return how many there were to make."""
        made = 0
        for pair in self.table.call_up(count, rng):
            first, second = (self.entrants[each] for each in rng.sample(pair, 2))
            made += run.matches.add(first, second, next_round(run)) is not None
        return made


@dataclass(frozen=True)
class Progress:
    """How far a tournament is: matches that are over, that were made, and that there will be.

    Those passed over are over.
    """

    done: int
    made: int
    of: int

    @property
    def to_come(self) -> int:
        """Return how many matches are still to be made."""
        return self.of - self.made


@dataclass(frozen=True)
class Ranked:
    """A picture and how it has done.

    Attributes:
        place: 1 for the best of its prompt and size.
        won, played: judgements, of one person each; a match that was passed over or tied is played and not won.
        strength: in nats, see `Table.strengths`.
    """

    entrant: Entrant
    place: int
    won: int
    played: int
    strength: float


_known: dict[Path, tuple[tuple[int, int], Progress | None]] = {}
"""The progress of every run by its folder (a copy has the same id), with the pick revision and the number of imported
groups at which that was so: pages ask for it every few seconds."""


def progress(run: Run) -> Progress | None:
    """Return how far a run's tournament is; None where no pictures take part."""
    now = run.picks.revision, run.matches.count_groups()
    if now[1] == 0:
        return None
    if _known.get(run.folder, (None,))[0] != now:
        _known[run.folder] = now, _progress(run)
    return _known[run.folder][1]


def _progress(run: Run) -> Progress | None:
    entrants, matches = run.matches.entrants(), run.matches.all()
    if not entrants:
        return None
    to_come = sum(pool.table.to_come() for pool in _pools(entrants, matches, []))
    return Progress(sum(match.over for match in matches), len(matches), len(matches) + to_come)


def waiting(run: Run) -> int:
    """Return how many groups nobody has picked in or looks at, matches that are still to be made among them."""
    found = progress(run)
    return run.picks.counts("").fresh + (found.to_come if found else 0)


def call_up(run: Run, count: int, rng: random.Random | None = None) -> int:
    """Make up to `count` matches that nobody has seen, for a page to show, and return how many.

    Those prompts come first of which the least is known. There are fewer where the next match depends on one that is
    being looked at.
    """
    if count < 1 or not (entrants := run.matches.entrants()):
        return 0
    rng, made = rng or random.Random(), 0
    with _calling:
        matches = run.matches.all()
        pools = [pool for pool in _pools(entrants, matches, _wins(run, matches)) if pool.table.to_come()]
        for pool in sorted(pools, key=lambda each: (_share_made(each.table), rng.random())):
            # One of each prompt, so that prompts alternate; several where there are fewer prompts than matches.
            made += pool.add_matches(run, 1 if len(pools) >= count else count - made, rng)
            if made >= count:
                break
    return made


def standings(run: Run) -> list[list[Ranked]]:
    """Return the pictures of each prompt and size, best first; those that have played equally well as they came."""
    matches = run.matches.all()
    played = _played(run, matches)
    return [_ranked(pool, played) for pool in _pools(run.matches.entrants(), matches, _wins(run, matches))]


def _ranked(pool: Pool, played: Mapping[str, int]) -> list[Ranked]:
    strengths = pool.table.strengths()
    won = Counter(winner for winner, _ in pool.table.wins)
    order = sorted(range(pool.table.players), key=lambda player: -strengths[player])
    ranked = []
    for place, player in enumerate(order, 1):
        entrant = pool.entrants[player]
        ranked.append(Ranked(entrant, place, won[player], played[entrant.group_id], strengths[player]))
    return ranked


def _played(run: Run, matches: Iterable[Match]) -> Counter[str]:
    """Count the judgements on each entrant's matches, by its group's id."""
    entrants = {match.group_id: match.entrants for match in matches}
    judged = (entrants[each.group_id] for each in run.picks.judgements() if each.group_id in entrants)
    return Counter(entrant for both in judged for entrant in both)


def _share_made(table: Table) -> float:
    return len(table.met) / (len(table.met) + table.to_come())


def _wins(run: Run, matches: Iterable[Match]) -> list[tuple[str, str]]:
    """Return who won and who lost, as ids of entrants' groups, by everybody who judged."""
    entrants = {match.group_id: match.entrants for match in matches}
    wins = []
    for judgement in run.picks.judgements():
        if both := entrants.get(judgement.group_id):
            for pair in pairs(judgement.pick, 2, judgement.shown_order, judgement.flagged):
                wins.append((both[pair.winner], both[pair.loser]))
    return wins


def _pools(entrants: list[Entrant], matches: Iterable[Match], wins: Iterable[tuple[str, str]]) -> list[Pool]:
    """Return the pools of at least two, each with what was played in it."""
    members: dict[tuple[str, tuple[int, int]], list[Entrant]] = {}
    for entrant in entrants:
        members.setdefault((entrant.prompt, entrant.size), []).append(entrant)
    pools = [Pool(each, Table(len(each))) for each in members.values() if len(each) > 1]
    place = {entrant.group_id: (pool.table, i) for pool in pools for i, entrant in enumerate(pool.entrants)}
    for match in matches:
        table, first = place[match.entrants[0]]
        second = place[match.entrants[1]][1]
        table.met.add((min(first, second), max(first, second)))
        if not match.over:
            table.busy.update((first, second))
    for winner, loser in wins:
        table, number = place[winner]
        table.wins.append((number, place[loser][1]))
    return pools
