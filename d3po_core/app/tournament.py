"""A tournament of pictures that exist already: those of one prompt and size play against each other, two at a time.

Everything follows from what the run keeps, so it can be left and gone on with at any time and by several people, and a
pick that is taken back is played again. What is picked are pairs of finished pictures.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass

from ..picks import pairs
from ..run import Run
from ..run.matches import Entrant, Match
from .runs import next_round
from .swiss import Table


@dataclass(frozen=True)
class Pool:
    """Pictures of one prompt and size.

    Attributes:
        entrants: in the order in which they came.
        table: what was played among them, by their place in `entrants`.
    """

    entrants: list[Entrant]
    table: Table

    def call_up(self, run: Run, rng: random.Random) -> bool:
        """Make one more match; return whether there was one to make."""
        made = self.table.call_up(1, rng)
        for pair in made:
            first, second = (self.entrants[each] for each in rng.sample(pair, 2))
            run.matches.add(first, second, next_round(run))
        return bool(made)


@dataclass(frozen=True)
class Progress:
    """How far a tournament is: matches that are over, that were made, and that there will be.

    Those passed over are over.
    """

    done: int
    made: int
    of: int


@dataclass(frozen=True)
class Ranked:
    """A picture and how it has done.

    Attributes:
        place: 1 for the best of its prompt and size.
        won, played: matches; one that was passed over or tied is played and not won.
        strength: in nats, see `Table.strengths`.
    """

    entrant: Entrant
    place: int
    won: int
    played: int
    strength: float


def progress(run: Run) -> Progress | None:
    """Return how far a run's tournament is; None where no pictures take part."""
    entrants, matches = run.matches.entrants(), run.matches.all()
    if not entrants:
        return None
    to_come = sum(pool.table.to_come() for pool in _pools(entrants, matches, []))
    return Progress(sum(match.over for match in matches), len(matches), len(matches) + to_come)


def call_up(run: Run, count: int, rng: random.Random | None = None) -> int:
    """Make up to `count` matches that nobody has seen, for a page to show, and return how many.

    Those prompts come first of which the least is known. There are fewer where the next match depends on one that is
    being looked at.
    """
    if count < 1 or not (entrants := run.matches.entrants()):
        return 0
    rng, made = rng or random.Random(), 0
    matches = run.matches.all()
    open_pools = [pool for pool in _pools(entrants, matches, _wins(run, matches)) if pool.table.to_come()]
    while open_pools and made < count:
        pool = min(open_pools, key=lambda each: (_share_made(each.table), rng.random()))
        if pool.call_up(run, rng):
            made += 1
        else:
            open_pools.remove(pool)
    return made


def standings(run: Run) -> list[list[Ranked]]:
    """Return the pictures of each prompt and size, best first; those that have played equally well as they came."""
    matches = run.matches.all()
    wins = _wins(run, matches)
    return [_ranked(pool, matches) for pool in _pools(run.matches.entrants(), matches, wins)]


def _ranked(pool: Pool, matches: list[Match]) -> list[Ranked]:
    strengths = pool.table.strengths()
    over = [each for match in matches if match.over for each in match.entrants]
    won = [sum(winner == player for winner, _ in pool.table.wins) for player in range(pool.table.players)]
    order = sorted(range(pool.table.players), key=lambda player: -strengths[player])
    return [
        Ranked(pool.entrants[player], place, won[player], over.count(pool.entrants[player].group_id), strengths[player])
        for place, player in enumerate(order, 1)
    ]


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
    members: dict[tuple[int, tuple[int, int]], list[Entrant]] = {}
    for entrant in entrants:
        members.setdefault((entrant.prompt_id, entrant.size), []).append(entrant)
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
