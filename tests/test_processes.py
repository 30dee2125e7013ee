"""Several processes that work as one: what they tell each other, what they draw and teach, and how they end."""

from __future__ import annotations

import ast
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from d3po_core.app.sampling import sample_groups
from d3po_core.cli import main
from d3po_core.errors import D3POError
from d3po_core.lora.attachment import applied
from d3po_core.picks import Pick
from d3po_core.processes import ALONE, Message, together
from d3po_core.run import Run
from tests.together_helpers import (
    LORA,
    PROMPTS,
    SAMPLE,
    draw,
    evaluate_all,
    exchange,
    finish,
    start,
    train,
    train_apart,
    train_dispatched,
    train_on_a_full_disk,
    train_until,
)
from tests.toy import ToyModel

pytestmark = pytest.mark.skipif(os.name == "nt", reason="torchrun starts several processes on Linux")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """As the processes have; with another number sums come out different in the last digit."""
    torch.set_num_threads(1)


def test_messages_arrive_as_they_were_sent(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert finish(start(3, exchange, tmp_path, log=log)) == [0, 0, 0], log.read_text()
    found = [ast.literal_eval((tmp_path / f"{rank}.txt").read_text()) for rank in range(3)]
    gathered = [({"rank": rank, "text": "ü" * rank}, [[rank + 0.5] * 2] * (rank + 1)) for rank in range(3)]
    for rank, one in enumerate(found):
        assert one["shared"] == {"rank": 0, "text": ""} and one["facts"] == [0, None, "x"] and one["nothing"] == []
        assert one["gathered"] == gathered
        assert one["handed in"] == ([facts for facts, _ in gathered] if rank == 0 else [])
        assert one["mine"] == list(range(7))[rank::3]
        assert one["sums"] == [[[6.0, 6.0]] * 2, [30.0] * 3]


def test_one_process_talks_to_itself() -> None:
    message, sums = Message({"a": (1, 2)}, {"x": torch.ones(2)}), [torch.ones(2)]
    ALONE.add_up(sums)
    assert ALONE.share(message) is message and ALONE.gather(message) == [message] == ALONE.hand_in(message)
    assert sums[0].tolist() == [1.0, 1.0] and ALONE.mine([1, 2]) == [1, 2] and ALONE.first
    with together() as alone:
        assert alone is ALONE


def test_a_message_is_json_and_tensors() -> None:
    data = Message({"b": [1, None]}, {"x": torch.arange(3)}).to_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert json.loads(header["__metadata__"]["facts"]) == {"b": [1, None]}
    again = Message.from_bytes(data)
    assert again.facts == {"b": [1, None]} and torch.equal(again.tensors["x"], torch.arange(3))


@pytest.mark.parametrize(("size", "rank"), [("2", "2"), ("two", "0"), ("2", "-1"), ("2", "worker-0")])
def test_a_wrong_number_is_said(monkeypatch: pytest.MonkeyPatch, size: str, rank: str) -> None:
    monkeypatch.setenv("WORLD_SIZE", size)
    monkeypatch.setenv("RANK", rank)
    with pytest.raises(D3POError, match="torchrun"), together():
        pass


@pytest.mark.parametrize(("size", "rank"), [("", ""), ("1", "worker-0"), ("", "3")])
def test_what_others_leave_in_the_environment_is_no_matter(
    monkeypatch: pytest.MonkeyPatch, size: str, rank: str
) -> None:
    monkeypatch.setenv("WORLD_SIZE", size)
    monkeypatch.setenv("RANK", rank)
    with together() as alone:
        assert alone is ALONE


def test_one_command_does_not_wait_for_processes_that_it_does_not_need(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new_run(tmp_path / "run").close()
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    assert main(["info", "--run", str(tmp_path / "run")]) == 0 and "Picks" in capsys.readouterr().out
    monkeypatch.setenv("RANK", "1")
    assert main(["info", "--run", str(tmp_path / "run")]) == 0 and capsys.readouterr().out == ""


def test_help_does_not_wait_for_torch() -> None:
    code = "import sys; from d3po_core.cli import main; main(['--help']); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


# -- drawing ------------------------------------------------------------------------------------------


def new_run(folder: Path) -> Run:
    return Run.create(folder, model={"identity": "toy"}, settings={})


def groups_of(folder: Path) -> dict[int, tuple[dict[str, Tensor], list[bytes], str]]:
    """Everything that was drawn, by number."""
    run = Run.open(folder)
    return {
        group.number: (
            run.groups.trajectory(group.id),
            [run.groups.image_path(group.id, each).read_bytes() for each in range(group.candidates)],
            f"{group.prompt} {group.settings} {group.seed} {group.held_out} {group.policy} {group.near}",
        )
        for group in run.groups.select()
    }


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that one process has drawn."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("alone") / "run"
    run = new_run(folder)
    model = ToyModel()
    with applied(model.denoiser, LORA):
        for _ in sample_groups(run, model, SAMPLE, PROMPTS, "a LoRA", 3):
            pass
    run.close()
    return folder


@pytest.mark.parametrize("size", [2, 3])
def test_what_is_drawn_is_the_same_bit_by_bit(tmp_path: Path, alone: Path, size: int) -> None:
    new_run(tmp_path / "run").close()
    log = tmp_path / "log"
    assert finish(start(size, draw, tmp_path / "run", size == 3, log=log)) == [0] * size, log.read_text()
    ours, expected = groups_of(tmp_path / "run"), groups_of(alone)
    assert ours.keys() == expected.keys() == set(range(SAMPLE.groups))
    for number, (tensors, images, about) in ours.items():
        others, pictures, facts = expected[number]
        assert images == pictures and about == facts
        assert tensors.keys() == others.keys() and all(torch.equal(tensors[name], others[name]) for name in tensors)


def test_a_killed_process_ends_the_others_and_nothing_drawn_is_lost(tmp_path: Path, alone: Path) -> None:
    new_run(tmp_path / "run").close()
    log = tmp_path / "log"
    started = start(3, draw, tmp_path / "run", True, log=log)
    wait_for(lambda: len(groups_of(tmp_path / "run")) > 0)
    assert started[1].pid
    os.kill(started[1].pid, signal.SIGKILL)
    begun = time.monotonic()
    assert finish(started, 30) == [2, -signal.SIGKILL, 2] and time.monotonic() - begun < 30
    said = sorted(log.read_text().splitlines())
    assert said == [f"{rank}: Another of the processes that work together has ended." for rank in (0, 2)]
    drawn, expected = groups_of(tmp_path / "run"), groups_of(alone)
    assert 0 < len(drawn) < SAMPLE.groups
    assert all(torch.equal(drawn[number][0]["x"], expected[number][0]["x"]) for number in drawn)
    run = Run.open(tmp_path / "run")  # and one process goes on
    rest = [each.group_id for each in sample_groups(run, ToyModel(), SAMPLE, PROMPTS)]
    assert len(rest) == SAMPLE.groups


def wait_for(true: object, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.02)


def test_an_evaluation_is_the_same(tmp_path: Path) -> None:
    """9 images in batches of 2: of two processes the first has one more, of three all the same."""
    for size in (1, 2, 3):
        log = tmp_path / "log"
        assert finish(start(size, evaluate_all, tmp_path, log=log)) == [0] * size, log.read_text()
    files = {path.read_bytes() for path in tmp_path.glob("*.safetensors")}
    assert len(list(tmp_path.glob("*.safetensors"))) == 6 and len(files) == 1


# -- teaching ------------------------------------------------------------------------------------------


KINDS = ["d3po", "dpok", "diffusion-kto", "diffusion-nft", "reward"]


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Groups of two and of three, so that updates have other numbers of groups and of pairs."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("judged") / "run"
    run, model = new_run(folder), ToyModel()
    for settings in (SAMPLE, dataclasses.replace(SAMPLE, groups=4, candidates=3, batch=6)):
        for _ in sample_groups(run, model, settings, PROMPTS):
            pass
    for group in run.groups.select():
        noisy = run.groups.trajectory(group.id)["x"][:, -1].float()
        order = noisy[:, 0].mean(dim=(1, 2)).argsort(descending=True).tolist()
        run.picks.add(group.id, Pick("ranking", tuple(order)) if len(order) > 2 else Pick("favourite", (order[0],)))
    run.close()
    return folder


def learnt(folder: Path, rank: int = 0) -> dict[str, Tensor]:
    found: dict[str, Tensor] = safetensors.torch.load_file(folder / f"learnt-{rank}.safetensors")
    return found


def reports(folder: Path) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


@pytest.fixture(scope="module")
def taught(judged: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What one process learns, from picks and from a reward."""
    found = {}
    for kind in KINDS:
        folder = shutil.copytree(judged, tmp_path_factory.mktemp(kind) / "run")
        log = folder.parent / "log"
        assert finish(start(1, train, folder, kind, log=log)) == [0], log.read_text()
        found[kind] = folder
    return found


def close(one: object, other: object) -> bool:
    """Whether two JSON values are the same but for rounding."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(close(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(close, one, other))
    return one == pytest.approx(other, abs=1e-5) if isinstance(one, float) else one == other


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_learnt_is_the_same(
    judged: Path, taught: dict[str, Path], tmp_path: Path, kind: str, size: int
) -> None:
    """Groups of one and of three pairs, three pairs an update: some updates leave a process without a group."""
    folder, log = shutil.copytree(judged, tmp_path / "run"), tmp_path / "log"
    assert finish(start(size, train, folder, kind, log=log)) == [0] * size, log.read_text()
    expected = learnt(taught[kind])
    assert expected and any(bool(value.any()) for value in expected.values())
    for rank in range(size):
        assert all(torch.allclose(value, expected[name], atol=1e-6) for name, value in learnt(folder, rank).items())
    assert close(reports(folder), reports(taught[kind]))
    (ours,), (others,) = (Run.open(each).rounds.all() for each in (folder, taught[kind]))
    assert ours.finished and ours.summary.reason == others.summary.reason
    assert close(dict(ours.summary.figures), dict(others.summary.figures))
    assert close([list(each) for each in ours.summary.strength_scan], [list(e) for e in others.summary.strength_scan])


@pytest.mark.parametrize("kind", KINDS)
def test_another_number_of_processes_goes_on(judged: Path, taught: dict[str, Path], tmp_path: Path, kind: str) -> None:
    folder, log = shutil.copytree(judged, tmp_path / "run"), tmp_path / "log"
    for size, updates in ((3, 2), (1, 1), (2, 10**6)):
        assert finish(start(size, train, folder, kind, updates, log=log)) == [0] * size, log.read_text()
    expected = learnt(taught[kind])
    assert all(torch.allclose(value, expected[name], atol=1e-6) for name, value in learnt(folder).items())


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_trainer_ends_the_others_and_is_gone_on_from(
    judged: Path, taught: dict[str, Path], tmp_path: Path, victim: int
) -> None:
    folder, log = shutil.copytree(judged, tmp_path / "run"), tmp_path / "log"
    started = start(2, train, folder, "d3po", 10**6, 0.3, log=log)
    metrics = folder / "metrics.jsonl"
    wait_for(lambda: metrics.exists() and len(metrics.read_text().splitlines()) >= 2)
    process = started[victim]
    assert process.pid
    os.kill(process.pid, signal.SIGKILL)
    begun = time.monotonic()
    codes = finish(started, 30)
    assert codes[victim] == -signal.SIGKILL and codes[1 - victim] == 2 and time.monotonic() - begun < 30
    assert log.read_text() == f"{1 - victim}: Another of the processes that work together has ended.\n"
    assert finish(start(1, train, folder, "d3po", log=log)) == [0], log.read_text()
    expected = learnt(taught["d3po"])
    assert all(torch.allclose(value, expected[name], atol=1e-6) for name, value in learnt(folder).items())


@pytest.mark.parametrize("moment", ["state", "LoRA", "the end"])
def test_a_trainer_killed_while_it_saves_is_gone_on_from(
    judged: Path, taught: dict[str, Path], tmp_path: Path, moment: str
) -> None:
    """The other process ends: with a sentence where it still has something to do, else as it would have."""
    folder, log = shutil.copytree(judged, tmp_path / "run"), tmp_path / "log"
    started = start(2, train_until, folder, moment, log=log)
    started[0].join(120)
    killed = time.monotonic()
    assert finish(started, 30) == [-signal.SIGKILL, 2 if moment == "state" else 0], log.read_text()
    assert time.monotonic() - killed < 30
    said = "1: Another of the processes that work together has ended.\n" if moment == "state" else ""
    assert (log.read_text() if log.exists() else "") == said
    run = Run.open(folder)
    assert not [each for each in run.rounds.all() if each.finished] and len(run.picks.standing()) == SAMPLE.groups + 4
    run.close()
    assert finish(start(1, train, folder, "d3po", log=log)) == [0], log.read_text()
    expected = learnt(taught["d3po"])
    assert all(torch.allclose(value, expected[name], atol=1e-6) for name, value in learnt(folder).items())
    (round,) = Run.open(folder).rounds.all()
    assert round.finished and round.lora_file and (folder / round.lora_file).is_file()


@pytest.mark.parametrize("kind", ["d3po", "diffusion-nft", "reward"])
def test_other_computers_get_what_training_needs(
    judged: Path, taught: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    """Two folders: the run's, and one where the other computers make their copies, one each, and delete them."""
    folder, log, elsewhere = shutil.copytree(judged, tmp_path / "run"), tmp_path / "log", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "d3po-run-left").mkdir()  # by a process that was killed
    (elsewhere / "d3po-run-left" / "4194305.user").touch()  # no system has so high a number
    assert finish(start(4, train_apart, folder, kind, elsewhere, log=log)) == [0] * 4, log.read_text()
    expected = learnt(taught[kind])
    for rank in range(4):
        assert all(torch.allclose(value, expected[name], atol=1e-6) for name, value in learnt(folder, rank).items())
    assert close(reports(folder), reports(taught[kind]))
    used = [(elsewhere / f"{rank}.txt").read_text() for rank in range(4)]
    assert used[0] == str(folder) and used[1] == used[2] != used[3] and folder not in map(Path, used[1:])
    assert sorted(path.name for path in elsewhere.iterdir()) == [f"{rank}.txt" for rank in range(4)]


def test_a_stopped_round_goes_on_elsewhere_after_going_back(judged: Path, tmp_path: Path) -> None:
    """The round departs from another LoRA than the present one, and the copy has only that one."""
    folder, log, elsewhere = shutil.copytree(judged, tmp_path / "run"), tmp_path / "log", tmp_path / "elsewhere"
    elsewhere.mkdir()
    for updates in (10**6, 10**6, 1):
        assert finish(start(1, train, folder, "d3po", updates, log=log)) == [0], log.read_text()
    run = Run.open(folder)
    run.rounds.go_back("1")
    assert run.rounds.stopped() and run.rounds.needed() != run.rounds.current_policy()
    run.close()
    assert finish(start(2, train_apart, folder, "d3po", elsewhere, log=log)) == [0, 0], log.read_text()
    assert [bool(each.finished) for each in Run.open(folder).rounds.all()] == [True] * 3


def test_a_copy_that_cannot_be_written_leaves_nothing(judged: Path, tmp_path: Path) -> None:
    elsewhere, log = tmp_path / "elsewhere", tmp_path / "log"
    elsewhere.mkdir()
    assert finish(start(2, train_on_a_full_disk, judged, elsewhere, log=log)) == [2, 2]
    said = sorted(log.read_text().splitlines())
    assert said == ["0: Another of the processes that work together has ended.", "1: The disk is full."]
    assert [path.name for path in elsewhere.iterdir()] == ["1.txt"]


def test_a_dispatched_network_learns_the_same(judged: Path, taught: dict[str, Path], tmp_path: Path) -> None:
    folder, log = shutil.copytree(judged, tmp_path / "run"), tmp_path / "log"
    assert finish(start(2, train_dispatched, folder, "d3po", log=log)) == [0, 0], log.read_text()
    expected = learnt(taught["d3po"])
    assert all(torch.allclose(value, expected[name], atol=1e-6) for name, value in learnt(folder).items())


def test_a_group_that_one_process_cannot_read_ends_all_and_is_left_out(judged: Path, tmp_path: Path) -> None:
    """As with one process: the round is begun anew without it, and nobody keeps what was learnt meanwhile."""
    plans = []
    for size in (1, 2):
        folder, log = shutil.copytree(judged, tmp_path / f"run{size}"), tmp_path / f"log{size}"
        bad = sorted((folder / "groups").iterdir())[7]
        (bad / "trajectory.safetensors").write_bytes(b"no tensors")
        assert finish(start(size, train, folder, "d3po", log=log)) == [2] * size
        said = log.read_text().splitlines()
        assert len(said) == size and len({line.partition(": ")[2] for line in said}) == 1 and "group 7" in said[0]
        run = Run.open(folder)
        (round,) = run.rounds.all()
        state = run.rounds.load_state(round.number)
        assert state is not None and state[1]["done"] == 0 and not state[0]
        plans.append(round.settings["lesson"]["training"].keys())
        assert bad.name not in plans[-1]
        assert finish(start(size, train, folder, "d3po", log=log)) == [0] * size, log.read_text()
    assert plans[0] == plans[1]


# -- the command line ------------------------------------------------------------------------------------------


def test_commands_by_torchrun(tmp_path: Path) -> None:
    """Draw, pick, teach and evaluate, and follow a reward on a run that exists, finishing it as it is."""
    run = tmp_path / "run"

    def several(*arguments: str) -> str:
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "-m", "d3po_core", "--"]
        done = subprocess.run([*command, *arguments, "--run", str(run)], capture_output=True, text=True, timeout=500)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    small = ("--groups", "4", "--candidates", "2", "--steps", "4", "--batch", "2")
    assert several("sample", "--model", "garden", *small).count("Drew 4 groups") == 1
    assert main(["annotate", "--run", str(run), "--scorer", "warmth"]) == 0
    assert several("train", "--epochs", "1", "--no-judge").count("LoRA: ") == 1
    assert several("evaluate", "--scorer", "warmth", "--seeds", "2", "--prompt", "a", "--prompt", "b").count("win") == 2
    assert several("draft", "--reward", "warmth", "--updates", "2", "--batch", "2").count("LoRA: ") == 1
    rounds = Run.open(run).rounds.all()
    assert len(rounds) == 2 and all(each.finished for each in rounds)


def test_a_computer_without_the_run_helps(tmp_path: Path) -> None:
    """The second process's folder is another one: a new round learns, and is evaluated, with a copy of the first's."""
    run = tmp_path / "run"
    small = ("--groups", "4", "--candidates", "2", "--steps", "4", "--batch", "2")
    assert main(["sample", "--run", str(run), "--model", "garden", *small]) == 0
    assert main(["annotate", "--run", str(run), "--scorer", "warmth"]) == 0
    new_run(tmp_path / "another").close()
    for arguments in (
        ["train", "--epochs", "1", "--no-judge"],
        ["evaluate", "--scorer", "warmth", "--seeds", "2", "--prompt", "a", "--prompt", "b"],
        ["draft", "--reward", "warmth", "--updates", "2", "--batch", "2"],
    ):
        folders = [run, tmp_path / ("another" if arguments[0] == "train" else "none")]
        started = [by_hand(rank, [*arguments, "--run", str(folder)]) for rank, folder in enumerate(folders)]
        outputs = [each.communicate(timeout=300) for each in started]
        assert [each.returncode for each in started] == [0, 0], outputs
        assert outputs[0][0] and not outputs[1][0]
    assert not (tmp_path / "none").exists() and not Run.open(tmp_path / "another").rounds.all()
    assert len(Run.open(run).rounds.all()) == 2


def by_hand(rank: int, arguments: list[str]) -> subprocess.Popen[str]:
    """Start one of two processes of a command, as torchrun does on each computer."""
    about = {"RANK": rank, "WORLD_SIZE": 2, "LOCAL_RANK": 0, "MASTER_PORT": 29771, "MASTER_ADDR": "127.0.0.1"}
    return subprocess.Popen(
        [sys.executable, "-m", "d3po_core", *arguments],
        env={**os.environ, **{name: str(value) for name, value in about.items()}, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
