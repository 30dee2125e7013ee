"""Reward From Picks: a differentiable reward from nothing but a person's picks.

A Bradley-Terry head on features of the pictures (`picture_features`), fitted in seconds. Whether it has understood
anything is measured on groups that it has not seen, and stands beside how consistent the person is with themselves:
nobody foretells them much better. One that does no better than chance can be looked at, but not used.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import D3POError
from ..picks import Pair, pairs
from ..run import Run
from ..run.images import read_images
from .cross_validation import PairData, by_group, fit_head, hidden_margins
from .features import STATISTICS, Features, get_features
from .reward import Reward

MIN_GROUPS = 16
"""Groups with a preference, below which nothing is fitted."""
MIN_Z = 2.5
"""Standard errors above chance, below which the reward is not used.

Of 100 random pickers 1 got there, half of them seen when this was chosen (benchmarks/picks_reward.py): heads of
different folds share picks, so that z spreads by 1.1 to 1.3 instead of 1. Of 64 groups of two, 2.5 is 66 % foretold."""


@dataclass(frozen=True)
class JudgeFacts:
    """What is known of a reward from picks.

    Attributes:
        features: their name.
        accuracy: share of pairs foretold right in groups that were not seen, each group counting once; chance is .5.
        z: how many standard errors that is above chance.
        groups: how many were foretold.
        same, times: how often the person chose the same when a group came back, out of how many times.
        run_id, run_name: whose picks.
        ridge: what cross-validation chose.
        scale: which of the features' scales it chose.
    """

    features: str
    accuracy: float
    z: float
    groups: int
    same: int
    times: int
    run_id: str
    run_name: str
    ridge: float
    scale: int

    @property
    def usable(self) -> bool:
        """Whether it foretells picks better than chance, as far as so many groups can tell."""
        return self.z >= MIN_Z

    def __str__(self) -> str:
        again = (
            f"you chose the same again in {self.same} of {self.times}"
            if self.times
            else "how often you would choose the same again is not known"
        )
        told = f"It foretells {self.accuracy:.0%} of {self.groups} groups that it has not seen (chance is 50 %)"
        return f"{told}; {again}."


@dataclass(frozen=True)
class Head:
    """The score of a picture, in nats: one more means that the odds of being preferred are e times higher.

    Attributes:
        features: of pictures.
        mean, std: of the features over all pictures, and within groups, (F,), float64.
        weights: on standardised features, (F,), float64.
    """

    features: Features
    mean: Tensor
    std: Tensor
    weights: Tensor

    def __call__(self, images: Tensor, prompts: list[str]) -> Tensor:
        found = self.features(images)
        return (found - self.mean.to(found)) @ (self.weights / self.std).to(found)


@dataclass(frozen=True)
class Judge:
    """A fitted head and what is known of it."""

    head: Head
    facts: JudgeFacts

    def reward(self) -> Reward:
        """The reward.

        Raises:
            D3POError: it foretells picks no better than chance.
        """
        if not self.facts.usable:
            raise D3POError(
                f"These picks do not tell yet what you like. {self.facts}",
                "Pick in more groups, or pick by one thing.",
                "Your picks are saved.",
            )
        return Reward(f"picks:{self.facts.run_name}", "what was picked", self.head, True)


@torch.inference_mode(False)  # see `get_reward`
def fit_judge(run: Run, features: str | Features = STATISTICS, who: str | None = None, device: str = "cpu") -> Judge:
    """Fit a head to a run's picks.

    Groups that are held out are not trained on; they are foretold by the final head, all others by heads of which the
    choice of ridge, too, did not see them.

    Args:
        run: whose pictures and standing picks.
        features: a name, see `get_features`, or the features themselves.
        who: whose picks; everybody's if None.
        device: for the features.

    Raises:
        D3POError: there are too few picks, or the features cannot be loaded.
    """
    training, held_out = preferences(run, who)
    if len(training) < MIN_GROUPS:
        raise D3POError(
            f"There are {len(training)} groups with a preference to learn from, and {MIN_GROUPS} are needed.",
            "Pick favourites in more groups.",
            "Your picks are saved.",
        )
    seer = get_features(features) if isinstance(features, str) else features
    known = {name: _features(run, name, seer, device) for name in (*training, *held_out)}
    mean, std = feature_spread([known[name] for name in training])
    data = pair_data(training, known, std)
    weights, choice = fit_head(data, seer.scales)
    right = by_group(data, hidden_margins(data, seer.scales))
    if held_out:
        unseen = pair_data(held_out, known, std)
        right = torch.cat([right, by_group(unseen, unseen.differences @ weights)])
    same, times = run.history.consistency(who)
    facts = JudgeFacts(
        features=seer.name,
        accuracy=float(right.mean()),
        z=above_chance(right),
        groups=len(right),
        same=same,
        times=times,
        run_id=run.run_id,
        run_name=run.name,
        ridge=choice.ridge,
        scale=choice.scale,
    )
    return Judge(Head(seer, mean, std, weights), facts)


def preferences(run: Run, who: str | None) -> tuple[dict[str, list[Pair]], dict[str, list[Pair]]]:
    """Pairs by group, flags counted in, of those to train on and held out; several people's on one group added up."""
    training: dict[str, list[Pair]] = {}
    held_out: dict[str, list[Pair]] = {}
    for said in run.picks.judgements(who=who):
        group = run.groups.get(said.group_id)
        found = pairs(said.pick, group.candidates, said.shown_order or group.distinct, said.flagged)
        if found:
            (held_out if group.held_out else training).setdefault(group.id, []).extend(found)
    return training, held_out


def pair_data(groups: dict[str, list[Pair]], known: dict[str, Tensor], std: Tensor) -> PairData:
    """The pairs' standardised differences."""
    every = [(number, known[name], pair) for number, (name, found) in enumerate(groups.items()) for pair in found]
    return PairData(
        torch.stack([found[pair.winner] - found[pair.loser] for _, found, pair in every]) / std,
        torch.tensor([pair.weight for _, _, pair in every], dtype=torch.float64),
        torch.tensor([number for number, _, _ in every]),
    )


def feature_spread(groups: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean of features (C, F) over all groups, and their standard deviation within groups: what differs between prompts
    cannot be picked. A feature that never varies gets an infinite one, and so counts for nothing."""
    mean = torch.cat(groups).mean(0)
    within = torch.cat([group - group.mean(0) for group in groups]).square().mean(0).sqrt()
    return mean, torch.where(within > 1e-9 * (1 + mean.abs()), within, math.inf)


def above_chance(right: Tensor) -> float:
    """How many standard errors the mean of shares (G,) in [0, 1] is above 1/2.

    With their spread about 1/2, as it would be by chance, not about their mean: that is 0 where all are right.
    """
    margin = right - 0.5
    size = float(margin.square().mean().sqrt())
    return float(margin.mean()) * math.sqrt(len(margin)) / size if size else 0.0


@torch.no_grad()
def _features(run: Run, group_id: str, features: Features, device: str) -> Tensor:
    return features(read_images(run, run.groups.get(group_id)).to(device)).double().cpu()
