"""Processes that train and export until they are killed. They import this module themselves, so it needs no pytest."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from d3po_core.cli.export import export
from d3po_core.run import Run
from d3po_core.run.rounds import Metrics, Rounds
from d3po_core.settings import LoraSettings, TrainSettings
from d3po_core.training import round_trainer as module
from d3po_core.training.round_trainer import save_round
from d3po_core.training.trainer import Trainer
from tests.run_helpers import acknowledge
from tests.toy import ToyModel

TRAIN = TrainSettings(
    epochs=2, batch=2, learning_rate=3e-2, warmup=0, beta=20.0, drift_limit=0.0, micro_batch=64, reference="last_round"
)
STAGES = {"mkdir", "open", "write", "flush", "fsync", "__exit__", "close", "replace", "link", "unlink", "execute"}
"""C functions that change a disk, by Python's names; `__exit__` closes a file."""


class ToyUNet(nn.Module):
    """The toy's one layer, called as in Stable Diffusion's network, so that it has a name in LoRA files."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.Linear(18 + 4, 18)
        block = nn.ModuleDict({"attn1": nn.ModuleDict({"to_q": layer})})
        attention = nn.ModuleDict({"transformer_blocks": nn.ModuleList([block])})
        self.down_blocks = nn.ModuleList([nn.ModuleDict({"attentions": nn.ModuleList([attention])})])
        self._layer = (layer,)  # not as a module: it would be there twice

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self._layer[0](x))


def toy_model() -> ToyModel:
    """The same in every process."""
    model = ToyModel()
    torch.manual_seed(0)
    model.denoiser.module = ToyUNet()
    return model


def new_trainer(run: Run) -> Trainer:
    """For a new round, or the one that was interrupted."""
    return Trainer.open(run, toy_model().denoiser, TRAIN, LoraSettings(rank=2, alpha=2.0), attachment="hooks")


def learn(run: Run) -> None:
    """Train a round from where it is to its end; nothing is saved yet."""
    with new_trainer(run) as trainer:
        list(trainer.steps())


def learn_and_save(run: Run, save: Callable[..., Any] = save_round) -> None:
    """Train a round from where it is to its end, and save its LoRA."""
    with new_trainer(run) as trainer:
        list(trainer.steps())
        save(trainer)


class Killer:
    """Kills this process at the start of one of the calls that change the disk, counted over all watched functions."""

    def __init__(self, call: int) -> None:
        self.calls, self._last = 0, call

    def watch(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*args: Any, **kwargs: Any) -> Any:
            sys.setprofile(self._count)
            try:
                return function(*args, **kwargs)
            finally:
                sys.setprofile(None)

        return watched

    def _count(self, frame: object, event: str, function: Any) -> None:
        if event == "c_call" and function.__name__ in STAGES:
            self.calls += 1
            if self.calls == self._last:
                os.kill(os.getpid(), signal.SIGKILL)


def train(folder: Path, log: Path, save_every: float) -> None:
    """Train a round and keep it; a line in the log for every report."""
    torch.set_num_threads(1)
    module.SAVE_EVERY_SECONDS = save_every
    with new_trainer(Run.open(folder)) as trainer:
        for _ in trainer.steps():
            acknowledge(log, "report")
        save_round(trainer)


def die_while_state_is_written(folder: Path, log: Path, call: int) -> None:
    """Train with a state after every update, and die in what is written meanwhile."""
    torch.set_num_threads(1)
    module.SAVE_EVERY_SECONDS = 0.0
    killer = Killer(call)
    for part, name in ((Rounds, "begin"), (Metrics, "append"), (Rounds, "save_state")):
        setattr(part, name, killer.watch(getattr(part, name)))
    learn(Run.open(folder))
    acknowledge(log, str(killer.calls))


def die_in_keep(folder: Path, log: Path, call: int) -> None:
    """Train in peace what is left to train, and die while the LoRA is kept."""
    torch.set_num_threads(1)
    killer = Killer(call)
    learn_and_save(Run.open(folder), killer.watch(save_round))
    acknowledge(log, str(killer.calls))


def die_in_export(folder: Path, to: Path, log: Path, call: int) -> None:
    """Die while the newest LoRA is copied."""
    run, killer = Run.open(folder), Killer(call)
    killer.watch(export)(run, to)
    acknowledge(log, str(killer.calls))
