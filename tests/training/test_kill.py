"""SIGKILL while a round is taught and while a LoRA is exported: the round comes to the same end, no file is there by
half, and what a killed process left is swept up."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from d3po_core.app.sampling import sample_groups
from d3po_core.cli.export import export
from d3po_core.lora import load_lora
from d3po_core.picks import Pick
from d3po_core.run import RoundSummary, Run
from d3po_core.settings import SampleSettings
from tests.kill_helpers import (
    die_in_export,
    die_in_keep,
    die_while_state_is_written,
    learn,
    learn_and_save,
    toy_model,
    train,
)
from tests.run_helpers import processes

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
SAMPLE = SampleSettings(groups=12, candidates=2, steps=8, window_sigma=4.0, guidance_scale=3.0, batch=24)
NEVER = 10**9


@dataclass(frozen=True)
class Lesson:
    """A run before its next round, and what comes of it without a hitch: trained, and with its LoRA kept."""

    number: int
    before: Path
    trained: Path
    after: Path
    summary: RoundSummary
    lora: dict[str, Tensor]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """As the killed processes have; with another number of threads sums come out different in the last digit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def lessons(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Lesson]:
    """By round: the first, and a second that goes on from the first one's LoRA."""
    place = tmp_path_factory.mktemp("lessons")
    run = Run.create(place / "0" / "run", model={"identity": "toy"}, settings={})
    for sampled in sample_groups(run, toy_model(), SAMPLE, ["one", "two"]):
        noisy = run.groups.trajectory(sampled.group_id)["x"][:, -1].float()
        run.picks.add(sampled.group_id, Pick("favourite", (int(noisy[:, 0].mean(dim=(1, 2)).argmax()),)))
    run.close()
    found = {}
    for number in (1, 2):
        before, trained, after = (place / name / "run" for name in (f"{number - 1}", f"trained {number}", f"{number}"))
        run = Run.open(shutil.copytree(before, trained))
        learn(run)
        run.close()
        run = Run.open(shutil.copytree(trained, after))
        learn_and_save(run)
        summary = run.rounds.all()[-1].summary
        assert summary.strength > 0.1  # or all LoRAs would be the same
        found[number] = Lesson(number, before, trained, after, summary, lora_of(run, number))
        run.close()
    return found


def finished(run: Run, number: int) -> bool:
    return any(round.number == number and round.finished for round in run.rounds.all())


def lora_of(run: Run, number: int) -> dict[str, Tensor]:
    path = run.rounds.lora(str(number))
    assert path is not None
    return load_lora(path)[0]


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def names(folder: Path) -> set[str]:
    """Files in a run, but for those that SQLite makes and removes as it likes."""
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return {name for name in found if not name.endswith(("-wal", "-shm"))}


def leftovers(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.suffix in (".tmp", ".part")]


def age(folder: Path) -> None:
    """Make leftovers old enough to be swept."""
    for path in leftovers(folder):
        os.utime(path, (0, 0))


def die(target: Callable[..., None], *args: object) -> int | None:
    """The exit code of a process that did this."""
    process = processes().Process(target=target, args=args)
    process.start()
    process.join()
    return process.exitcode


def check_whole(folder: Path, lesson: Lesson) -> None:
    """Every file that has its final name is whole, and nothing that was there before is missing or changed."""
    run, before = Run.open(folder), Run.open(lesson.before)
    assert run.picks.history() == before.picks.history() and len(run.picks.standing()) == SAMPLE.groups
    assert run.groups.select() == before.groups.select()
    if run.rounds.open():
        run.rounds.load_state(lesson.number)  # its checksum is checked
    for path in (folder / "loras").glob("*.safetensors"):
        load_lora(path)
    lines = (folder / "metrics.jsonl").read_bytes().splitlines() if (folder / "metrics.jsonl").is_file() else []
    assert all(isinstance(json.loads(line), dict) for line in lines if line)
    assert names(folder) >= names(lesson.before)
    run.close()
    before.close()


def check_finishes(folder: Path, lesson: Lesson) -> None:
    """A new trainer goes on and ends where an undisturbed one does; nothing is left of those that were killed."""
    age(folder)
    run = Run.open(folder)
    if not finished(run, lesson.number):
        learn_and_save(run)
    (*_, last) = run.rounds.all()
    assert (last.number, last.summary) == (lesson.number, lesson.summary)
    assert same(lora_of(run, lesson.number), lesson.lora)
    assert reports(run, lesson.number) == reports(Run.open(lesson.after), lesson.number)
    assert not leftovers(folder)
    # A LoRA that was written and not entered in the database stays beside the one that was.
    unknown = names(folder) - names(lesson.after)
    assert all(same(load_lora(folder / name)[0], lesson.lora) for name in unknown)
    assert len(unknown) <= 1 and all(name.startswith("loras/") for name in unknown)
    run.close()


