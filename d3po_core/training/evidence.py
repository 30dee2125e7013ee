"""How far to trust a LoRA: does it predict picks that it has not seen?

A model fitted to random clicks drifts as far as one fitted to a taste. What tells them apart is prediction: the picks
are split in two halves, each half is predicted by a LoRA that was trained on the other, and the final LoRA's strength
follows from how surely the hidden picks were predicted. Without evidence it stays at the original; with plain evidence
it is used in full. The final LoRA is trained on both halves.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..diffusion.rollout import generator
from ..settings import TrainSettings
from .preferences import PreferenceData

NONE, FULL = 0.0, 0.7
"""z-scores below which a LoRA is taken back to the original, and above which it is used in full.

Low on purpose: the LoRAs of a check know half of the picks only, so with few picks a real taste often shows as little
more than one standard error. Of what random clicks teach, these bounds keep about a third on average."""
CHECKABLE = 8
"""Fewer groups than this are not worth halving."""


@dataclass(frozen=True)
class Phase:
    """One training of the LoRA within a round.

    Attributes:
        name: "check A", "check B" or "teach".
        groups: ids of the groups to train on.
        hidden: ids of groups that it does not see.
    """

    name: str
    groups: list[str]
    hidden: list[str]


def plan_phases(data: PreferenceData, settings: TrainSettings) -> list[Phase]:
    """Return a round's phases: two checks on halves of the groups if there are enough, then one on all."""
    ids = sorted(data.training)
    last = Phase("teach", ids, sorted(data.held_out))
    if not settings.cross_check or sum(map(bool, data.training.values())) < CHECKABLE:
        return [last]
    order = torch.randperm(len(ids), generator=generator(settings.seed, "halves")).tolist()
    a, b = [ids[i] for i in order[::2]], [ids[i] for i in order[1::2]]
    return [Phase("check A", a, b), Phase("check B", b, a), last]


def z_score(margins: Sequence[float]) -> float:
    """Return by how many standard errors the mean margin is above 0, which is chance.

    This is Student's one-sample statistic, divided by sqrt(2): the halves predict each other, and to first order in the
    step, how well A predicts B and how well B predicts A is the same sum of products of gradients, so there are half as
    many independent predictions as groups. Margins say more than right and wrong alone, because a sure prediction
    counts for more than an unsure one.

    Args:
        margins: of hidden picks of both checks, one for each group, positive where the prediction was right; at least
            two.
    """
    spread = statistics.stdev(margins)
    return statistics.fmean(margins) / (spread / math.sqrt(len(margins) / 2)) if spread else 0.0


def strength(z: float) -> float:
    """Return the share of the LoRA to keep, in [0, 1]: 0 up to z = NONE, rising to 1 at z = FULL."""
    return min(1.0, max(0.0, (z - NONE) / (FULL - NONE)))


def epochs_to_teach(margins: Sequence[Sequence[float]]) -> int:
    """Return how many epochs to train: all that were checked, unless hidden picks were predicted clearly worse by then.

    It is the last epoch whose loss on hidden picks is within one standard error of the best epoch's, both on the same
    picks; taking the best itself would stop at random where the curve is flat.

    Args:
        margins: for each epoch, the margins of hidden picks, one for each group, at least two.
    """
    losses = [[math.log1p(math.exp(-margin)) for margin in epoch] for epoch in margins]
    best = min(losses, key=statistics.fmean)

    def as_good(epoch: Sequence[float]) -> bool:
        worse = [a - b for a, b in zip(epoch, best, strict=True)]
        return statistics.fmean(worse) <= statistics.stdev(worse) / math.sqrt(len(worse))

    return max(number for number, epoch in enumerate(losses, 1) if as_good(epoch))


def doubts(share: float) -> list[str]:
    """Return what a person should know where the evidence did not allow all of what was learnt."""
    if share == 0:
        return ["Hidden picks were not predicted better than by chance, so the model was left as it was."]
    return [f"The evidence is thin, so {share:.0%} of what was learnt was kept."] if share < 1 else []
