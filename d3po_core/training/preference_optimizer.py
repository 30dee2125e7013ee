"""An update's rows, cut where its loss is a sum: then one part at a time needs memory, and no second pass.

A loss on whole trajectories is a sum over groups. One that compares every step by itself, as published, is a sum over
groups and steps, so the graphs of one step of one group are the most that must be held at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ..diffusion.denoiser import Denoiser
from ..diffusion.losses import clipped
from ..diffusion.rollout import generator
from ..errors import D3POError
from ..settings import FilledTrainSettings, prediction_beta
from .methods import METHODS, compares_trajectories
from .passes import BatchLimits, LoraOptimizer, backward
from .reports import Measures, Update
from .rows import (
    Reference,
    Rows,
    TrainingGroup,
    group_rows,
    join_rows,
    noise_images,
    noise_levels,
    predict,
    with_reference,
)


@dataclass(frozen=True)
class Block:
    """Rows whose loss needs no others: a group, or one step of it where every step is compared by itself.

    Attributes:
        rows: candidate-major.
        group: that they are of.
        candidates: how many; rows are (candidates * steps in this block).
        weight: of this block's loss in the update's.
    """

    rows: Rows
    group: TrainingGroup
    candidates: int
    weight: float

    def loss(self, values: Tensor, settings: FilledTrainSettings, offset: float) -> Tensor:
        """This block's part of the update's loss, of its values (C, k, V). ()"""
        return self.weight * METHODS[settings.method].loss(values, self.group, settings, offset)

    def shaped(self, values: Tensor) -> Tensor:
        """(C * k, V) to (C, k, V)."""
        return values.unflatten(0, (self.candidates, -1))


def same_shape(one: Rows, other: Rows) -> bool:
    """Whether two groups' rows can be one batch: the same sizes of latents and conditioning, the same guidance."""

    def kind(rows: Rows) -> tuple[object, ...]:
        sizes = {name: value.shape[1:] for name, value in rows.conditioning.items()}
        return rows.x.shape[1:], sizes, rows.guidance_scale

    return kind(one) == kind(other)


def pack_blocks(blocks: Sequence[Block], rows: int) -> list[list[Block]]:
    """Blocks to be evaluated at once: as many alike as have together no more than `rows`, but at least one."""
    found: list[list[Block]] = []
    limits = 0
    for block in blocks:
        if not found or limits < len(block.rows) or not same_shape(found[-1][0].rows, block.rows):
            found.append([])
            limits = rows
        found[-1].append(block)
        limits -= len(block.rows)
    return found


def make_blocks(group: TrainingGroup, rows: Rows, settings: FilledTrainSettings, weight: float) -> list[Block]:
    """A group's blocks.

    Args:
        group: the group.
        rows: all of its rows, candidate-major.
        settings: method and level decide what the loss joins.
        weight: of the group's loss in the update's.
    """
    candidates = len(group.scores)
    steps = len(rows) // candidates
    if compares_trajectories(settings):
        return [Block(rows, group, candidates, weight)]
    return [Block(rows[slice(k, None, steps)], group, candidates, weight / steps) for k in range(steps)]


TIE = 1e-6
"""Differences of log-ratios (means over elements) smaller than this are rounding, and count as half a right guess."""
Load = Callable[[str], TrainingGroup]