def reports(run: Run, number: int) -> dict[int, Any]:
    """What was reported of every update; one that had to be repeated was reported twice, and the same."""
    found: dict[int, Any] = {}
    for report in run.metrics.read():
        if report["round"] == number:
            del report["seconds"]
            assert found.setdefault(report["update"], report) == report
    return found


@pytest.mark.parametrize(("number", "save_every"), [(1, 0.0), (1, 5.0), (2, 0.02)])
def test_killed_again_and_again_at_random_moments(
    lessons: dict[int, Lesson], tmp_path: Path, number: int, save_every: float
) -> None:
    folder, log = tmp_path / "run", tmp_path / "log"
    shutil.copytree(lessons[number].before, folder)
    chance = random.Random(f"{number} {save_every}")
    for _ in range(4):
        log.unlink(missing_ok=True)
        process = processes().Process(target=train, args=(folder, log, save_every))
        process.start()
        wanted, delay = chance.randint(0, 12), chance.uniform(0, 0.01)
        while process.is_alive() and (log.read_bytes().count(b"\n") if log.exists() else 0) < wanted:
            time.sleep(0.0005)
        time.sleep(delay)
        process.kill()
        process.join()
        check_whole(folder, lessons[number])
        if finished(Run.open(folder), number):
            break
    check_finishes(folder, lessons[number])


def spread(calls: int, many: int, chance: random.Random) -> list[int]:
    """One number at random from each of so many equal parts of 1 to calls."""
    return sorted({1 + int((part + chance.random()) * calls / many) for part in range(many)})


@pytest.mark.parametrize(
    ("number", "target", "many"),
    [(1, die_in_keep, NEVER), (1, die_while_state_is_written, 8), (2, die_while_state_is_written, 8)],
)
def test_killed_at_every_stage_of_a_write(
    lessons: dict[int, Lesson], tmp_path: Path, number: int, target: Callable[..., None], many: int
) -> None:
    lesson = lessons[number]
    start = lesson.trained if target is die_in_keep else lesson.before
    assert die(target, shutil.copytree(start, tmp_path / "counted"), tmp_path / "count", NEVER) == 0
    calls = int((tmp_path / "count").read_text())
    assert calls > 10
    for call in spread(calls, min(many, calls), random.Random(number)):
        folder = shutil.copytree(start, tmp_path / str(call))
        assert die(target, folder, tmp_path / "log", call) == -signal.SIGKILL
        check_whole(folder, lesson)
        check_finishes(folder, lesson)


def test_killed_at_every_stage_of_an_export(lessons: dict[int, Lesson], tmp_path: Path) -> None:
    run = Run.open(lessons[1].after)
    assert die(die_in_export, run.folder, tmp_path / "counted", tmp_path / "count", NEVER) == 0
    calls = int((tmp_path / "count").read_text())
    assert calls > 10
    for call in range(1, calls + 1):
        target = tmp_path / str(call)
        assert die(die_in_export, run.folder, target, tmp_path / "log", call) == -signal.SIGKILL
        check_exported(run, target)


def test_killed_in_the_middle_of_exporting_a_large_file(lessons: dict[int, Lesson], tmp_path: Path) -> None:
    run = Run.open(shutil.copytree(lessons[1].after, tmp_path / "run"))
    source = run.rounds.lora("1")
    assert source is not None
    source.write_bytes(bytes(range(256)) * (1 << 16))
    run.rounds.restore(1, source)
    for seed in range(4):
        target = tmp_path / str(seed)
        process = processes().Process(target=die_in_export, args=(run.folder, target, tmp_path / "log", NEVER))
        process.start()
        while process.is_alive() and not (target.is_dir() and any(target.iterdir())):
            time.sleep(0.0005)
        time.sleep(random.Random(seed).uniform(0, 0.02))
        process.kill()
        process.join()
        check_exported(run, target)


def check_exported(run: Run, target: Path) -> None:
    """A killed export left the whole file or none; the next one finds its place and sweeps up."""
    source = run.rounds.lora("1")
    assert source is not None
    content = source.read_bytes()
    there = list(target.glob("*.safetensors"))
    assert len(there) <= 1 and all(path.read_bytes() == content for path in there)
    young = leftovers(target)
    assert len(young) <= 1
    assert export(run, target).read_bytes() == content
    assert leftovers(target) == young  # somebody may still be writing it
    age(target)
    assert export(run, target).read_bytes() == content
    assert len(list(target.iterdir())) == len(there) + 2
