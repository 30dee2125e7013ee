"""Damaged, missing, foreign and full: one clear sentence, and everything else stays usable."""

from __future__ import annotations

import errno
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from d3po_core.errors import D3POError
from d3po_core.picks import Pick
from d3po_core.run import Run, database, files
from d3po_core.run.database import VERSION
from d3po_core.run.run import RunLibrary
from tests.run_helpers import MODEL, make_run, put_group, trajectory


def test_a_folder_that_is_missing_or_no_run(tmp_path):
    with pytest.raises(D3POError, match="There is no folder"):
        Run.open(tmp_path / "nowhere")
    with pytest.raises(D3POError, match="is not a run"):
        Run.open(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(D3POError, match="cannot be written to"):
        Run.create(tmp_path / "file" / "run", model=MODEL, settings={})


def test_a_folder_on_a_drive_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr("pathlib.Path.exists", lambda _: False)
    with pytest.raises(D3POError, match=r"run cannot be written to \(No such file or directory\)"):
        files.check_writable(tmp_path / "run")


@pytest.fixture(scope="module")
def forty(tmp_path_factory):
    folder = tmp_path_factory.mktemp("forty") / "run"
    make_run(folder, groups=40).close()
    return folder


@pytest.mark.parametrize("damage", ["empty", "garbage", "torn", "other tables"])
def test_a_damaged_database(forty, tmp_path, damage):
    tmp_path = shutil.copytree(forty, tmp_path / "run")
    path = tmp_path / "run.sqlite3"
    whole = path.read_bytes()
    if damage == "empty":
        path.write_bytes(b"")
    elif damage == "garbage":
        path.write_bytes(os.urandom(5000))
    elif damage == "torn":
        path.write_bytes(whole[:9000] + b"\xff" * 8192 + whole[17192:])
    else:
        path.unlink()
        with sqlite3.connect(path) as connection:
            connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.close()
    with pytest.raises(D3POError, match=r"run\.sqlite3 is damaged .* were not touched"):
        Run.open(tmp_path)
    path.write_bytes(whole)
    assert len(Run.open(tmp_path).groups.select()) == 40


@pytest.mark.parametrize(
    ("version", "words"),
    [(7, r"newer version .*format 7.* Update D3PO"), (3, r"early, unreleased version .*format 3.* Begin a new run")],
)
def test_a_run_of_another_version_is_left_alone(tmp_path, version, words):
    make_run(tmp_path).close()
    with sqlite3.connect(tmp_path / "run.sqlite3") as connection:
        connection.execute(f"PRAGMA user_version = {version}")
    connection.close()
    before = (tmp_path / "run.sqlite3").read_bytes()
    with pytest.raises(D3POError, match=words):
        Run.open(tmp_path)
    assert (tmp_path / "run.sqlite3").read_bytes() == before


def test_a_stale_log_of_a_deleted_database_is_not_replayed(tmp_path):
    old = make_run(tmp_path / "old", groups=1)
    wal = (tmp_path / "old" / "run.sqlite3-wal").read_bytes()
    assert wal
    old.close()
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "run.sqlite3-wal").write_bytes(wal)
    assert make_run(tmp_path / "new").groups.select() == []


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "changed byte", "pickle"])
def test_a_damaged_trajectory_is_named_and_others_stay_usable(tmp_path, damage):
    run = make_run(tmp_path, groups=2)
    bad, good = run.groups.select()
    path = tmp_path / "groups" / bad.id / "trajectory.safetensors"
    data = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "cut":
        path.write_bytes(data[:-1])
    elif damage == "changed byte":
        data[-9] ^= 16
        path.write_bytes(data)
    else:
        torch.save(trajectory(0), path)
    word = "missing" if damage == "missing" else "damaged"
    with pytest.raises(D3POError, match=f"trajectory of group 0 is {word}.* All other groups"):
        run.groups.trajectory(bad.id)
    assert torch.equal(run.groups.trajectory(good.id)["x"], trajectory(1)["x"])
    assert run.groups.image_path(bad.id, 0).is_file()
    run.groups.image_path(bad.id, 0).unlink()
    with pytest.raises(D3POError, match="image of candidate 0 in group 0 is missing"):
        run.groups.image_path(bad.id, 0)


def test_safetensors_of_others_are_read_without_a_checksum(tmp_path):
    run = make_run(tmp_path, groups=1)
    (group,) = run.groups.select()
    save_file({"x": torch.ones(3)}, tmp_path / "groups" / group.id / "trajectory.safetensors")
    assert torch.equal(run.groups.trajectory(group.id)["x"], torch.ones(3))


def test_names_that_look_like_the_checksum_do_no_harm():
    text = '"crc32":"00000000"'
    tensors, metadata = files.unpack(files.pack({text: torch.arange(3)}, {"a": text}))
    assert torch.equal(tensors[text], torch.arange(3))
    assert metadata == {"a": text}


