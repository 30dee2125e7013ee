"""Reward From Picks: a judge (a preference model fitted to a person's picks), and a differentiable reward from it.

The model is a Bradley-Terry head on features of the images (`features`), fitted in seconds. Its accuracy is measured on
groups that it has not seen, and shown beside how consistent the person is, which limits how well anybody can predict
them. A judge that does no better than chance can be looked at, but gives no reward.

A judge's file is safetensors, with its `JudgeFacts` as JSON in the metadata.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from ..errors import D3POError
from ..picks import Pair, pairs, weighted
from ..run import Group, Run, files
from ..run.panel import EVERYBODY, Panel
from .cross_validation import LAPSES, OUTER_FOLDS, Choice, PairData, by_group, fit_head, hidden_margins
from .description import described, seen_in
from .features import STATISTICS, Features, Kind, get_features, probe_of
from .reward import Reward

MIN_GROUPS = 16
"""Fewer groups with a preference, held-out ones among them, are refused."""
MIN_Z = 2.5
"""Standard errors above chance from which a judge is used as a reward that is climbed.

Of 100 random pickers (benchmarks/picks_reward.py; 50 of them were known when this was chosen) 1 reaches it. Their z has
a standard deviation of 1.1 to 1.3 instead of 1, because heads of different folds share picks. With 64 groups of two,
2.5 means that 66% are predicted right. That was measured before a head was fitted twice."""
Related = dict[str, list[int]]
"""What each candidate of a group is known by, see `related_groups`."""
MIN_RELATED = 2 * OUTER_FOLDS
"""Prompts of a tournament from which its matches are predicted prompt by prompt."""
NONE, FULL = 1.75, 2.75
"""Standard errors above chance up to which nothing is taught, and from which all is.

benchmarks/evidence.py prints how many tastes they refuse, and how many random pickers they accept: of 40 of either, 0
and 2 at 24 picks, and at 64."""


def share_of(z: float) -> float:
    """Return the share of what can be learnt that evidence allows: 0 up to z = NONE, rising to 1 at z = FULL."""
    return min(1.0, max(0.0, (z - NONE) / (FULL - NONE)))


@dataclass(frozen=True)
class JudgeFacts:
    """What is known of a judge.

    Attributes:
        features: name of its features.
        accuracy: share of pairs predicted right in groups that were not seen, each group counting once; chance is 0.5.
        z: how many standard errors the accuracy is above chance.
        groups: number of groups that were predicted.
        same, times: how often the person chose the same when a group was shown again, of how many times.
        run_id, run_name: of the run with the picks.
        ridge, scale, power: chosen by cross-validation, see `Choice`; the scale is a number of `Kind.scales`.
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
    power: float = 0.0

    @property
    def share(self) -> float:
        """Return the share of what can be learnt that this evidence allows; see `share_of`."""
        return share_of(self.z)

    @property
    def usable(self) -> bool:
        """Return whether it predicts unseen picks significantly better than chance."""
        return self.z >= MIN_Z

    def __str__(self) -> str:
        consistency = (
            f"you chose the same again in {self.same} of {self.times}"
            if self.times
            else "how often you would choose the same again is not known"
        )
        accuracy = f"It predicts {self.accuracy:.0%} of {self.groups} groups that it has not seen (chance is 50%)"
        return f"{accuracy}; {consistency}."


@dataclass(frozen=True)
class Head:
    """Scores images in nats: a score higher by 1 means e times the odds of being preferred, by somebody who looks.

    Attributes:
        features: of images.
        mean: of the features over all images, (F,), float64.
        std: of the features within groups, (F,), float64.
        weights: on standardised features, (F,), float64.
    """

    features: Kind
    mean: Tensor
    std: Tensor
    weights: Tensor

    def __call__(self, images: Tensor, prompts: list[str]) -> Tensor:
        """Score images (B, 3, H, W) in [0, 1], with gradient; only where the features follow from the image alone."""
        features = cast(Features, self.features)(images)
        return (features - self.mean.to(features)) @ (self.weights / self.std).to(features)


