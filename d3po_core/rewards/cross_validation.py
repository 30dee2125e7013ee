"""The Bradley-Terry model (Bradley and Terry 1952) with a linear score, fitted and cross-validated.

    P(winner is preferred to loser) = sigmoid(beta . (f_winner - f_loser))

beta minimises the weighted log loss of the pairs plus ridge / 2 times its squared length. That sum is strictly convex,
so it has one minimum, which Newton's method finds in a few steps.

People slip: they press the wrong key, or do not look. Without that a single pick that contradicts all others is worth
any effort to the fit. So a share of the groups, `LAPSES`, is taken to be judged by tossing coins, and a group counts as
much as it is likely to be meant, given the scores: expectation and maximisation (Dempster, Laird and Rubin 1977), with
one Newton step to a maximisation. Psychophysics calls it a lapse rate (Wichmann and Hill 2001). With lapses there can
be several minima. The one that is found depends on where the search begins: at 0, which takes every group for meant, or
at what a stronger ridge has led to.

A taste is mostly about few of the features, and a ridge spreads its weight over all that go along with them: what is
not meant is then taught too. So the fit is repeated with each feature scaled by a power of the weight that it got, if
cross-validation says so. This is the idea of the adaptive lasso (Zou 2006), with a ridge in the place of the lasso, to
which repeated reweighting leads (Grandvalet 1998).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_STEPS = 100
NEWTON_TOLERANCE, ROUGHLY = 1e-9, 1e-3
"""Newton decrement at which to stop; half of it estimates how far the loss is above its minimum. The second is for
fits that are only chosen between."""
LAPSES = 0.1
"""Share of the groups that is taken to be judged without looking, where a head is fitted to order pictures. How well a
person is understood is measured without: with lapses, more people who pick at random would be believed."""


@dataclass(frozen=True)
class PairData:
    """Pairs of winner and loser.

    Attributes:
        differences: of standardised features, winner - loser, (P, F), float64.
        weights: (P,).
        groups: number of each pair's group, from 0, (P,).
        related: numbers of what each pair's two pictures are known by, (P, 2), the same for those that know something
            of each other: a pair is predicted from others that share none with it. None if groups share no pictures.
    """

    differences: Tensor
    weights: Tensor
    groups: Tensor
    related: Tensor | None = None

    def __getitem__(self, rows: Tensor) -> PairData:
        related = None if self.related is None else self.related[rows]
        return PairData(self.differences[rows], self.weights[rows], self.groups[rows], related)

    def folds(self, count: int) -> list[tuple[Tensor, Tensor]]:
        """Return, for each of `count` folds, which pairs (P,) are learnt from, and which are predicted; some of either.

        Without `related` each pair is predicted in one fold and learnt from in the others. With it those in neither
        have one picture that is learnt from and one that is not.
        """
        known_by = self.groups[:, None] if self.related is None else self.related
        fold = fold_of(known_by, count)
        both = [((fold != each).all(1), (fold == each).all(1)) for each in range(count)]
        return [(seen, hidden) for seen, hidden in both if seen.any() and hidden.any()]

    def scaled(self, scale: Tensor) -> tuple[PairData, Tensor]:
        """Multiply the features by `scale` (F,) and project them to the R dimensions that the pairs span.

        The minimiser with a ridge is in that span, so the fit is the same, and faster if there are more features than
        pairs.

        Returns:
            The pairs with differences (P, R), and the matrix (F, R) that turns a beta (R,) into one on features.
        """
        left, singular, right = torch.linalg.svd(self.differences * scale, full_matrices=False)
        rank = int((singular > RANK_TOLERANCE * singular.max()).sum()) if len(singular) else 0
        projected = left[:, :rank] * singular[:rank]
        return PairData(projected, self.weights, self.groups, self.related), scale[:, None] * right[:rank].T

    def of_group(self, values: Tensor) -> Tensor:
        """Add up values (P,) of the pairs of each group, (G,)."""
        return torch.bincount(self.groups, values).to(values)  # of no pairs it is of whole numbers


def fit_bradley_terry(
    data: PairData,
    ridge: float,
    start: Tensor | None = None,
    tolerance: float = NEWTON_TOLERANCE,
    lapses: float = 0.0,
) -> Tensor:
    """Return the beta (F,), float64, at which the loss of the pairs is least; with lapses, least among those nearby.

    Args:
        data: pairs, at least one.
        ridge: above 0.
        start: a beta near a minimum, from which fewer steps are needed; 0 if None.
        tolerance: Newton decrement at which to stop.
        lapses: share of the groups that is judged without looking; 0 for the Bradley-Terry model itself.
    """
    differences = data.differences
    beta = differences.new_zeros(differences.shape[1]) if start is None else start.clone()
    for _ in range(MAX_STEPS):
        margins = differences @ beta
        weights = data.weights * meant(data, margins, lapses)[data.groups]
        miss = torch.sigmoid(-margins)  # predicted probability of the opposite preference
        gradient = ridge * beta - differences.T @ (weights * miss)
        curvature = (differences.T * (weights * miss * (1 - miss))) @ differences
        curvature.diagonal().add_(ridge)
        step = torch.cholesky_solve(gradient[:, None], torch.linalg.cholesky(curvature))[:, 0]
        decrement = float(gradient @ step)
        if decrement <= tolerance:
            break
        size, now = 1.0, log_loss(differences, weights, ridge, beta)
        while log_loss(differences, weights, ridge, beta - size * step) > now - 0.1 * size * decrement:
            size /= 2
        beta = beta - size * step
    return beta


def log_loss(differences: Tensor, weights: Tensor, ridge: float, beta: Tensor) -> float:
    """Return the weighted log loss of the pairs plus ridge / 2 times the squared length of beta."""
    return float(weights @ F.softplus(-(differences @ beta)) + ridge / 2 * beta @ beta)


def meant(data: PairData, margins: Tensor, lapses: float) -> Tensor:
    """Return the probability that each group was judged by the scores and not by coins, (G,), given margins (P,).

    The pairs of a group count as independent of each other, and what several people say of it as said by one: where
    they contradict each other, a group counts less.
    """
    of_scores, of_coins = _log_likelihoods(data, margins, lapses)
    return torch.sigmoid(of_scores - of_coins)


def hidden_loss(data: PairData, margins: Tensor, lapses: float) -> float:
    """Return the negative log likelihood of pairs with these margins (P,), every group weighted by its pairs' mean."""
    of_group = -torch.logaddexp(*_log_likelihoods(data, margins, lapses))
    count = data.of_group(torch.ones_like(margins))
    return float((data.of_group(data.weights) / count.clamp(min=1)) @ of_group)


