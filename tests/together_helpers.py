"""What several processes do together in tests, on the toy model; imported by each of them."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from d3po_core.app import handing_over
from d3po_core.app.handing_over import files_to_train
from d3po_core.app.handing_over import opened as opened_run
from d3po_core.app.together import help_sampling, sample_together
from d3po_core.app.training import Next, train_round
from d3po_core.errors import D3POError
from d3po_core.evaluation.evaluate import evaluate
from d3po_core.lora import LoraWeights
from d3po_core.lora import file as lora_file
from d3po_core.lora.weights import LayerWeights
from d3po_core.models.placement import spread
from d3po_core.processes import Message, Processes, together
from d3po_core.rewards import Reward
from d3po_core.run import Run, files
from d3po_core.run.database import STATE
from d3po_core.run.rounds import Rounds
from d3po_core.settings import LoraSettings, RewardSettings, SampleSettings, TrainSettings
from d3po_core.training import round_trainer
from d3po_core.training.methods import METHODS
from d3po_core.training.reports import Report
from d3po_core.training.reward_trainer import RewardTrainer
from d3po_core.training.round_trainer import RoundTrainer
from d3po_core.training.trainer import Trainer
from tests.run_helpers import processes
from tests.toy import ToyModel

SAMPLE = SampleSettings(groups=11, candidates=2, steps=8, window_sigma=4.0, guidance_scale=3.0, batch=4, start="same")
PROMPTS = ["one", "two", "three"]
TRAIN = TrainSettings(
    epochs=2, batch=3, learning_rate=3e-2, warmup=0, beta=20.0, drift_limit=0.0, clip=0.5, judge=False, trained_steps=2
)
REDNESS = Reward("redness", "red", lambda images, prompts: (images[:, 0] - images[:, 1]).mean((1, 2)), True)
REWARD = RewardSettings(updates=6, batch=5, drift_limit=0.0, learning_rate=0.01, watch=3)


LORA: LoraWeights = {
    "attn1.to_q": LayerWeights(torch.linspace(-1, 1, 44).reshape(2, 22), torch.linspace(0, 1, 36).reshape(18, 2), 2.0)
}


def start(size: int, job: Callable[..., None], *arguments: object, log: Path) -> list[BaseProcess]:
    """Start a job in several processes, each with `Processes` as its first argument; errors go to `log`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = processes()
    started = [
        context.Process(target=_work, args=(rank, size, port, log, job, *arguments), daemon=True)
        for rank in range(size)
    ]
    for each in started:
        each.start()
    return started


def finish(started: list[BaseProcess], seconds: float = 120) -> list[int | None]:
    """Wait for all, and return how they ended."""
    end = time.monotonic() + seconds
    for each in started:
        each.join(max(0.1, end - time.monotonic()))
    found = [each.exitcode for each in started]
    for each in started:
        each.kill()
    return found


def _work(rank: int, size: int, port: int, log: Path, job: Callable[..., None], *arguments: object) -> None:
    torch.set_num_threads(1)
    about = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "MASTER_PORT": port, "MASTER_ADDR": "127.0.0.1"}
    os.environ.update({name: str(value) for name, value in about.items()})
    try:
        with together() as joined:
            job(joined, *arguments)
    except D3POError as error:
        with log.open("a") as file:
            file.write(f"{rank}: {error.what}\n")
        sys.exit(2)
    except BaseException:
        with log.open("a") as file:
            file.write(traceback.format_exc())
        sys.exit(3)


def exchange(joined: Processes, folder: Path) -> None:
    """Use every kind of message, and write what arrived."""
    tensors = {"half": torch.full((joined.rank + 1, 2), joined.rank + 0.5, dtype=torch.bfloat16)}
    message = Message({"rank": joined.rank, "text": "ü" * joined.rank}, tensors)
    sums = [torch.full((2, 2), 1.0 + joined.rank), torch.full((3,), 10.0 * joined.rank)]
    joined.add_up(sums)
    found = {
        "shared": joined.share(message).facts,
        "facts": joined.share_facts([joined.rank, None, "x"]),
        "gathered": [(each.facts, each.tensors["half"].tolist()) for each in joined.gather(message)],
        "handed in": [each.facts for each in joined.hand_in(message)],
        "nothing": joined.share(Message([])).facts,
        "mine": joined.mine(list(range(7))),
        "sums": [each.tolist() for each in sums],
    }
    (folder / f"{joined.rank}.txt").write_text(repr(found))


def draw(joined: Processes, folder: Path, slow: bool = False) -> None:
    """Draw groups into a run, which the first process alone opens."""
    model = ToyModel()
    if not joined.first:
        model.decode = slowly(model.decode) if slow else model.decode  # type: ignore[method-assign]
        return help_sampling(joined, model)
    for _ in sample_together(joined, Run.open(folder), model, SAMPLE, PROMPTS, LORA, "a LoRA", 3):
        pass
    return None


