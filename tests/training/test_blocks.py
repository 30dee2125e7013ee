"""An update cut into parts gives the update's gradient, and passes through the network once where a part fits."""

from __future__ import annotations

import contextlib
import dataclasses

import pytest
import torch
from torch import Tensor

from d3po_core.picks import Pair
from d3po_core.settings import TrainSettings, fill_in
from d3po_core.training.passes import BatchLimits
from d3po_core.training.preference_optimizer import PreferenceOptimizer, make_blocks, pack_blocks
from d3po_core.training.rows import Reference, Rows, TrainingGroup, group_rows
from tests.toy import ToyDenoiser, toy_group

PLENTY = BatchLimits(100, 100)
RANKED = [Pair(0, 1, 1 / 3), Pair(0, 2, 1 / 3), Pair(2, 1, 1 / 3)]
ROWS = 3 * 3 + 2 * 3
"""Of the two groups below: candidates times trained steps."""


def rows_of(group: TrainingGroup) -> Rows:
    return group_rows(group, group.cond, False, torch.device("cpu"))


class CountingDenoiser(ToyDenoiser):
    """Counts the rows that the network is asked for."""

    rows = 0
    largest = 0

    def __call__(self, x: Tensor, *args, **kwargs):  # type: ignore[no-untyped-def]
        self.rows += len(x)
        self.largest = max(self.largest, len(x))
        return super().__call__(x.double(), *args, **kwargs)


def gradient(groups: list[TrainingGroup], level: str, limits: BatchLimits) -> tuple[Tensor, int, int]:
    """Of one update on all groups with the guided loss, in double precision; the rows asked for, the largest batch."""
    policy = CountingDenoiser().tuned(size=0.3)
    policy.module.double()
    fit = PreferenceOptimizer(
        policy,
        list(policy.module.parameters()),
        {g.id: len(g.pairs) for g in groups},
        {g.id: len(g.steps) for g in groups},
        {g.id: g for g in groups}.__getitem__,
        Reference("base", policy, contextlib.nullcontext, 100),
        fill_in(TrainSettings(level=level, beta=40.0, batch=100, guided_loss=True, grad_clip=1e9, trained_steps=0)),
        limits,
    )
    policy.rows = 0
    fit.update()
    found = torch.cat([p.grad.flatten() for p in fit.parameters if p.grad is not None])
    return found, policy.rows, policy.largest


@pytest.mark.parametrize("level", ["trajectory", "step"])
@pytest.mark.parametrize("micro_batch", [1, 2, 3, 6, 9, 14])
def test_the_gradient_does_not_depend_on_where_an_update_is_cut(level: str, micro_batch: int) -> None:
    groups = [toy_group(ToyDenoiser(), 1, 3, RANKED), toy_group(ToyDenoiser(), 2, 2, [Pair(1, 0, 1.0)])]
    whole, rows, _ = gradient(groups, level, PLENTY)
    assert rows == ROWS
    cut, rows, _ = gradient(groups, level, BatchLimits(micro_batch, micro_batch))
    assert (cut - whole).norm() <= 1e-9 * whole.norm()
    largest = 3 if level == "step" else 9
    assert rows == ROWS if micro_batch >= largest else rows > ROWS


@pytest.mark.parametrize("level", ["trajectory", "step"])
def test_small_batches_alone_need_no_second_pass(level: str) -> None:
    groups = [toy_group(ToyDenoiser(), 1, 3, RANKED), toy_group(ToyDenoiser(), 2, 2, [Pair(1, 0, 1.0)])]
    whole, _, joined = gradient(groups, level, PLENTY)
    cut, rows, largest = gradient(groups, level, BatchLimits(100, 1))
    assert (cut - whole).norm() <= 1e-9 * whole.norm() and rows == ROWS
    assert (joined, largest) == (ROWS, 3 if level == "step" else 9)


def test_groups_of_different_guidance_scales_are_trained_together() -> None:
    groups = [toy_group(ToyDenoiser(), n, 2, [Pair(1, 0, 1.0)], scale) for n, scale in enumerate((3.0, 5.0))]
    together, *_ = gradient(groups, "trajectory", PLENTY)
    apart = [gradient([group], "trajectory", PLENTY)[0] for group in groups]
    assert (together - (apart[0] + apart[1]) / 2).norm() <= 1e-9 * together.norm()
    assert (apart[0] - apart[1]).norm() > 0.1 * together.norm()


def test_only_groups_of_one_size_share_a_batch() -> None:
    groups = [toy_group(ToyDenoiser(), n, 2, [Pair(1, 0, 1.0)]) for n in range(3)]
    longer = {"prompt": groups[1].conditioning["prompt"].repeat(1, 2)}
    groups[1] = dataclasses.replace(groups[1], conditioning=longer)
    blocks = [b for g in groups for b in make_blocks(g, rows_of(g), fill_in(TrainSettings(level="step")), 1)]
    assert [len(pack) for pack in pack_blocks(blocks, 100)] == [3, 3, 3]


@pytest.mark.parametrize(
    ("device", "micro_batch", "limits"),
    [
        ("cpu", 0, BatchLimits(512, 8)),  # half of 64 GiB, in rows of 64 MiB
        ("cpu", 3, BatchLimits(3, 3)),
        ("cpu", 100, BatchLimits(100, 8)),
        ("cuda", 0, BatchLimits(512, 512)),
        ("cuda", 3, BatchLimits(3, 3)),
    ],
)
def test_a_processor_gets_small_batches(
    monkeypatch: pytest.MonkeyPatch, device: str, micro_batch: int, limits: BatchLimits
) -> None:
    from d3po_core.training import passes

    measured: list[int] = []

    def measure(denoiser: object, rows: object) -> int:
        measured.append(2**26)
        return measured[-1]

    monkeypatch.setattr(passes, "activation_bytes", measure)
    monkeypatch.setattr(passes, "free_bytes", lambda device: 2**36)

    class Somewhere(ToyDenoiser):
        pass

    Somewhere.device = torch.device(device)
    assert passes.fit_batch_limits(Somewhere(), None, micro_batch) == limits  # type: ignore[arg-type]
    assert len(measured) == (device == "cpu" or not micro_batch)  # a pass on a card for what is set anyway costs memory
