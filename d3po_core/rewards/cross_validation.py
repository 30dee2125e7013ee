"""The Bradley-Terry model (Bradley and Terry 1952) with a linear score: who wins follows from the scores' difference.

    P(winner is preferred to loser) = sigmoid(beta . (f_winner - f_loser))

beta minimises the weighted log loss of the pairs plus ridge / 2 times its squared length, which has one minimum:
Newton's method finds it in a few steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_STEPS = 100
NEWTON_TOLERANCE = 1e-9
"""Newton's decrement below which it is done (half of it is how far the loss is above its minimum)."""


def fit_bradley_terry(differences: Tensor, weights: Tensor, ridge: float, start: Tensor | None = None) -> Tensor:
    """The minimum beta (F,), float64.

    Args:
        differences: features of each pair's winner less its loser's, (P, F), float64.
        weights: of the pairs, (P,).
        ridge: above 0.
        start: where to begin; the nearer the faster.
    """
    beta = differences.new_zeros(differences.shape[1]) if start is None else start.clone()
    for _ in range(MAX_STEPS):
        surprise = torch.sigmoid(-(differences @ beta))
        gradient = ridge * beta - differences.T @ (weights * surprise)
        curvature = (differences.T * (weights * surprise * (1 - surprise))) @ differences
        curvature.diagonal().add_(ridge)
        step = torch.cholesky_solve(gradient[:, None], torch.linalg.cholesky(curvature))[:, 0]
        decrement = float(gradient @ step)
        if decrement <= NEWTON_TOLERANCE:
            break
        size, now = 1.0, log_loss(differences, weights, ridge, beta)
        while log_loss(differences, weights, ridge, beta - size * step) > now - 0.1 * size * decrement:
            size /= 2
        beta = beta - size * step
    return beta


def log_loss(differences: Tensor, weights: Tensor, ridge: float, beta: Tensor) -> float:
    """What `fit` minimises."""
    return float(weights @ F.softplus(-(differences @ beta)) + ridge / 2 * beta @ beta)


OUTER, INNER = 5, 3
RIDGES = (1.0, 0.25, 0.06, 0.015)
"""From the most to the least: each fit begins where the one before it ended."""
NOTHING = 1e-9
"""Of the longest direction: what is shorter is rounding."""


@dataclass(frozen=True)
class PairData:
    """Pairs of winner and loser.

    Attributes:
        differences: of standardised features, (P, F), float64.
        weights: (P,).
        groups: which group each pair is of, (P,), from 0 on.
    """

    differences: Tensor
    weights: Tensor
    groups: Tensor

    def __getitem__(self, rows: Tensor) -> PairData:
        return PairData(self.differences[rows], self.weights[rows], self.groups[rows])

    def scaled(self, scale: Tensor) -> tuple[PairData, Tensor]:
        """The same with features times `scale` (F,), in the R coordinates that the pairs span, and the way back (F, R).

        A ridge never leaves that span, so nothing is lost, and with more features than pairs much time is won.
        """
        left, singular, right = torch.linalg.svd(self.differences * scale, full_matrices=False)
        rank = int((singular > NOTHING * singular[0]).sum())
        coordinates = left[:, :rank] * singular[:rank]
        return PairData(coordinates, self.weights, self.groups), scale[:, None] * right[:rank].T


@dataclass(frozen=True)
class Choice:
    """Which scale of the features, by number, and how much ridge."""

    scale: int
    ridge: float


def fit_head(data: PairData, scales: Sequence[Tensor]) -> tuple[Tensor, Choice]:
    """The head's weights (F,) on standardised features, and what was chosen for it by cross-validation."""
    spans = [data.scaled(scale) for scale in scales]
    choice = choose_ridge([span for span, _ in spans], OUTER)
    span, back = spans[choice.scale]
    return back @ fit_bradley_terry(span.differences, span.weights, choice.ridge), choice


def hidden_margins(data: PairData, scales: Sequence[Tensor]) -> Tensor:
    """For each pair the margin, positive where right, that a head foretells which never saw its group. (P,)"""
    spans = [data.scaled(scale)[0] for scale in scales]
    margins = torch.zeros_like(data.weights)
    folds = fold_of(data.groups, OUTER)
    for fold in range(OUTER):
        seen = folds != fold
        choice = choose_ridge([span[seen] for span in spans], INNER)
        span = spans[choice.scale]
        margins[~seen] = span.differences[~seen] @ fit_bradley_terry(
            span.differences[seen], span.weights[seen], choice.ridge
        )
    return margins


def choose_ridge(spans: Sequence[PairData], count: int) -> Choice:
    """The choice with the least log loss on hidden folds."""
    losses: dict[Choice, float] = {}
    folds = fold_of(spans[0].groups, count)
    for fold in range(count):
        seen = folds != fold
        for number, span in enumerate(spans):
            train, test, beta = span[seen], span[~seen], None
            for ridge in RIDGES:
                beta = fit_bradley_terry(train.differences, train.weights, ridge, beta)
                loss = float(test.weights @ F.softplus(-(test.differences @ beta)))
                losses[Choice(number, ridge)] = losses.get(Choice(number, ridge), 0.0) + loss
    return min(losses, key=lambda choice: losses[choice])


def fold_of(groups: Tensor, count: int) -> Tensor:
    """A fold for each pair, the same for all of one group; groups are dealt out at random, the same each time."""
    present = groups.unique()
    dealt = torch.randperm(len(present), generator=torch.Generator().manual_seed(0)) % count
    return dealt[torch.searchsorted(present, groups)]


def by_group(data: PairData, margins: Tensor) -> Tensor:
    """For each group the share of its pairs' weight that was foretold right; equal scores count half. (G,)"""
    right = (margins > 0).double() + 0.5 * (margins == 0).double()
    count = int(data.groups.max()) + 1
    total = torch.zeros(count, dtype=torch.float64)
    return total.index_add(0, data.groups, data.weights * right) / total.index_add(0, data.groups, data.weights)
