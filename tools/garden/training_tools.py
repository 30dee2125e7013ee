"""What the training stages share: the pool of pictures, time budgets, averages of weights, groups of processes."""

from __future__ import annotations

import copy
import math
import multiprocessing
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tools.garden.pictures import Scene, caption, random_scene, render

CHUNK = 250


def scenes_of(seed: int, count: int) -> list[Scene]:
    """Draw random scenes over all prompts, the same for the same seed."""
    rng = np.random.default_rng(seed)
    return [random_scene(rng) for _ in range(count)]


def _draw(job: tuple[int, int]) -> np.ndarray:
    return np.stack([render(scene) for scene in scenes_of(*job)])


def picture_pool(seed: int, count: int, workers: int = 2, keep: Path | None = None) -> tuple[list[Scene], np.ndarray]:
    """Return `count` scenes and their pictures, uint8 (count, 64, 64, 3), rendered in parallel or read from `keep`."""
    jobs = [(seed * 1_000_003 + i, min(CHUNK, count - i * CHUNK)) for i in range(math.ceil(count / CHUNK))]
    scenes = [scene for job in jobs for scene in scenes_of(*job)]
    if keep and keep.exists():
        return scenes, np.load(keep)
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        parts = pool.map(_draw, jobs, chunksize=2)
    pictures = np.concatenate(parts)
    if keep:
        np.save(keep, pictures)
    return scenes, pictures


def as_tensor(pictures: np.ndarray) -> torch.Tensor:
    """Convert pictures, uint8 (B, H, W, 3), to float (B, 3, H, W) in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 255


def captions_of(scenes: list[Scene]) -> list[str]:
    """Return the canonical captions of scenes."""
    return [caption(scene) for scene in scenes]


def shuffled(count: int, batch: int, seed: int) -> Iterator[torch.Tensor]:
    """Yield batches of indices below `count` without end, each epoch in a new order."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(count, generator=generator)
        yield from order[: count - count % batch].split(batch)


class TimeBudget:
    """A learning-rate schedule over wall-clock minutes: short warm-up, then cosine decay to 1% of the peak."""

    def __init__(self, optimiser: torch.optim.Optimizer, minutes: float, warm_up_steps: int = 100) -> None:
        self.optimiser, self.seconds, self.warm_up_steps = optimiser, 60 * minutes, warm_up_steps
        self.peak = [group["lr"] for group in optimiser.param_groups]
        self.start, self.steps = time.monotonic(), 0

    @property
    def spent(self) -> float:
        """Return the seconds since the start."""
        return time.monotonic() - self.start

    def tick(self, share: float | None = None) -> bool:
        """Set the learning rate of the next step.

        Args:
            share: of the time that is spent; None takes it from this object's clock.

        Returns:
            False if the time is up.
        """
        share = min(1.0, self.spent / self.seconds if share is None else share)
        factor = min(1.0, (self.steps + 1) / self.warm_up_steps) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))
        for group, peak in zip(self.optimiser.param_groups, self.peak, strict=True):
            group["lr"] = peak * factor
        self.steps += 1
        return share < 1


class Average:
    """Exponential moving average of a module's weights."""

    def __init__(self, module: torch.nn.Module, decay: float = 0.999) -> None:
        self.module: Any = copy.deepcopy(module).eval().requires_grad_(False)
        self.decay, self.steps = decay, 0

    @torch.no_grad()
    def update(self, module: torch.nn.Module) -> None:
        """Move the average towards the weights of the module; the first steps count more."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        averages: list[torch.Tensor] = list(self.module.parameters())
        torch._foreach_lerp_(averages, [p.detach() for p in module.parameters()], 1 - decay)


class ProcessGroup:
    """Processes of one thread each that train together; on a busy machine they wait less than one process's threads."""

    def __init__(self, rank: int, size: int, meeting_point: Path) -> None:
        self.rank, self.size = rank, size
        if size > 1:
            torch.distributed.init_process_group(
                "gloo", init_method=meeting_point.absolute().as_uri(), rank=rank, world_size=size
            )

    def share_gradients(self, parameters: list[torch.nn.Parameter], clock: float) -> float:
        """Average gradients and clocks over the processes, so that all take the same step; return the mean clock."""
        if self.size == 1:
            return clock
        grads = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([g.flatten() for g in grads] + [torch.tensor([clock])]) / self.size
        torch.distributed.all_reduce(flat)
        for grad, mean in zip(grads, flat[:-1].split([g.numel() for g in grads]), strict=True):
            grad.copy_(mean.view_as(grad))
        return flat[-1].item()
