"""What a round learns from: pairs and scores from a run's picks or a reward, and the groups' tensors, checked."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypedDict

import torch
from torch import Tensor

from ..diffusion.denoiser import Denoiser
from ..diffusion.rollout import from_tensors
from ..errors import D3POError, check_stop
from ..picks import Mask, Pair, graded, ordered, pairs, scores, weighted
from ..rewards import Reward, check_varied
from ..rewards.judge import JudgeFacts, judge_scores, own_judge
from ..run import Group, Judgement, Run
from ..run.panel import EVERYBODY, Panel
from ..run.run import read_images
from .masks import latent_weight
from .methods import METHODS, needs_recording
from .rows import TrainingGroup, group_rows, predict

SAME_MODEL = 0.02
"""Largest relative difference of a recorded and a recomputed prediction that storage and device can explain."""


FLAGGED = 3.0
"""Nats that a flagged picture is below the worst of its group: what it lacks need not be in a judge's features."""


class StoredPair(TypedDict):
    """A `Pair` in JSON."""

    winner: int
    loser: int
    weight: float


class StoredPreferences(TypedDict, total=False):
    """`PreferenceData` in JSON; rounds of 0.1.0's first runs have no scores."""

    training: dict[str, list[StoredPair]]
    held_out: dict[str, list[StoredPair]]
    scores: dict[str, list[float]]
    judge: dict[str, Any] | None
    masks: dict[str, list[tuple[int, list[int]]]]


@dataclass(frozen=True)
class PreferenceData:
    """What a round learns from, by group, fixed when the round begins: later picks are for the next.

    Attributes:
        training, held_out: pairs.
        scores: how much each candidate was liked, of the groups in either, (C,): in [-1, 1], or a judge's in nats.
        judge: what is known of the judge who ordered the pictures; None where picks or a reward speak for themselves.
        masks: which parts of candidates people mean, each a candidate's number and the mask of one of those who judged
            the group; of training and held-out groups.
    """

    training: dict[str, list[Pair]]
    held_out: dict[str, list[Pair]]
    scores: dict[str, list[float]]
    judge: JudgeFacts | None = None
    masks: dict[str, list[tuple[int, Mask]]] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """Return the share of what can be learnt that the evidence allows; all of it where nobody weighs it."""
        return 1.0 if self.judge is None else self.judge.share

    def to_json(self) -> dict[str, object]:
        """Return what a run keeps of it, `StoredPreferences`."""
        return dataclasses.asdict(self)

    def without(self, group_id: str) -> PreferenceData:
        """Return the data without one group."""
        training, held_out = dict(self.training), dict(self.held_out)
        training.pop(group_id, None)
        held_out.pop(group_id, None)
        return dataclasses.replace(self, training=training, held_out=held_out)

    @classmethod
    def from_json(cls, data: StoredPreferences) -> PreferenceData:
        """Read what a run keeps."""

        def read(groups: dict[str, list[StoredPair]]) -> dict[str, list[Pair]]:
            return {group_id: [Pair(**pair) for pair in stored] for group_id, stored in groups.items()}

        judge = data.get("judge")
        facts = JudgeFacts(**judge) if judge else None
        masks = {
            group_id: [(candidate, tuple(rows)) for candidate, rows in each]
            for group_id, each in data.get("masks", {}).items()
        }
        return cls(read(data["training"]), read(data["held_out"]), data.get("scores", {}), facts, masks)


def collect_preferences(run: Run, method: str = "d3po", panel: Panel = EVERYBODY) -> PreferenceData:
    """Collect what follows from a run's picks and flags.

    Of a group that several people judged the mean of what they say counts, pairs and scores alike, whoever finds no
    picture better among them: a group that all of them saw to compare them counts no more than one that a single person
    saw.

    Args:
        run: with picks.
        method: of `METHODS`. One of scores learns also from groups in which all images were liked or disliked; one of
            finished images also from groups that were imported with their latents.
        panel: whose picks and flags, and how much each person's count.

    Raises:
        D3POError: there is nothing to train on, or only images that this method cannot learn from.
    """
    by_scores, of_steps = METHODS[method].judgements == "scores", needs_recording(method)
    training: dict[str, list[Pair]] = {}
    held_out: dict[str, list[Pair]] = {}
    scored: dict[str, list[float]] = {}
    imported = freed = 0
    judgements = panel.judgements(run)
    people = _by_group(judgements)
    for group_id, several in people.items():
        group = run.groups.get(group_id)
        group_pairs: list[Pair] = []
        sums = [0.0] * group.candidates
        for one in several:
            judgement = (one.pick, group.candidates, one.shown_order or group.distinct, one.flagged)
            weight = panel.weight(one.who) / len(several)
            group_pairs += weighted(pairs(*judgement), weight)
            sums = [total + weight * score for total, score in zip(sums, scores(*judgement), strict=True)]
        informative = bool(group_pairs) or (by_scores and any(sums))
        usable = group.recorded or not of_steps
        imported += informative and not usable
        freed += informative and usable and group.freed
        if informative and usable and not group.freed:
            (held_out if group.held_out else training)[group.id] = group_pairs
            scored[group.id] = [max(-1.0, min(1.0, total)) for total in sums]
    if not training:
        if imported and not held_out:
            raise D3POError(
                f"All favourites so far are of imported pictures, and {method} needs to have recorded how they were "
                "drawn.",
                "Draw groups and pick in those, or choose a method that learns from pictures alone, such as "
                "diffusion-nft.",
                "Your picks are saved.",
            )
        raise D3POError(_nothing_to_learn(len(judgements), len(held_out), freed), "Pick favourites in more groups.")
    judges = {group_id: {one.who for one in people[group_id]} for group_id in scored}
    return PreferenceData(training, held_out, scored, masks=_masks(run, judges))


