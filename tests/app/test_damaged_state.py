"""A stopped round whose state is cut, empty, overwritten or another LoRA's: it says so, keeps the file and all picks,
and begins anew the next time, in every front end."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from d3po_core.cli import main
from d3po_core.errors import D3POError
from d3po_core.gallery.state import state
from d3po_core.run import Run
from d3po_core.run.database import STATE
from d3po_core.training.preference_optimizer import PreferenceOptimizer
from d3po_panels.worker import Worker
from d3po_studio.host import StudioHost
from tests.tiny_pipelines import tiny_sd
from tests.toy import ToyModel
from tests.training import picked as by_picks
from tests.training import test_reward_trainer as by_reward
from tests.training.rounds import train_some, train_to_end

Damage = Callable[[Run], object]


def state_file(run: Run) -> Path:
    return run.folder / "rounds" / "0001" / STATE


def one_bit(run: Run) -> None:
    content = bytearray(state_file(run).read_bytes())
    content[-1] ^= 1
    state_file(run).write_bytes(content)


def changed(change: Callable[[dict[str, torch.Tensor], dict[str, object]], object]) -> Damage:
    """Sound as a file, with other content."""

    def damage(run: Run) -> None:
        tensors, info = run.rounds.load_state(1)  # type: ignore[misc]
        change(tensors, info)
        run.rounds.save_state(1, tensors, info)

    return damage


DAMAGES: dict[str, tuple[Damage, str]] = {
    "cut": (lambda run: os.truncate(state_file(run), state_file(run).stat().st_size // 2), ""),
    "empty": (lambda run: os.truncate(state_file(run), 0), ""),
    "random": (lambda run: state_file(run).write_bytes(os.urandom(5000)), ""),
    "one bit": (one_bit, "the checksum does not fit"),
    "another LoRA's": (
        changed(lambda tensors, info: tensors.update({"0.parameter": torch.zeros(7, 3)})),
        r"0\.parameter has the shape \(7, 3\)",
    ),
    "a larger LoRA's": (
        changed(lambda tensors, info: tensors.update({"9.parameter": torch.zeros(2, 2)})),
        r"9\.parameter is not of this LoRA",
    ),
    "no tensors": (changed(lambda tensors, info: tensors.clear()), r"0\.parameter is missing"),
    "half the moments": (changed(lambda tensors, info: tensors.pop("1.step")), r"1\.step is missing"),
    "no numbers": (changed(lambda tensors, info: tensors["1.exp_avg"].fill_(torch.nan)), r"1\.exp_avg is no number"),
    "no counter": (changed(lambda tensors, info: info.update(done="many")), "it says that many updates were done"),
}


@pytest.fixture(params=["picks", "reward"])
def begin(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Run, Callable[[], object]]:
    """A run with a round that was stopped in the middle, and what opens its trainer."""
    model = ToyModel()
    if request.param == "picks":
        run = by_picks.picked_run(tmp_path / "run", model)
        return run, lambda: by_picks.trainer(run, model)
    run = by_reward.run_of(tmp_path / "run", model)
    return run, lambda: by_reward.trainer(run, model, updates=6)


@pytest.mark.parametrize("name", DAMAGES)
def test_it_says_so_once_and_begins_anew(begin: tuple[Run, Callable[[], object]], name: str) -> None:
    run, open_trainer = begin
    train_some(open_trainer(), 3)  # type: ignore[arg-type]
    picks = run.picks.counts("")
    damage, told = DAMAGES[name]
    damage(run)
    left = state_file(run).read_bytes()
    with pytest.raises(D3POError, match=rf"^What round 1 had learnt so far is damaged \(.*{told}") as raised:
        open_trainer()
    assert "Start the round again: it begins anew" in str(raised.value) and run.rounds.stopped() is None
    (kept,) = state_file(run).parent.glob("set-aside-*.safetensors")
    assert kept.read_bytes() == left and str(kept) in raised.value.safe and run.picks.counts("") == picks
    again = open_trainer()
    assert not again.resumed and train_to_end(again)[0].update == 1  # type: ignore[attr-defined,arg-type]


def test_a_state_that_cannot_be_read_now_is_left_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network drive may be back in a minute."""
    model = ToyModel()
    run = by_picks.picked_run(tmp_path / "run", model)
    train_some(by_picks.trainer(run, model), 3)
    real = Path.read_bytes

    def read(path: Path) -> bytes:
        if path.name == STATE:
            raise OSError(5, "Input/output error")
        return real(path)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_bytes", read)
        with pytest.raises(D3POError, match=r"cannot be read \(Input/output error\).*All picks are saved"):
            by_picks.trainer(run, model)
    again = by_picks.trainer(run, model)
    assert again.resumed and train_to_end(again)[0].update == 4


class Toy:
    """Where models come from: there is one."""

    device = "cpu"

    def __init__(self) -> None:
        self.model = ToyModel()

    def get(self, source: str = "") -> ToyModel:
        return self.model

    def of(self, run: Run) -> ToyModel:
        return self.model


class ToyHost(StudioHost):
    """The toy takes its LoRA by hooks."""

    attachment = "hooks"


def test_the_gallery_says_so_and_teach_begins_anew(tmp_path: Path) -> None:
    models = Toy()
    run = by_picks.picked_run(tmp_path / "run", models.model)
    train_some(by_picks.trainer(run, models.model), 3)
    os.truncate(state_file(run), 100)
    worker = Worker(ToyHost(models)).start()  # type: ignore[arg-type]
    try:
        worker.teach(run)
        worker.queue.call(lambda: None).result(60)
        shown = state(run, worker, "")
        told = shown["problem"]
        assert told is not None and told["what"].startswith("What round 1 had learnt so far is damaged")
        assert told["do"].startswith("Start the round again") and "All picks" in told["safe"]
        assert "teach" in shown["can"] and not worker.is_training(run)
        worker.teach(run)
        deadline = time.monotonic() + 120
        while not run.rounds.all()[0].finished:
            assert time.monotonic() < deadline and worker.problem(run) is None
            time.sleep(0.1)
    finally:
        worker.close()


def test_the_command_line_says_so_and_the_same_command_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_sd().save_pretrained(tmp_path / "model")
    run, train = str(tmp_path / "run"), ["train", "--epochs", "1", "--rank", "2", "--alpha", "2", "--no-judge"]
    drawing = ["--model", str(tmp_path / "model"), "--prompt", "a fox", "--candidates", "2", "--steps", "4"]
    assert main(["sample", "--run", run, *drawing, "--groups", "9", "--batch", "8"]) == 0
    assert main(["annotate", "--run", run, "--scorer", "warmth"]) == 0
    real, calls = PreferenceOptimizer.update, []

    def update(self: PreferenceOptimizer) -> object:
        calls.append(self.done)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(self)

    with monkeypatch.context() as patched:
        patched.setattr(PreferenceOptimizer, "update", update)
        assert main([*train, "--run", run]) == 130
    os.truncate(state_file(Run.open(run)), 0)
    capsys.readouterr()
    assert main([*train, "--run", run]) == 2
    error = capsys.readouterr().err
    assert "d3po: What round 1 had learnt so far is damaged" in error and "Start the round again" in error
    assert "Traceback" not in error
    assert main([*train, "--run", run]) == 0
    assert Run.open(run).rounds.all()[0].finished
