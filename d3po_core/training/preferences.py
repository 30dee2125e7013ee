"""Picked groups from a run, as training needs them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..diffusion.denoiser import Denoiser
from ..diffusion.recording import from_tensors
from ..errors import D3POError
from ..picks import Pair, ordered, pairs, scores
from ..rewards import Reward, check_varied
from ..run import Run
from ..run.images import read_images
from .methods import METHODS, needs_recording
from .rows import TrainingGroup, group_rows, predict

SAME_MODEL = 0.02
"""Largest relative difference of a recorded and a recomputed prediction that storage and device can explain."""


@dataclass(frozen=True)
class PreferenceData:
    """What a round learns from, by group, fixed when the round begins: later picks are for the next.

    Attributes:
        training, held_out: pairs.
        scores: how much each candidate was liked, of the groups in either, (C,) in [-1, 1].
    """

    training: dict[str, list[Pair]]
    held_out: dict[str, list[Pair]]
    scores: dict[str, list[float]]

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def without(self, group_id: str) -> PreferenceData:
        """The lesson less one group."""
        training, held_out = dict(self.training), dict(self.held_out)
        training.pop(group_id, None)
        held_out.pop(group_id, None)
        return PreferenceData(training, held_out, self.scores)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> PreferenceData:
        def read(groups: dict[str, list[dict[str, Any]]]) -> dict[str, list[Pair]]:
            return {name: [Pair(**pair) for pair in found] for name, found in groups.items()}

        return cls(read(data["training"]), read(data["held_out"]), data.get("scores", {}))  # older rounds have none


def collect_preferences(run: Run, method: str = "d3po") -> PreferenceData:
    """All that follows from a run's picks and flags, several people's on one group added up.

    Args:
        run: with picks.
        method: of `METHODS`. One of scores learns too from groups in which all were liked or disliked alike; one of
            finished images from groups that were imported with their latents.

    Raises:
        D3POError: there is nothing to train on, or only pictures that this method cannot learn from.
    """
    by_scores, of_steps = METHODS[method].judgements == "scores", needs_recording(method)
    training: dict[str, list[Pair]] = {}
    held_out: dict[str, list[Pair]] = {}
    scored: dict[str, list[list[float]]] = {}
    imported = 0
    judged = run.picks.judgements()
    for one in judged:
        group = run.groups.get(one.group_id)
        about = (one.pick, group.candidates, one.shown_order or group.distinct, one.flagged)
        found, said = pairs(*about), scores(*about)
        says = bool(found) or (by_scores and any(said))
        usable = group.recorded or not of_steps
        imported += says and not usable
        if says and usable and not group.freed:
            (held_out if group.held_out else training).setdefault(group.id, []).extend(found)
            scored.setdefault(group.id, []).append(said)
    if not training:
        if imported and not held_out:
            raise D3POError(
                f"All favourites so far are of imported pictures, and {method} needs to have recorded how they were "
                "drawn.",
                "Draw groups and pick in those, or choose a method that learns from pictures alone, such as "
                "diffusion-nft.",
                "Your picks are saved.",
            )
        raise D3POError(_nothing_to_learn(len(judged), len(held_out)), "Pick favourites in more groups.")
    return PreferenceData(training, held_out, {name: _mean_scores(people) for name, people in scored.items()})


def score_preferences(run: Run, reward: Reward, method: str) -> PreferenceData:
    """What a reward says of all of a run's pictures, in place of picks: for methods that may see the reward itself.

    Args:
        run: with groups.
        reward: need not be differentiable.
        method: of `METHODS`.

    Raises:
        D3POError: there is no group that the method can learn from, or all pictures have the same reward.
    """
    of_steps = needs_recording(method)
    training: dict[str, list[Pair]] = {}
    held_out: dict[str, list[Pair]] = {}
    scored: dict[str, list[float]] = {}
    for group in run.groups.select(freed=False):
        if group.recorded or not of_steps:
            said = reward(read_images(run, group), [group.prompt] * group.candidates).tolist()
            (held_out if group.held_out else training)[group.id] = ordered(said)
            scored[group.id] = said
    if not training:
        raise D3POError("There are no pictures to learn from in this run.", "Draw some groups first.")
    values = torch.tensor([score for said in scored.values() for score in said], dtype=torch.float64)
    check_varied(reward, values)
    middle, most = float(values.mean()), float((values - values.mean()).abs().max())
    return PreferenceData(
        training, held_out, {name: [(s - middle) / most for s in said] for name, said in scored.items()}
    )


def _mean_scores(people: list[list[float]]) -> list[float]:
    """Several people's scores of a group's candidates as one."""
    return [sum(said) / len(said) for said in zip(*people, strict=True)]


class UnusableGroup(D3POError):
    """A group that was to be trained on cannot be read."""

    def __init__(self, group_id: str, reason: D3POError) -> None:
        self.group_id = group_id
        super().__init__(reason.what, "It is left out from now on: train again.", reason.safe)


class GroupLoader:
    """Loads groups with their pairs; every call reads the disk, so memory holds one update's groups only."""

    def __init__(self, run: Run, lesson: PreferenceData) -> None:
        self._run = run
        self._pairs, self._scores = {**lesson.training, **lesson.held_out}, lesson.scores

    def __call__(self, group_id: str) -> TrainingGroup:
        """A group by id.

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
        )


def _without_latents(number: int) -> D3POError:
    return D3POError(
        f"The imported pictures of group {number} were never encoded.",
        "Import them again with the model at hand.",
        "Your picks are saved.",
    )


def _nothing_to_learn(judged: int, held_out: int) -> str:
    if judged == 0:
        return "Nothing has been picked in this run yet."
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
    """One group of each policy that sampled and, where a host has noted it, of each graph."""
    found: dict[str, str] = {}
    for group_id in group_ids:
        group = run.groups.get(group_id)
        found.setdefault(json.dumps([group.policy, group.settings.get("graph")]), group_id)
    return list(found.values())


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