@dataclass(frozen=True)
class Judge:
    """A preference model that was fitted to picks: its head, and what is known of it."""

    head: Head
    facts: JudgeFacts

    def scores(self, features: Tensor) -> Tensor:
        """Return the scores (...,) in nats of images that have these features (..., F), float64."""
        return (features - self.head.mean) @ (self.head.weights / self.head.std)

    def reward(self) -> Reward:
        """Return the judge as a reward.

        Raises:
            D3POError: it predicts picks no better than chance.
        """
        if not self.facts.usable:
            raise D3POError(
                f"These picks do not tell yet what you like. {self.facts}",
                "Pick in more groups, or pick by one thing.",
                "Your picks are saved.",
            )
        return Reward(f"picks:{self.facts.run_name}", "what was picked", self.head, True)


@torch.inference_mode(False)  # as in `get_reward`
def fit_judge(run: Run, features: str | Kind = STATISTICS, panel: Panel = EVERYBODY) -> Judge:
    """Fit a judge to a run's picks.

    Its accuracy is that of heads which have not seen what they predict: held-out groups by one of all others, every
    other group by one for which neither the weights nor scale, ridge and power were chosen with it.

    Args:
        run: has the images and the standing picks.
        features: a name as `get_features` takes it, or the kind of features itself.
        panel: whose picks are used, and how much each counts.

    Raises:
        D3POError: there are too few picks, or the features cannot be loaded.
    """
    training, held_out = preferences(run, panel)
    if not enough(training, held_out):
        raise D3POError(
            f"There are {len(training) + len(held_out)} groups with a preference, and {MIN_GROUPS} are needed.",
            "Pick favourites in more groups.",
            "Your picks are saved.",
        )
    extractor = get_features(features) if isinstance(features, str) else features
    by_id = described(run, [*training, *held_out], extractor)
    training, held_out = ({name: of[name] for name in of if name in by_id} for of in (training, held_out))
    related = related_groups(run, training)
    each = _one_by_one(run, panel, by_id, related)
    fitted = fit(each.features, each.pairs, extractor.scales, related=each.related)
    right = predicted_right(by_id, training, held_out, extractor.scales, related=related)
    same, times = run.history.consistency(panel.people)
    facts = JudgeFacts(
        features=extractor.name,
        accuracy=float(right.mean()) if len(right) else 0.5,
        z=above_chance(right),
        groups=len(right),
        same=same,
        times=times,
        run_id=run.run_id,
        run_name=run.name,
        ridge=fitted.choice.ridge,
        scale=fitted.choice.scale,
        power=fitted.choice.power,
    )
    return Judge(Head(extractor, fitted.mean, fitted.std, fitted.weights), facts)


@dataclass(frozen=True)
class Fitted:
    """A head that was fitted to pairs of some features.

    Attributes:
        mean, std, weights: as in `Head`.
        choice: what cross-validation chose.
    """

    mean: Tensor
    std: Tensor
    weights: Tensor
    choice: Choice


def fit(
    features: Mapping[str, Tensor],
    training: Mapping[str, list[Pair]],
    scales: Sequence[Tensor],
    lapses: float = LAPSES,
    related: Related | None = None,
) -> Fitted:
    """Fit a head to the pairs of `training`.

    Args:
        features: of each group's candidates, (C, F), float64, by group id.
        training: pairs by group id.
        scales: see `Kind`.
        lapses: share of the groups that is taken to be judged without looking.
        related: see `related_groups`.
    """
    mean, std = feature_spread([features[group_id] for group_id in training])
    weights, choice = fit_head(pair_data(training, features, std, related), scales, lapses=lapses)
    return Fitted(mean, std, weights, choice)


def predicted_right(
    features: Mapping[str, Tensor],
    training: Mapping[str, list[Pair]],
    held_out: Mapping[str, list[Pair]],
    scales: Sequence[Tensor],
    folds: int = OUTER_FOLDS,
    related: Related | None = None,
) -> Tensor:
    """Predict every group by a head that has not seen it, and return the weighted share of pairs that is right, (G,).

    The heads take no pick for a slip, see `LAPSES`.

    Args:
        features, training, scales: as for `fit`.
        held_out: pairs by group id, predicted by the head of all of `training`.
        folds: parts that the groups are cut into, each predicted from the others.
        related: see `related_groups`.
    """
    _, std = feature_spread([features[group_id] for group_id in training])
    data = pair_data(training, features, std, related)
    margins, predicted = hidden_margins(data, scales, folds)
    right = by_group(data[predicted], margins[predicted])
    if held_out:
        unseen = pair_data(held_out, features, std)
        right = torch.cat([right, by_group(unseen, unseen.differences @ fit_head(data, scales)[0])])
    return right


