"""The updates of a round by picks. An update's rows are cut into blocks where its loss is a sum.

A loss on whole trajectories is a sum over groups. One that compares every step by itself, as published, is a sum over
groups and steps. Each block has its own backward pass, so that the graphs of one block are the most that must be held
at once, and no second pass is needed.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ..diffusion.denoiser import Denoiser
from ..diffusion.losses import clipped
from ..diffusion.rollout import generator
from ..errors import D3POError, unbroken
from ..picks import Pick, pairs
from ..processes import ALONE, Message, Processes
from ..settings import FilledTrainSettings, prediction_beta, useful_epochs
from .methods import METHODS, compares_trajectories
from .passes import BatchLimits, LoraOptimizer, backward
from .preferences import UnusableGroup
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
        rows: candidate-major, (candidates * steps in this block).
        group: the rows' group.
        candidates: number of the group's candidates.
        weight: of this block's loss in the update's.
    """

    rows: Rows
    group: TrainingGroup
    candidates: int
    weight: float

    def loss(self, values: Tensor, settings: FilledTrainSettings, offset: float) -> Tensor:
        """Return this block's part of the update's loss, a scalar, from its values (C, k, V)."""
        return self.weight * METHODS[settings.method].loss(values, self.group, settings, offset)

    def shaped(self, values: Tensor) -> Tensor:
        """Reshape (C * k, V) to (C, k, V)."""
        return values.unflatten(0, (self.candidates, -1))


def same_shape(one: Rows, other: Rows) -> bool:
    """Return whether two groups' rows can be one batch: equal sizes of latents and conditioning, and equal guidance."""

    def kind(rows: Rows) -> tuple[object, ...]:
        sizes = {name: value.shape[1:] for name, value in rows.conditioning.items()}
        return rows.x.shape[1:], sizes, rows.guidance_scale

    return kind(one) == kind(other)


def pack_blocks(blocks: Sequence[Block], rows: int) -> list[list[Block]]:
    """Pack blocks to be evaluated at once: blocks of one shape, no more than `rows` rows together, but at least one."""
    packs: list[list[Block]] = []
    left = 0
    for block in blocks:
        if not packs or left < len(block.rows) or not same_shape(packs[-1][0].rows, block.rows):
            packs.append([])
            left = rows
        packs[-1].append(block)
        left -= len(block.rows)
    return packs