def test_a_data_type_that_torch_lacks_is_a_damaged_file():
    header = b'{"a":{"dtype":"F6_E2M3","shape":[4],"data_offsets":[0,3]}}'
    with pytest.raises(ValueError, match="F6_E2M3"):
        files.unpack(len(header).to_bytes(8, "little") + header + bytes(3))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_a_write_that_fails_leaves_all_as_it_was(tmp_path, monkeypatch, number):
    run = make_run(tmp_path, groups=1)
    run.rounds.begin({})
    run.rounds.save_state(1, {"w": torch.ones(2)}, {"step": 1})
    before = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    left = 0

    def fail(handle):
        nonlocal left
        left -= 1
        if left == 0:
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    words = "is full" if number == errno.ENOSPC else "cannot be written to"
    for stage in range(1, 6):  # three files, their folder, and the folder of groups
        left = stage
        with pytest.raises(D3POError, match=rf"{words}.* kept"):
            put_group(run)
    left = 1
    with pytest.raises(D3POError, match=words):
        run.rounds.save_state(1, {"w": torch.zeros(2)}, {"step": 2})
    tensors, info = run.rounds.load_state(1)
    assert (float(tensors["w"][0]), info) == (1.0, {"step": 1})
    assert len(run.groups.select()) == 1
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == before


def test_a_full_database_keeps_its_picks_and_leaves_no_group(tmp_path):
    run = make_run(tmp_path, groups=1)
    (group,) = run.groups.select()
    run.picks.add(group.id, Pick("tie"), reason="first")
    with run._database.read() as connection:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(D3POError, match="is full"):
        run.picks.add(group.id, Pick("tie"), reason="x" * 100_000)
    with pytest.raises(D3POError, match="is full"):
        put_group(run, settings={"long": "x" * 100_000})
    assert [stored.reason for stored in run.picks.standing()] == ["first"]
    assert [path.name for path in (tmp_path / "groups").iterdir()] == [group.id]


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounts a small disk, which needs root")
def test_a_disk_that_really_fills_up(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        run = make_run(disk / "run")
        added = []
        with pytest.raises(D3POError, match=r"is full.* kept"):
            for _ in range(100):
                added.append(put_group(run, tensors={"x": torch.zeros(5000)}))
        assert [group.id for group in run.groups.select()] == added
        assert len(added) > 3
        assert all(len(run.groups.trajectory(each)["x"]) == 5000 for each in added)
        run.close()
        run = Run.open(disk / "run")
        assert {path.name for path in (disk / "run" / "groups").iterdir()} == set(added)
        run.close()
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_run_that_cannot_be_written_to(tmp_path):
    run = make_run(tmp_path, groups=1)
    (group,) = run.groups.select()
    (tmp_path / "groups").chmod(0o500)
    try:
        with pytest.raises(D3POError, match="cannot be written to"):
            put_group(run)
        assert run.groups.get(group.id) == group
    finally:
        (tmp_path / "groups").chmod(0o700)


def test_a_database_busy_for_too_long(tmp_path, monkeypatch):
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.05)
    run = make_run(tmp_path, groups=1)
    other = sqlite3.connect(tmp_path / "run.sqlite3", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(D3POError, match="has been busy"):
        run.picks.add(run.groups.select()[0].id, Pick("tie"))
    other.close()
    assert run.picks.add(run.groups.select()[0].id, Pick("tie")).new


def test_leftovers_are_swept_once_they_are_old(tmp_path):
    run = make_run(tmp_path, groups=1)
    (group,) = run.groups.select()
    run.close()
    orphan = tmp_path / "groups" / "000009-0123abcd"
    young, old = tmp_path / "groups" / "000010-0123abcd.tmp", tmp_path / "groups" / "000011-0123abcd.tmp"
    mine = tmp_path / "groups" / "my own folder"
    half = tmp_path / "run.sqlite3.01234567.tmp-wal"
    for folder in (orphan, young, old, mine):
        folder.mkdir()
        (folder / "0.png").write_bytes(b"x")
    half.write_bytes(b"x")
    for path in (old, mine, half):
        os.utime(path, (time.time() - 3600,) * 2)
    run = Run.open(tmp_path)
    assert {path.name for path in (tmp_path / "groups").iterdir()} == {group.id, young.name, mine.name}
    assert not half.exists()
    assert re.fullmatch(r"000000-[0-9a-f]{8}", group.id)
    assert torch.equal(run.groups.trajectory(group.id)["x"], trajectory(0)["x"])


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A run on media that nobody can write to, root neither."""
    writable, shown = tmp_path / "library", tmp_path / "read-only"
    make_run(writable / "taste", groups=2).close()
    if os.geteuid() != 0:
        for folder in (writable, writable / "taste"):
            folder.chmod(0o555)
        yield writable
        for folder in (writable, writable / "taste"):
            folder.chmod(0o755)
        return
    shown.mkdir()
    bound = subprocess.run(["mount", "--bind", str(writable), str(shown)], check=False, capture_output=True)
    if bound.returncode:
        pytest.skip("this root may not mount")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(shown)], check=True, capture_output=True)
        yield shown
    finally:
        subprocess.run(["umount", str(shown)], check=True)


@pytest.mark.skipif(os.name != "posix", reason="needs a file system that is mounted read-only")
def test_a_run_that_cannot_be_written_to_can_be_looked_at(read_only: Path) -> None:
    (run,) = RunLibrary(read_only).runs()
    assert [group.candidates for group in run.groups.select()] == [2, 2]
    assert run.picks.counts("").usable == 0
    with pytest.raises(D3POError, match="cannot be written"):
        run.picks.add(run.groups.select()[0].id, Pick("favourite", (0,)))
    run.close()