def preferences(run: Run, panel: Panel = EVERYBODY) -> tuple[dict[str, list[Pair]], dict[str, list[Pair]]]:
    """Collect the pairs that follow from picks and flags.

    Args:
        run: has the picks.
        panel: whose. What several people say of one group is put together: each judgement is evidence of its own.

    Returns:
        Pairs by group id, of the groups to train on and of the held-out groups. Groups without a pair are left out.
    """
    training: dict[str, list[Pair]] = {}
    held_out: dict[str, list[Pair]] = {}
    for group, implied in _judged(run, panel):
        (held_out if group.held_out else training).setdefault(group.id, []).extend(implied)
    return training, held_out


def _judged(run: Run, panel: Panel) -> Iterator[tuple[Group, list[Pair]]]:
    """Yield the weighted pairs of each judgement that says that one picture is better, with its group."""
    for judgement in panel.judgements(run):
        group = run.groups.get(judgement.group_id)
        shown = judgement.shown_order or group.distinct
        implied = pairs(judgement.pick, group.candidates, shown, judgement.flagged)
        if implied:
            yield group, weighted(implied, panel.weight(judgement.who))


@dataclass(frozen=True)
class Judgements:
    """What is learnt from, judgement by judgement, J of them.

    Attributes:
        pairs: of each, by a name of its own.
        features: of its group's candidates, (C, F), by the same name.
        related: see `related_groups`, by the same name; None where no group was judged twice and none share pictures.
    """

    pairs: dict[str, list[Pair]]
    features: dict[str, Tensor]
    related: Related | None


def _one_by_one(run: Run, panel: Panel, by_id: Mapping[str, Tensor], related: Related | None) -> Judgements:
    """Return the judgements of groups that are not held out, each by itself.

    One of several people may have picked without looking, or by another taste: no reason to take what the others
    said of the same group for a slip. But what one said is never predicted from what others said of the same pictures.
    """
    numbers: dict[str, int] = {}
    said, features, known_by = dict[str, list[Pair]](), dict[str, Tensor](), Related()
    for group, implied in _judged(run, panel):
        if group.id in by_id and not group.held_out:
            name, number = f"{group.id} {len(said)}", numbers.setdefault(group.id, len(numbers))
            said[name], features[name] = implied, by_id[group.id]
            known_by[name] = related[group.id] if related else [number] * group.candidates
    return Judgements(said, features, known_by if related or len(numbers) < len(said) else None)


def related_groups(run: Run, group_ids: Iterable[str]) -> Related | None:
    """Return what each candidate of each group is known by, where groups share pictures; None where none do.

    The matches of a tournament show a picture several times. Whoever has seen it win can say something of its other
    matches without knowing what it looks like. So the matches of a prompt are predicted together, and where there are
    few prompts, matches from those in which neither picture takes part.
    """
    groups = [run.groups.get(group_id) for group_id in group_ids]
    matches = [group for group in groups if group.entrants]
    if not matches:
        return None
    by_prompt = len({group.prompt for group in matches}) >= MIN_RELATED
    names: dict[str, int] = {}
    related: Related = {}
    for group in groups:
        own = [f"prompt {group.prompt}"] * 2 if by_prompt and group.entrants else group.entrants
        known_by = own or [group.id] * group.candidates
        related[group.id] = [names.setdefault(name, len(names)) for name in known_by]
    return related


def pair_data(
    groups: Mapping[str, list[Pair]],
    features: Mapping[str, Tensor],
    std: Tensor,
    related: Related | None = None,
) -> PairData:
    """Return the standardised differences of all pairs.

    Args:
        groups: pairs by group id, P together.
        features: of each group's candidates, (C, F), by group id.
        std: of the features within groups, (F,).
        related: see `related_groups`.
    """
    rows = [(i, features[name], pair) for i, (name, of_group) in enumerate(groups.items()) for pair in of_group]
    names = list(groups)
    return PairData(
        torch.stack([values[pair.winner] - values[pair.loser] for _, values, pair in rows]) / std,
        torch.tensor([pair.weight for _, _, pair in rows], dtype=torch.float64),
        torch.tensor([i for i, _, _ in rows]),
        torch.tensor([[related[names[i]][each] for each in (pair.winner, pair.loser)] for i, _, pair in rows])
        if related
        else None,
    )


