"""SIGKILL at any moment: what was acknowledged is there exactly once, and nothing is there by half."""

from __future__ import annotations

import os
import random
import shutil
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from d3po_core.run import Run
from tests.run_helpers import die_at, make_run, processes, trajectory, write_until_killed


@pytest.mark.parametrize("seed", range(5))
def test_killed_at_a_random_moment(tmp_path, seed):
    make_run(tmp_path / "run").close()
    process = processes().Process(target=write_until_killed, args=(tmp_path / "run", tmp_path / "log"))
    process.start()
    while not (tmp_path / "log").exists():
        time.sleep(0.001)
    time.sleep(random.Random(seed).uniform(0, 0.25))
    process.kill()
    process.join()
    _check(tmp_path / "run", tmp_path / "log")


@pytest.mark.skipif(os.name == "nt", reason="a process cannot kill itself as hard there")
def test_killed_at_every_stage_of_a_group_and_a_pick(tmp_path):
    make_run(tmp_path / "template").close()
    calls = int(_die(tmp_path, 10**9).split("survived ")[1])
    assert calls > 100
    for call in sorted(random.Random(0).sample(range(1, calls), 24)):
        assert "survived" not in _die(tmp_path, call)
        _check(tmp_path / "run", tmp_path / "log")


def _die(place: Path, call: int) -> str:
    shutil.rmtree(place / "run", ignore_errors=True)
    (place / "log").unlink(missing_ok=True)
    shutil.copytree(place / "template", place / "run")
    process = processes().Process(target=die_at, args=(place / "run", place / "log", call))
    process.start()
    process.join()
    return (place / "log").read_text() if (place / "log").exists() else ""


def _check(folder: Path, log: Path) -> None:
    """Compare the run with what its writer had been promised, by reading every file."""
    lines = [line.split() for line in (log.read_text().splitlines() if log.exists() else [])]
    promised = {kind: [what for each, what in lines if each == kind] for kind in ("group", "pick", "flag")}
    run = Run.open(folder)
    groups, picks, flags = run.groups.select(), run.picks.history(), run.flags.history()
    ids = {group.id for group in groups}
    assert set(promised["group"]) <= ids
    assert len(groups) - len(promised["group"]) in (0, 1)
    for group in groups:
        found = run.groups.trajectory(group.id)
        assert all(torch.equal(found[name], tensor) for name, tensor in trajectory(group.number).items())
        for candidate in range(group.candidates):
            with Image.open(run.groups.image_path(group.id, candidate)) as image:
                assert image.getpixel((7, 7)) == (group.number % 256, candidate, 77)
    # What no row names is gone, but for a temporary folder that is too young to be taken for abandoned.
    folders = list((folder / "groups").glob("*"))
    assert {path.name for path in folders if path.suffix != ".tmp"} == ids
    assert sum(path.suffix == ".tmp" for path in folders) <= 1
    for kind, recorded in (("pick", [each.pick_id for each in picks]), ("flag", [each.pick_id for each in flags])):
        assert len(recorded) == len(set(recorded))
        assert recorded[: len(promised[kind])] == promised[kind]
        assert len(recorded) - len(promised[kind]) in (0, 1)
    assert run.picks.revision == len(picks) + len(flags)
    for path in folders:
        os.utime(path, (0, 0))
    Run.open(folder)
    assert {path.name for path in (folder / "groups").glob("*")} == ids
    run.close()