def _by_group(judgements: Iterable[Judgement]) -> dict[str, list[Judgement]]:
    """Return what people said of each group, by its id; who skipped a group and flagged nothing said nothing."""
    people: dict[str, list[Judgement]] = {}
    for one in judgements:
        if one.flags or (one.pick and one.pick.kind != "skipped"):
            people.setdefault(one.group_id, []).append(one)
    return people


def _masks(run: Run, judges: Mapping[str, Collection[str]]) -> dict[str, list[tuple[int, Mask]]]:
    """Return what people painted on candidates of groups that they judged; by itself a mask says nothing.

    Args:
        run: the run.
        judges: names of those whose picks or flags count, by group.
    """
    masks: dict[str, list[tuple[int, Mask]]] = {}
    for stored in run.masks.standing():
        if stored.who in judges.get(stored.group_id, ()):
            masks.setdefault(stored.group_id, []).append((stored.candidate, stored.mask))
    return masks


def judged_preferences(
    run: Run, method: str = "d3po", kinds: Collection[str] = (), panel: Panel = EVERYBODY
) -> PreferenceData:
    """Let a judge that is fitted to the picks order the pictures of all groups, also of those that nobody has seen.

    What a person has flagged is worse than the rest of its group. The pairs of held-out groups are the people's own.
    Methods of scores learn from the picks themselves; the judge weighs the evidence alone. With too few picks there is
    no judge, and what is returned follows from the picks alone.

    Args:
        run: with picks.
        method: of `METHODS`.
        kinds: of what was noted of pictures, for the judge to see; see `own_judge`.
        panel: whose picks and flags.

    Raises:
        D3POError: see `collect_preferences`.
    """
    picked, judge = collect_preferences(run, method, panel), own_judge(run, kinds, panel)
    if judge is None:
        return picked
    if METHODS[method].judgements == "scores":  # what is bad or liked by itself is more than an order
        return dataclasses.replace(picked, judge=judge.facts)
    drawn = [group.id for group in run.groups.select(freed=False, recorded=True) if not group.held_out]
    scored = judge_scores(judge, run, dict.fromkeys([*drawn, *picked.training]))
    for group_id, several in _by_group(panel.judgements(run)).items():
        if group_id in scored:
            scored[group_id] = _lowered(scored[group_id], several, panel)
    training = {group_id: graded(values) for group_id, values in scored.items()}
    held_out_scores = {group_id: picked.scores[group_id] for group_id in picked.held_out}
    return PreferenceData(training, picked.held_out, {**scored, **held_out_scores}, judge.facts, picked.masks)


def _lowered(values: list[float], several: list[Judgement], panel: Panel) -> list[float]:
    """Return a judge's scores of a group's candidates, (C,), in which flagged ones are worse than all others.

    Where only some of those who judged the group flagged a candidate, it is lowered by as much of the way as they
    count for: one of sixteen people does not outweigh the others.
    """
    lowest = min(values) - FLAGGED
    total = sum(panel.weight(one.who) for one in several)
    shares = [sum(panel.weight(one.who) for one in several if c in one.flagged) / total for c in range(len(values))]
    return [(1 - share) * value + share * lowest for value, share in zip(values, shares, strict=True)]