def make_blocks(group: TrainingGroup, rows: Rows, settings: FilledTrainSettings, weight: float) -> list[Block]:
    """Cut a group's rows into blocks.

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


def rows_at_once(limits: BatchLimits, candidates: int, recorded: int, settings: FilledTrainSettings) -> int:
    """Return how many rows an update has in one backward pass; see `pack_blocks`.

    Args:
        limits: of the trainer.
        candidates: of a group.
        recorded: trained steps of an image.
        settings: how it is trained.
    """
    if METHODS[settings.method].rows == "images":
        steps = settings.draws
    else:
        steps = min(settings.trained_steps or recorded, recorded)
    compared = candidates * (candidates - 1) // 2 if settings.judge else len(pairs(Pick("favourite", (0,)), candidates))
    groups = -(-settings.batch // max(1, compared))
    block = candidates * (steps if compares_trajectories(settings) else 1)
    total = groups * candidates * steps
    pack = max(block, min(total, limits.forward // block * block))
    return pack if limits.backward >= pack else min(limits.forward, pack)


TIE = 1e-6
"""Differences of log-ratios (means over elements) below this are rounding, and count as half a right prediction."""
Load = Callable[[str], TrainingGroup]


class PreferenceOptimizer:
    """Trains a LoRA on some groups, update by update.

    Args:
        denoiser: the policy, its LoRA active.
        parameters: the LoRA's trainable parameters.
        groups: ids of the groups to train on, with their numbers of pairs.
        recorded: steps of each picture of a group, by id, see `useful_epochs`; a group that is not there has no limit.
        load: loads a group by id.
        reference: the policy that log-ratios are taken to.
        settings: how it is trained.
        limits: rows at once.
        base: the base model, where the reference is another policy.
        processes: which train this together, each whole groups.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        parameters: Sequence[torch.nn.Parameter],
        groups: dict[str, int],
        recorded: Mapping[str, int],
        load: Load,
        reference: Reference,
        settings: FilledTrainSettings,
        limits: BatchLimits,
        base: Reference | None = None,
        processes: Processes = ALONE,
    ) -> None:
        self._processes = processes
        self.denoiser, self.settings, self.load = denoiser, settings, load
        self.reference, self.base, self.method = reference, base or reference, METHODS[settings.method]
        self.parameters = list(parameters)
        self.limits = limits
        self.done, self.offset = 0, 0.0
        self._groups = groups
        self._epochs = {name: useful_epochs(settings, recorded.get(name, 0)) for name in groups}
        self._batches = [batch for epoch in range(max(self._epochs.values())) for batch in self._epoch(epoch)]
        self.optimizer = LoraOptimizer(
            denoiser,
            self.parameters,
            settings.learning_rate,
            settings.warmup,
            settings.grad_clip,
            self.total if settings.decay else 0,
        )

    @property
    def total(self) -> int:
        """Return the number of updates."""
        return len(self._batches)

    def measure(self, names: Sequence[str]) -> Measures:
        """Measure the policy as it is now on the groups with these ids, at least one, without training."""
        found = []
        with torch.no_grad():
            for group in self._loaded(names):
                parts = self._rows(group, "measure").split(self.limits.forward)
                by_row = torch.cat([self._values(part) for part in parts])
                found.append(self._measured(group, by_row.unflatten(0, (len(group.scores), -1)).cpu()))
        return self._joined(found)[0]

    def _epoch(self, epoch: int) -> list[tuple[int, list[str]]]:
        """Shuffle the groups and cut them so that every update has at least `batch` pairs; a short rest joins the last.

        Returns:
            The epoch and the groups' ids, for each update.
        """
        ids = sorted(name for name in self._groups if epoch < self._epochs[name])
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

    def _rows(self, group: TrainingGroup, *key: int | str) -> Rows:
        """Return a group's rows.

        Args:
            group: the group.
            key: seeds the noise where finished images are noised anew.
        """
        if self.method.rows == "images":
            rng = generator(self.settings.seed, group.number, *key)
            noised = noise_images(group, self._levels, self.settings.draws, rng, self.denoiser)
            return with_reference(noised, self.reference)
        guided = self.settings.guided_loss
        if self.method.reference == "sampler":
            ref = group.guided if guided else group.cond
        else:
            ref = self.reference.predictions(group, guided)
        base = self.base.predictions(group, guided) if self.method.anchored else None
        to_picture = self.settings.method == "d3po" and self.settings.credit == "picture"
        clean = self.denoiser.clean(group.latents) if to_picture else None
        return group_rows(group, ref, guided, self.denoiser.device, base, clean)

    def _rows_of_update(self, group: TrainingGroup, epoch: int) -> Rows:
        """Return the rows that an update trains: of recorded steps `trained_steps`, the same of all candidates.

        They are drawn at random without replacement: every epoch brings other steps, until all have been used.
        """
        rows, (candidates, steps), count = self._rows(group, self.done), group.shape, self.settings.trained_steps
        if self.method.rows == "images" or not 0 < count < steps:
            return rows
        turns = -(-steps // count)
        order = torch.randperm(steps, generator=generator(self.settings.seed, group.number, "steps", epoch // turns))
        chosen = order[count * (epoch % turns) :][:count].sort().values
        return rows[(torch.arange(candidates)[:, None] * steps + chosen).flatten()]

    @cached_property
    def _levels(self) -> Tensor:
        return noise_levels(self.denoiser, self.settings.lowest_sigma)

    def _values(self, rows: Rows) -> Tensor:
        return self.method.values(predict(self.denoiser, rows), rows, self.settings)

    def update(self) -> Update:
        """Take the next optimiser step; only while `done` is below `total`."""
        epoch, names = self._batches[self.done]
        groups = self._loaded(names)
        rows = [self._rows_of_update(group, epoch) for group in groups]
        parts = [make_blocks(g, of, self.settings, 1 / len(names)) for g, of in zip(groups, rows, strict=True)]
        by_block = iter(self._backward([block for blocks in parts for block in blocks]))
        values = [torch.cat([next(by_block) for _ in blocks], 1) for blocks in parts]
        measures, offset = self._joined([self._measured(*each) for each in zip(groups, values, strict=True)])
        self.optimizer.add_up(self._processes)
        with unbroken():  # half a step could not be gone on from
            norm = self.optimizer.step(self.done)
            self.done += 1
        self.offset = offset
        return Update(self.done, self.total, epoch, measures, norm)

    def _backward(self, blocks: Sequence[Block]) -> list[Tensor]:
        """Accumulate the loss's gradient, in smaller micro-batches if memory runs out.

        Returns:
            The values (C, k, V) of every block.
        """
        if not blocks:  # of several processes one may have no group of an update
            self.optimizer.zero_grad()
            return []
        while True:
            self.optimizer.zero_grad()
            try:
                results = [self._backward_of(pack) for pack in pack_blocks(blocks, self.limits.forward)]
            except torch.cuda.OutOfMemoryError as error:  # its name in every torch, for all devices
                if self.limits.backward == 1:
                    raise D3POError(
                        "One image and one step do not fit in memory.",
                        "Turn on checkpointing, or close other programs.",
                        "Your picks and what was learnt are saved.",
                    ) from error
                self.limits = self._halved(blocks)
                results = []
            if not results:  # only here, where the error's traceback holds no tensors any more
                if self.denoiser.device.type == "cuda":
                    torch.cuda.empty_cache()
                continue
            if not all(loss.isfinite() for loss, _ in results):
                raise D3POError(
                    "Training has run away: the loss is not a number any more.",
                    "Lower the learning rate and start the round anew.",
                    "Your picks and the last good state are saved.",
                )
            return [part for _, values in results for part in values]

    def _halved(self, blocks: Sequence[Block]) -> BatchLimits:
        """Return limits at half of the rows that these blocks needed at once."""
        largest = max(sum(len(block.rows) for block in pack) for pack in pack_blocks(blocks, self.limits.forward))
        rows = min(self.limits.backward, largest) // 2 or 1
        return BatchLimits(rows, min(rows, self.limits.forward))

    def _backward_of(self, pack: Sequence[Block]) -> tuple[Tensor, list[Tensor]]:
        """Add the gradient of some blocks' loss, and return the loss and the values of every block."""
        sizes = [len(block.rows) for block in pack]

        def shaped(values: Tensor) -> list[Tensor]:
            return [block.shaped(part) for block, part in zip(pack, values.split(sizes), strict=True)]

        def loss_of(values: Tensor) -> Tensor:
            losses = [b.loss(part, self.settings, self.offset) for b, part in zip(pack, shaped(values), strict=True)]
            return torch.stack(losses).sum()

        rows = join_rows([block.rows for block in pack])
        loss, values = backward(self._values, rows, loss_of, self.limits, self.optimizer.scale)
        return loss, shaped(values)

    def _loaded(self, names: Sequence[str]) -> list[TrainingGroup]:
        """Load this process's part of some groups; what one of several cannot read ends the work of all."""
        if self._processes.size == 1:
            return [self.load(name) for name in names]
        groups, failed = list[TrainingGroup](), None
        for name in self._processes.mine(names):
            try:
                groups.append(self.load(name))
            except UnusableGroup as error:
                failed = error
        told = (failed.group_id, failed.what, failed.safe) if failed else None
        for message in self._processes.gather(Message(told)):
            if isinstance(message.facts, list):
                group_id, what, safe = message.facts
                raise UnusableGroup(group_id, D3POError(what, safe=safe))
        return groups

    def _measured(self, group: TrainingGroup, values: Tensor) -> GroupMeasures:
        """Compute a group's measures from its values (C, K, V)."""
        ratios, settings = values[..., 0], self.settings
        sums = ratios.sum(1)
        return GroupMeasures(
            loss=float(self.method.loss(values, group, settings, self.offset)),
            differences=[float(sums[pair.winner] - sums[pair.loser]) for pair in group.pairs],
            winners=[float(sums[pair.winner]) / ratios.shape[1] for pair in group.pairs],
            weights=[pair.weight for pair in group.pairs],
            total=float(ratios.double().sum()),
            clipped=float(clipped(ratios.flatten(), settings.clip)) * ratios.numel(),
            rows=ratios.numel(),
        )

    def _joined(self, found: Sequence[GroupMeasures]) -> tuple[Measures, float]:
        """Join what all processes measured of their groups; return also the mean log-ratio of a row."""
        gathered = (
            self._processes.gather(Message([dataclasses.asdict(each) for each in found]))
            if (self._processes.size > 1)
            else []
        )
        by_rank = [[GroupMeasures(**each) for each in message.facts] for message in gathered] or [list(found)]  # type: ignore[attr-defined]
        turns = itertools.zip_longest(*by_rank)  # in the order in which they were dealt out
        groups = [each for turn in turns for each in turn if each is not None]
        rows = sum(each.rows for each in groups)
        return join_measures(groups, prediction_beta(self.settings)), math.fsum(each.total for each in groups) / rows


@dataclass(frozen=True)
class GroupMeasures:
    """What was measured of one group, JSON-able.

    Attributes:
        loss: of the method.
        differences: of each pair, winner's - loser's log-ratio, summed over steps.
        winners: of each pair, the winner's own log-ratio, a mean over steps.
        weights: of each pair.
        total, clipped: over rows, the sum of log-ratios, and how many the clamp changes.
        rows: how many.
    """

    loss: float
    differences: list[float]
    winners: list[float]
    weights: list[float]
    total: float
    clipped: float
    rows: int


def join_measures(groups: Sequence[GroupMeasures], beta: float) -> Measures:
    """Join what was measured of groups, at least one; `beta` as in `settings.prediction_beta`."""
    paired = [each for each in groups if each.weights]
    differences = [difference for each in paired for difference in each.differences]
    winners = [_mean(each.winners, each.weights) for each in paired]
    pairs = max(1, len(differences))
    return Measures(
        loss=math.fsum(each.loss for each in groups) / len(groups),
        accuracy=math.fsum(map(_right, differences)) / pairs if differences else 0.5,
        margin=beta * math.fsum(differences) / pairs,
        clip_fraction=math.fsum(each.clipped for each in groups) / sum(each.rows for each in groups),
        winner=math.fsum(winners) / max(1, len(winners)),
        hits=tuple(_mean([_right(difference) for difference in each.differences], each.weights) for each in paired),
        margins=tuple(beta * _mean(each.differences, each.weights) for each in paired),
    )


def _mean(values: Sequence[float], weights: Sequence[float]) -> float:
    return sum(v * w for v, w in zip(values, weights, strict=True)) / math.fsum(weights)


def _right(difference: float) -> float:
    return 0.5 if abs(difference) < TIE else float(difference > 0)