def slowly(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that takes its time."""

    def slow(*arguments: Any) -> Any:
        time.sleep(0.2)
        return function(*arguments)

    return slow


def train(joined: Processes, folder: Path, kind: str, updates: int = 10**6, pause: float = 0.0) -> None:
    """Train a round, or its first updates, and write the LoRA of each process."""
    with contextlib.closing(Run.open(folder)) as run:
        _train(joined, run, ToyModel(), folder, kind, updates, pause)


def train_apart(joined: Processes, folder: Path, kind: str, elsewhere: Path) -> None:
    """Train a round; all processes but the first are on other computers, two on each, and have no folder of the run."""
    if not joined.first:
        joined = dataclasses.replace(joined, local_rank=(joined.rank - 1) % 2)  # ranks 1 and 2, and 3
        tempfile.tempdir = str(elsewhere)
    with opened_run(folder if joined.first else elsewhere / "none", files_to_train, joined) as run:
        assert joined.first == (run.folder == folder)
        (elsewhere / f"{joined.rank}.txt").write_text(str(run.folder))
        _train(joined, run, ToyModel(), folder, kind, 10**6, 0.0)


def train_on_a_full_disk(joined: Processes, folder: Path, elsewhere: Path) -> None:
    """Train a round, but the second process cannot write its copy of the run."""

    def full(*_: object) -> None:
        raise D3POError("The disk is full.")

    if not joined.first:
        (elsewhere / f"{joined.rank}.txt").touch()
        handing_over._write = full
    train_apart(joined, folder, "d3po", elsewhere)


def train_dispatched(joined: Processes, folder: Path, kind: str) -> None:
    """Train a round on a network that accelerate has dispatched, as one that is larger than a card."""
    model = ToyModel()
    spread(model.denoiser.module, ["cpu"])
    assert model.denoiser.module.hf_device_map == {"attn1": "cpu"}
    with contextlib.closing(Run.open(folder)) as run:
        _train(joined, run, model, folder, kind, 10**6, 0.0)


def train_until(joined: Processes, folder: Path, moment: str) -> None:
    """Train a round; the first process is killed in the middle of saving something."""
    if joined.first:
        _kill_at(moment)
    train(joined, folder, "d3po")


def _kill_at(moment: str) -> None:
    """Kill this process once its second state or the LoRA is written under another name, or as the round is closed."""

    def killing(place: object, name: str, when: Callable[..., bool] = lambda *_: True) -> None:
        original = getattr(place, name)

        def killed(*arguments: Any, **values: Any) -> Any:
            if when(*arguments):
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments, **values)

        setattr(place, name, killed)

    round_trainer.SAVE_EVERY_SECONDS = 0.0
    if moment == "state":
        killing(files, "move", lambda source, target: target.name == STATE and target.exists())
    elif moment == "LoRA":
        killing(lora_file, "_publish")
    else:
        killing(Rounds, "finish")


def _train(joined: Processes, run: Run, model: ToyModel, folder: Path, kind: str, updates: int, pause: float) -> None:
    trainer = opened(joined, run, model, kind)
    done = 0

    def after_update(report: Report) -> Next:
        nonlocal done
        done += 1
        time.sleep(pause)
        return Next.PAUSE if done >= updates else Next.CONTINUE

    weights = None
    with contextlib.suppress(StopIteration):
        train_round(trainer, after_update)
        weights = trainer.result().weights
    tensors = {
        f"{path}.{side}": getattr(layer, side) for path, layer in (weights or {}).items() for side in ("up", "down")
    }
    safetensors.torch.save_file(tensors, folder / f"learnt-{joined.rank}.safetensors")


def opened(joined: Processes, run: Run, model: ToyModel, kind: str) -> RoundTrainer:
    """Open the trainer of a round by picks or by a reward."""
    lora = LoraSettings(rank=2, alpha=2.0)
    if kind in METHODS:
        how = dataclasses.replace(TRAIN, method=kind)
        return Trainer.open(run, model.denoiser, how, lora, attachment="hooks", processes=joined)
    return RewardTrainer.open(run, model, REDNESS, REWARD, lora, SAMPLE, attachment="hooks", processes=joined)


def evaluate_all(joined: Processes, folder: Path) -> None:
    """Evaluate a LoRA, and write what every process saw."""
    model = ToyModel()
    found = evaluate(model, LORA, PROMPTS, 3, dataclasses.replace(SAMPLE, batch=2), REDNESS, processes=joined)
    images = {"before": found.before.images, "after": found.after.images}
    safetensors.torch.save_file(
        images, folder / f"{joined.size}-{joined.rank}.safetensors", {"x": repr(found.outcomes)}
    )