def _log_likelihoods(data: PairData, margins: Tensor, lapses: float) -> tuple[Tensor, Tensor]:
    """Return the logarithms of the probability that a group was judged as it is, (G,): by the scores, and by coins."""
    share = margins.new_tensor(lapses)
    by_scores = torch.log1p(-share) + data.of_group(F.logsigmoid(margins))
    return by_scores, torch.log(share) + data.of_group(torch.full_like(margins, -math.log(2)))


OUTER_FOLDS, INNER_FOLDS = 5, 3
RIDGES = (1.0, 0.25, 0.06, 0.015)
"""In this order, because each fit starts from the one before."""
STRONG_RIDGES = (16.0, 4.0)
"""Tried before the others where there may be lapses: which picks were slips is then decided little by little."""
POWERS = (0.0, 0.5, 1.0)
"""Of the first fit's weights, by which the features of the second are scaled; 0 is the first fit's own scale."""
RANK_TOLERANCE = 1e-9
"""Singular values below this share of the largest are rounding."""


@dataclass(frozen=True)
class Choice:
    """The number of the features' scale, the ridge, and the power of the first weights that scales the second fit."""

    scale: int
    ridge: float
    power: float = 0.0


def fit_head(
    data: PairData, scales: Sequence[Tensor], count: int = OUTER_FOLDS, lapses: float = 0.0
) -> tuple[Tensor, Choice]:
    """Fit the head to all pairs, with the scale (F,), ridge and power that cross-validation of `count` folds chooses.

    Args:
        data: pairs.
        scales: see `Kind`.
        count: of folds.
        lapses: see `fit_bradley_terry`.

    Returns:
        Weights (F,) on standardised features, and what was chosen.
    """
    first = choose_ridge([data.scaled(scale)[0] for scale in scales], count, lapses)
    scale = scales[first.scale]
    choice = choose_power(data, scale, first, count, lapses)
    weights = fit_scaled(data, scale, first.ridge, lapses)
    return fit_scaled(data, concentrated(scale, weights, choice.power), choice.ridge, lapses), choice