def feature_spread(groups: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the mean (F,) of features over all groups, and their standard deviation (F,) within groups.

    Differences between groups are left out, because nobody picks between prompts. The standard deviation of a feature
    that never varies is infinite, so that it has no effect.

    Args:
        groups: features of each group's candidates, (C, F).
    """
    mean = torch.cat(groups).mean(0)
    within = torch.cat([group - group.mean(0) for group in groups]).square().mean(0).sqrt()
    return mean, torch.where(within > 1e-9 * (1 + mean.abs()), within, math.inf)


def above_chance(right: Tensor) -> float:
    """Return how many standard errors the mean of shares (G,) in [0, 1] is above 1/2.

    The spread is taken around 1/2, as under chance, not around the mean: that one is 0 where all are right.
    """
    margin = right - 0.5
    spread = float(margin.square().mean().sqrt()) if len(margin) else 0.0
    return float(margin.mean()) * math.sqrt(len(margin)) / spread if spread else 0.0


def own_judge(run: Run, kinds: Collection[str] = (), panel: Panel = EVERYBODY) -> Judge | None:
    """Fit a judge to a run's picks; None if there are too few, see `enough`.

    Args:
        run: with picks.
        kinds: names of what was noted of its pictures, for the judge to see beside statistics.
        panel: whose picks.
    """
    training, held_out = preferences(run, panel)
    if not enough(training, held_out):
        return None
    drawn = [group.id for group in run.groups.select(freed=False, recorded=True)]
    return fit_judge(run, seen_in(run, {*drawn, *training, *held_out}, kinds), panel)


def enough(training: Collection[str], held_out: Collection[str]) -> bool:
    """Return whether there are groups enough, with a preference each, to fit a judge and to tell how good it is."""
    return len(training) + len(held_out) >= MIN_GROUPS and len(training) >= MIN_GROUPS // 2


def judge_scores(judge: Judge, run: Run, group_ids: Iterable[str]) -> dict[str, list[float]]:
    """Return the judge's scores of each group's candidates, (C,) in nats, by group id."""
    found = described(run, group_ids, judge.head.features)
    return {group_id: judge.scores(features).tolist() for group_id, features in found.items()}


FORM = "d3po.reward_from_picks"
VERSION = "1"
PROBE_TOLERANCE = 0.02
"""Largest difference between stored and present features, in standard deviations; other machines round differently."""


def save_judge(fitted: Judge, path: Path | str) -> Path:
    """Write a judge to a file, atomically; a file of that name is replaced.

    Raises:
        D3POError: the judge is no better than chance, or the file cannot be written.
    """
    fitted.reward()  # raises if it is no better than chance
    head = fitted.head
    probe = probe_of(cast(Features, head.features))
    tensors = {"mean": head.mean, "std": head.std, "weights": head.weights, "probe": probe}
    metadata = {"form": FORM, "version": VERSION, "facts": json.dumps(dataclasses.asdict(fitted.facts))}
    files.replace(Path(path), files.pack(tensors, metadata))
    return Path(path)


@torch.inference_mode(False)  # as in `get_reward`
def load_judge(path: Path | str) -> Judge:
    """Read a judge from a file.

    Raises:
        D3POError: the file is missing, damaged or of another kind; its features cannot be loaded any more, or have
            changed since.
    """
    path = Path(os.path.expanduser(path))
    tensors, metadata = files.read(path, "The reward from picks", "Fit it again with Reward From Picks.")
    if metadata.get("form") != FORM or metadata.get("version") != VERSION:
        raise D3POError(
            f"{path.name} is not a reward from picks, or one of another version of D3PO.",
            "Choose a file that Reward From Picks wrote.",
        )
    try:
        facts = JudgeFacts(**json.loads(metadata["facts"]))
        features = get_features(facts.features)
        head = Head(features, tensors["mean"], tensors["std"], tensors["weights"])
        probe = tensors["probe"]
    except (KeyError, TypeError, ValueError) as error:
        raise D3POError(f"{path.name} is incomplete ({error}).", "Fit it again with Reward From Picks.") from error
    present = probe_of(features)
    if present.shape != probe.shape or float(((present - probe) / head.std).abs().max()) > PROBE_TOLERANCE:
        raise D3POError(
            f"The features that {path.name} was fitted on ({facts.features}) are not what they were.",
            "Fit it again with Reward From Picks, or put a CLIP folder's earlier files back.",
        )
    return Judge(head, facts)


def load_judge_reward(path: str) -> Reward:
    """Return the reward of the judge in a file; raises as `load_judge` and `Judge.reward` do."""
    return dataclasses.replace(load_judge(path).reward(), name=f"picks:{Path(path).name}")