def score_preferences(run: Run, reward: Reward, method: str) -> PreferenceData:
    """Score all of a run's images by a reward, differentiable or not, in place of picks.

    Raises:
        D3POError: there is no group that the method can learn from, or all images have the same reward.
    """
    of_steps = needs_recording(method)
    training: dict[str, list[Pair]] = {}
    held_out: dict[str, list[Pair]] = {}
    scored: dict[str, list[float]] = {}
    for group in run.groups.select(freed=False):
        check_stop()
        if (group.recorded or not of_steps) and _counts_once(group, method):
            rewards = reward(read_images(run, group), [group.prompt] * group.candidates).tolist()
            (held_out if group.held_out else training)[group.id] = ordered(rewards)
            scored[group.id] = rewards
    if not training:
        raise D3POError("There are no pictures to learn from in this run.", "Draw some groups first.")
    values = torch.tensor([score for rewards in scored.values() for score in rewards], dtype=torch.float64)
    check_varied(reward, values)
    mean, largest = float(values.mean()), float((values - values.mean()).abs().max())
    normalised = {group_id: [(score - mean) / largest for score in rewards] for group_id, rewards in scored.items()}
    return PreferenceData(training, held_out, normalised)


def _counts_once(group: Group, method: str) -> bool:
    """Return whether a method of scores or of pairs learns from a group: a tournament's pictures are groups of their
    own, and of its matches."""
    return not group.entrants if METHODS[method].judgements == "scores" else group.candidates > 1


class UnusableGroup(D3POError):
    """A group that was to be trained on cannot be read."""

    def __init__(self, group_id: str, reason: D3POError) -> None:
        self.group_id = group_id
        super().__init__(reason.what, "It is left out from now on: train again.", reason.safe)


class GroupLoader:
    """Loads groups with their pairs; every call reads the disk, so that memory holds one update's groups only."""

    def __init__(self, run: Run, data: PreferenceData) -> None:
        self._run = run
        self._pairs, self._scores, self._masks = {**data.training, **data.held_out}, data.scores, data.masks

    def __call__(self, group_id: str) -> TrainingGroup:
        """Load a group by id.

        Raises:
            UnusableGroup: its file is missing or damaged, or its trajectory was deleted to free space.
        """
        stored = self._run.groups.get(group_id)
        try:
            tensors = self._run.groups.trajectory(group_id)
        except D3POError as error:
            raise UnusableGroup(group_id, error) from error
        if "latents" not in tensors:
            raise UnusableGroup(group_id, _without_latents(stored.number))
        trajectory, steps = from_tensors(tensors)
        return TrainingGroup(
            id=group_id,
            pairs=self._pairs[group_id],
            scores=self._scores.get(group_id) or [0.0] * len(trajectory.latents),
            steps=steps,
            x=trajectory.x,
            cond=trajectory.cond,
            guided=trajectory.guided,
            latents=trajectory.latents,
            policy=stored.policy,
            conditioning=self._run.prompts.conditioning(stored.prompt_id),
            guidance_scale=stored.settings.get("guidance_scale", 1.0),
            weight=latent_weight(self._masks.get(group_id, []), trajectory.latents),
        )


def _without_latents(number: int) -> D3POError:
    return D3POError(
        f"The imported pictures of group {number} were never encoded.",
        "Import them again with the model at hand.",
        "Your picks are saved.",
    )


def _nothing_to_learn(judged: int, held_out: int, freed: int) -> str:
    if judged == 0:
        return "Nothing has been picked in this run yet."
    if freed:
        return "All favourites so far are in groups whose tensors were freed, or that are held out."
    if held_out:
        return "All favourites so far are in held-out groups, which are never trained on."
    return f"None of the {judged} picks says that one image is better than another (ties, all bad, skipped)."


class AnotherModel(D3POError):
    """The model is not the one that sampled.

    Attributes:
        group_id: a group whose recorded step comes out different.
        difference: relative.
    """

    def __init__(self, group_id: str, difference: float) -> None:
        self.group_id, self.difference = group_id, difference
        super().__init__(
            f"This run was sampled with another base model: a recorded step comes out {difference:.0%} different now.",
            "Load the model that sampled it, start a new run for this one, or let the reference be re-evaluated.",
            "Your picks are saved.",
        )


def of_each_kind(run: Run, group_ids: Iterable[str]) -> list[str]:
    """Return one group of each policy that sampled and, where a host has noted it, of each graph."""
    kinds: dict[str, str] = {}
    for group_id in group_ids:
        group = run.groups.get(group_id)
        kinds.setdefault(json.dumps([group.policy, group.settings.get("graph")]), group_id)
    return list(kinds.values())


@torch.no_grad()
def check_same_model(denoiser: Denoiser, group: TrainingGroup) -> None:
    """Evaluate one recorded step anew and compare; the denoiser must be the policy that sampled the group.

    Raises:
        AnotherModel: it is not the one that sampled.
    """
    rows = group_rows(group, group.cond, False, denoiser.device)[slice(0, 1)]
    now = predict(denoiser, rows)
    difference = _relative(now, rows.ref)
    if not difference <= SAME_MODEL:
        raise AnotherModel(group.id, difference)


def _relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())