def ridges(lapses: float) -> tuple[float, ...]:
    """Return the ridges to choose between."""
    return (*STRONG_RIDGES, *RIDGES) if lapses else RIDGES


def fit_scaled(data: PairData, scale: Tensor, ridge: float, lapses: float = 0.0) -> Tensor:
    """Fit to features that are multiplied by a scale (F,); return the weights (F,) on the features as they are."""
    span, back = data.scaled(scale)
    return back @ fit_bradley_terry(span, ridge, lapses=lapses)


def concentrated(scale: Tensor, weights: Tensor, power: float) -> Tensor:
    """Return a scale (F,) of the same length that goes as a power of the weights' sizes; for power 0 the scale."""
    if not power or not weights.any():
        return scale
    narrow = weights.abs() ** power
    return narrow * (scale.norm() / narrow.norm())


def hidden_margins(data: PairData, scales: Sequence[Tensor], count: int = OUTER_FOLDS) -> tuple[Tensor, Tensor]:
    """Predict each pair by a head that has not seen its group, in nested cross-validation over `count` outer folds.

    Returns:
        The predicted margin of winner over loser, (P,): positive where the prediction is right. And which pairs were
        predicted at all, (P,): without `related`, all.
    """
    margins, predicted = torch.zeros_like(data.weights), torch.zeros_like(data.weights, dtype=torch.bool)
    for seen, hidden in data.folds(count):
        weights, _ = fit_head(data[seen], scales, INNER_FOLDS)
        margins[hidden] = data.differences[hidden] @ weights
        predicted |= hidden
    return margins, predicted


def choose_power(data: PairData, scale: Tensor, first: Choice, count: int, lapses: float) -> Choice:
    """Return the power and the ridge with the least log loss on the folds left out, after the first choice.

    The first fit's weights, too, are those of the folds that are seen; its scale and ridge were chosen on all. So the
    choice favours the first fit's own, and how good the head is must be measured on groups outside, `hidden_margins`.
    """
    losses: dict[Choice, float] = {}
    for seen, hidden in data.folds(count):
        train, test = data[seen], data[hidden]
        weights = fit_scaled(train, scale, first.ridge, lapses)
        for power in POWERS:
            span, back = train.scaled(concentrated(scale, weights, power))
            beta = None
            for ridge in ridges(lapses):
                beta = fit_bradley_terry(span, ridge, beta, ROUGHLY, lapses)
                loss = hidden_loss(test, test.differences @ (back @ beta), lapses)
                choice = Choice(first.scale, ridge, power)
                losses[choice] = losses.get(choice, 0.0) + loss
    return min(losses, key=lambda choice: losses[choice], default=first)


def choose_ridge(spans: Sequence[PairData], count: int, lapses: float = 0.0) -> Choice:
    """Return the scale and the ridge with the least log loss on the folds left out, of `count` folds."""
    losses: dict[Choice, float] = {}
    for seen, hidden in spans[0].folds(count):
        for number, span in enumerate(spans):
            train, test, beta = span[seen], span[hidden], None
            for ridge in ridges(lapses):
                beta = fit_bradley_terry(train, ridge, beta, ROUGHLY, lapses)
                loss = hidden_loss(test, test.differences @ beta, lapses)
                losses[Choice(number, ridge)] = losses.get(Choice(number, ridge), 0.0) + loss
    return min(losses, key=lambda choice: losses[choice], default=Choice(0, ridges(lapses)[0]))


def fold_of(groups: Tensor, count: int) -> Tensor:
    """Assign a fold to each group (...,), by its number. Groups are shuffled with a fixed seed."""
    present = groups.unique()
    fold = torch.randperm(len(present), generator=torch.Generator().manual_seed(0)) % count
    return fold[torch.searchsorted(present, groups)]


def by_group(data: PairData, margins: Tensor) -> Tensor:
    """Return the weighted share of each group's pairs that are predicted right, (G,); a margin of 0 counts half.

    Groups without a pair are left out.
    """
    right = (margins > 0).double() + 0.5 * (margins == 0).double()
    total = data.of_group(data.weights)
    return (data.of_group(data.weights * right) / total)[total > 0]
