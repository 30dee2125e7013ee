"""Who plays whom in a tournament, and what it says of everybody.

As in a Swiss tournament (first held in Zurich in 1895) everybody plays equally often, against those who have done about
as well so far, and never twice against the same. There are no rounds that all have to wait for: whoever has played the
least is next. How well somebody has done is the strength of the Bradley-Terry model (Bradley and Terry 1952), which
counts who was beaten and not only how often.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import torch

from ..rewards.cross_validation import PairData, fit_bradley_terry

MAX_PLAYED = 6
"""Matches of one player, so that there are three for each (benchmarks/tournament.py)."""
BRIDGES = 2
"""First matches of a player who comes when others have played enough: against those."""
RIDGE = 0.1
"""Of the fit; without one, the strength of somebody who has won all matches would be infinite."""


@dataclass
class Table:
    """What was played among some players, who are numbered from 0.

    Attributes:
        players: how many there are.
        met: pairs that have a match, played or not, the lower number first.
        wins: who won against whom; more than one of the same two where several people judged.
        busy: players whose match is not played yet.
    """

    players: int
    met: set[tuple[int, int]] = field(default_factory=set)
    wins: list[tuple[int, int]] = field(default_factory=list)
    busy: set[int] = field(default_factory=set)

    @property
    def most(self) -> int:
        """Return how often everybody is to play."""
        return min(MAX_PLAYED, self.players - 1)

    def played(self) -> list[int]:
        """Return how many matches each player has, also those that are not played yet."""
        counts = [0] * self.players
        for pair in self.met:
            for player in pair:
                counts[player] += 1
        return counts

    @property
    def budget(self) -> int:
        """Return how many matches there are at most: half of what everybody is to play, as each is two players'."""
        return self.players * self.most // 2

    def to_come(self) -> int:
        """Return how many matches are still to be made; a few less where not all can meet whom they should."""
        return self.budget - len(self.met) if self._next([0.0] * self.players, random.Random(0), ()) else 0

    def strengths(self) -> list[float]:
        """Return how well each player has done, in nats: one more than another means e times their odds of winning."""
        if not self.wins:
            return [0.0] * self.players
        winners, losers = torch.tensor(self.wins).T
        rows = torch.arange(len(self.wins))
        differences = torch.zeros(len(self.wins), self.players, dtype=torch.float64)
        differences[rows, winners] = 1.0
        differences[rows, losers] = -1.0
        data = PairData(differences, torch.ones(len(rows), dtype=torch.float64), rows)
        return [float(value) for value in fit_bradley_terry(data, RIDGE)]

    def call_up(self, count: int, rng: random.Random) -> list[tuple[int, int]]:
        """Make up to `count` matches of players who are not busy, and return them.

        There are fewer where those who could play wait for the end of another match.
        """
        strengths = self.strengths()
        made: list[tuple[int, int]] = []
        while len(made) < count and (pair := self._next(strengths, rng, self.busy)):
            self.met.add((min(pair), max(pair)))
            self.busy.update(pair)
            made.append(pair)
        return made

    def _next(self, strengths: Sequence[float], rng: random.Random, busy: Collection[int]) -> tuple[int, int] | None:
        """Return who plays next among those who are not busy; None if nobody can.

        Whoever comes to players who have played enough meets some of those first: else both could not be compared.
        """
        if len(self.met) >= self.budget:
            return None
        played = self.played()
        enough = {player for player, count in enumerate(played) if count >= self.most}
        free = [player for player in range(self.players) if player not in busy and played[player] < self.most]
        for player in sorted(free, key=lambda each: (played[each], rng.random())):
            unmet = self._unmet(player)
            late = bool(enough) and played[player] < BRIDGES
            wanted = [each for each in unmet if (each in enough) == late] or unmet
            ready = [each for each in wanted if each not in busy]
            if ready:
                gap = {each: (abs(strengths[each] - strengths[player]), rng.random()) for each in ready}
                return player, min(ready, key=gap.__getitem__)
        return None

    def _unmet(self, player: int) -> list[int]:
        others: Collection[int] = {pair[pair[0] == player] for pair in self.met if player in pair}
        return [each for each in range(self.players) if each != player and each not in others]