class PreferenceOptimizer:
    """A LoRA's training on some groups.

    Args:
        denoiser: the policy, its LoRA active.
        parameters: the LoRA's trainable parameters.
        groups: ids of the groups to train on, with their numbers of pairs.
        load: gives a group by id.
        reference: the policy to depart from.
        settings: how.
        limits: rows at once.
        base: the base model, where the reference is another policy.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        parameters: Sequence[torch.nn.Parameter],
        groups: dict[str, int],
        load: Load,
        reference: Reference,
        settings: FilledTrainSettings,
        limits: BatchLimits,
        base: Reference | None = None,
    ) -> None:
        self.denoiser, self.settings, self.load = denoiser, settings, load
        self.reference, self.base, self.method = reference, base or reference, METHODS[settings.method]
        self.parameters = list(parameters)
        self.limits = limits
        given = self.settings
        self.optimizer = LoraOptimizer(denoiser, self.parameters, given.learning_rate, given.warmup, given.grad_clip)
        self.done, self._offset = 0, 0.0
        self._groups = groups
        self._batches = [batch for epoch in range(settings.epochs) for batch in self._epoch(epoch)]

    @property
    def total(self) -> int:
        """Number of updates."""
        return len(self._batches)

    def ends_epoch(self, after: int) -> bool:
        """Whether so many updates end an epoch."""
        return after == self.total or self._batches[after][0] != self._batches[after - 1][0]

    def measure(self, names: Sequence[str]) -> Measures:
        """Measures of the policy as it is now on the groups with these ids, at least one, without training."""
        groups, values = [self.load(name) for name in names], []
        with torch.no_grad():
            for group in groups:
                parts = self._rows(group, "measure").split(self.limits.forward)
                found = torch.cat([self._values(part) for part in parts])
                values.append(found.unflatten(0, (len(group.scores), -1)).cpu())
        return self._measures(groups, values)

    def _epoch(self, epoch: int) -> list[tuple[int, list[str]]]:
        """Shuffled groups, cut so that every update has at least `batch` pairs; a short rest joins the last."""
        ids = sorted(self._groups)
        order = [ids[i] for i in torch.randperm(len(ids), generator=generator(self.settings.seed, "epoch", epoch))]
        batches: list[list[str]] = [[]]
        for name in order:
            if sum(self._groups[g] for g in batches[-1]) >= self.settings.batch:
                batches.append([])
            batches[-1].append(name)
        if len(batches) > 1 and sum(self._groups[g] for g in batches[-1]) < self.settings.batch / 2:
            rest = batches.pop()
            batches[-1] += rest
        return [(epoch, batch) for batch in batches]

    def _rows(self, group: TrainingGroup, *luck: int | str) -> Rows:
        """A group's rows; where they are noised anew, `luck` says how."""
        if self.method.rows == "images":
            chance = generator(self.settings.seed, group.id, *luck)
            return with_reference(
                noise_images(group, self._levels, self.settings.draws, chance, self.denoiser), self.reference
            )
        guided = self.settings.guided_loss
        if self.method.reference == "sampler":
            ref = group.guided if guided else group.cond
        else:
            ref = self.reference.predictions(group, guided)
        base = self.base.predictions(group, guided) if self.method.anchored else None
        return group_rows(group, ref, guided, self.denoiser.device, base)

    @cached_property
    def _levels(self) -> Tensor:
        return noise_levels(self.denoiser, self.settings.lowest_sigma)

    def _values(self, rows: Rows) -> Tensor:
        return self.method.values(predict(self.denoiser, rows), rows, self.settings)

    def update(self) -> Update:
        """Take the next optimiser step; only while `done` is below `total`."""
        epoch, names = self._batches[self.done]
        groups = [self.load(name) for name in names]
        parts = [make_blocks(g, self._rows(g, self.done), self.settings, 1 / len(groups)) for g in groups]
        found = iter(self._backward([block for blocks in parts for block in blocks]))
        values = [torch.cat([next(found) for _ in blocks], 1) for blocks in parts]
        norm = self.optimizer.step(self.done)
        self.done += 1
        self._offset = float(torch.cat([found[..., 0].flatten() for found in values]).mean())
        measures = self._measures(groups, values)
        return Update(self.done, self.total, epoch, measures, norm)

    def _backward(self, blocks: Sequence[Block]) -> list[Tensor]:
        """Gradient of the loss, in smaller micro-batches if memory runs out; the values (C, k, V) of every block."""
        while True:
            self.optimizer.zero_grad()
            try:
                found = [self._backward_of(pack) for pack in pack_blocks(blocks, self.limits.forward)]
            except torch.cuda.OutOfMemoryError as error:  # its name in every torch, for all devices
                if self.limits.backward == 1:
                    raise D3POError(
                        "One image and one step do not fit in memory.",
                        "Turn on checkpointing, or close other programs.",
                        "Your picks and what was learnt are saved.",
                    ) from error
                largest = max(
                    sum(len(block.rows) for block in pack) for pack in pack_blocks(blocks, self.limits.forward)
                )
                most = min(self.limits.backward, largest) // 2 or 1
                self.limits = BatchLimits(most, min(most, self.limits.forward))
                found = []
            if not found:  # only here, where the error's traceback holds no tensors any more
                if self.denoiser.device.type == "cuda":
                    torch.cuda.empty_cache()
                continue
            if not all(loss.isfinite() for loss, _ in found):
                raise D3POError(
                    "Training has run away: the loss is not a number any more.",
                    "Lower the learning rate and start the round anew.",
                    "Your picks and the last good state are saved.",
                )
            return [part for _, values in found for part in values]

    def _backward_of(self, pack: Sequence[Block]) -> tuple[Tensor, list[Tensor]]:
        """Add the gradient of some blocks' loss; the loss, and the values of every block."""
        sizes = [len(block.rows) for block in pack]

        def shaped(values: Tensor) -> list[Tensor]:
            return [block.shaped(part) for block, part in zip(pack, values.split(sizes), strict=True)]

        def loss_of(values: Tensor) -> Tensor:
            losses = [b.loss(part, self.settings, self._offset) for b, part in zip(pack, shaped(values), strict=True)]
            return torch.stack(losses).sum()

        rows = join_rows([block.rows for block in pack])
        loss, values = backward(self._values, rows, loss_of, self.limits, self.optimizer.scale)
        return loss, shaped(values)

    def _measures(self, groups: Sequence[TrainingGroup], values: Sequence[Tensor]) -> Measures:
        """From each group and its values (C, K, V)."""
        beta = prediction_beta(self.settings)
        losses, differences, hits, margins = [], [], [], []
        for group, found in zip(groups, values, strict=True):
            losses.append(float(self.method.loss(found, group, self.settings, self._offset)))
            if not group.pairs:
                continue
            whole = found[..., 0].sum(1)
            apart = [float(whole[pair.winner] - whole[pair.loser]) for pair in group.pairs]
            weights = [pair.weight for pair in group.pairs]
            hits.append(_mean([_right(difference) for difference in apart], weights))
            margins.append(beta * _mean(apart, weights))
            differences += apart
        return Measures(
            loss=math.fsum(losses) / len(losses),
            accuracy=math.fsum(map(_right, differences)) / len(differences) if differences else 0.5,
            margin=beta * math.fsum(differences) / max(1, len(differences)),
            clip_fraction=float(clipped(torch.cat([found[..., 0].flatten() for found in values]), self.settings.clip)),
            hits=tuple(hits),
            margins=tuple(margins),
        )


def _mean(values: Sequence[float], weights: Sequence[float]) -> float:
    return sum(v * w for v, w in zip(values, weights, strict=True)) / math.fsum(weights)


def _right(difference: float) -> float:
    return 0.5 if abs(difference) < TIE else float(difference > 0)
