"""One trainer works on a run at a time; its lock ends with its process, and says who holds it."""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from pathlib import Path

import pytest

from d3po_core.errors import D3POError
from d3po_core.run import Run, files
from d3po_core.run.files import hold
from tests.run_helpers import hold_trainer_lock, make_run, processes


def test_two_trainers_in_one_process(tmp_path):
    run = make_run(tmp_path)
    with run.rounds.lock():
        with pytest.raises(D3POError, match=f"process {os.getpid()} on"), Run.open(tmp_path).rounds.lock():
            pass
        with pytest.raises(D3POError, match="trained already"):
            run.space.free()
    with run.rounds.lock():
        pass


def test_the_lock_dies_with_its_process(tmp_path):
    run = make_run(tmp_path)
    context = processes()
    ready = context.Event()
    process = context.Process(target=hold_trainer_lock, args=(tmp_path, ready))
    process.start()
    assert ready.wait(60)
    with pytest.raises(D3POError, match=f"process {process.pid} on {socket.gethostname()}, since 2"), run.rounds.lock():
        pass
    process.kill()
    process.join()
    with run.rounds.lock():
        pass


def test_it_is_not_reentrant_and_the_outer_hold_outlives_the_inner_one(tmp_path):
    path = tmp_path / "trainer.lock"
    with hold(path):
        for _ in range(2):
            with (
                pytest.raises(D3POError, match=f"process {os.getpid()} on {socket.gethostname()}, since 2"),
                hold(path),
            ):
                pass
    with hold(path):
        pass


def test_another_thread_may_release_it(tmp_path):
    """A trainer is a generator that a host may close in another thread."""
    held = hold(tmp_path / "trainer.lock")
    held.__enter__()
    thread = threading.Thread(target=held.__exit__, args=(None, None, None))
    thread.start()
    thread.join()
    with hold(tmp_path / "trainer.lock"):
        pass


def test_it_waits_as_long_as_it_was_told(tmp_path):
    path = tmp_path / "trainer.lock"
    held = hold(path)
    held.__enter__()
    began = time.monotonic()
    with pytest.raises(D3POError, match="trained already"), hold(path, wait=0.2):
        pass
    assert time.monotonic() - began >= 0.2
    timer = threading.Timer(0.2, held.__exit__, args=(None, None, None))
    timer.start()
    with hold(path, wait=60):
        pass
    timer.join()


def test_a_holder_that_has_not_named_itself_yet_is_another_process(tmp_path):
    path = tmp_path / "trainer.lock"
    with hold(path):
        for text in ("", "[]", "{}"):
            path.with_name(path.name + files.HOLDER).write_text(text)
            with pytest.raises(D3POError, match="trained already: another process"), hold(path):
                pass


def test_it_needs_no_room_on_the_disk(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", full)
    with (
        hold(tmp_path / "trainer.lock"),
        pytest.raises(D3POError, match="another process"),
        hold(tmp_path / "trainer.lock"),
    ):
        pass


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path, monkeypatch):
    with pytest.raises(D3POError, match=r"nowhere cannot be written to .* kept"), hold(tmp_path / "nowhere" / "a.lock"):
        pass
    real = os.open

    def refused(path, *args, **kwargs):
        if str(path).endswith("a.lock"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(D3POError, match=r"cannot be written to \(Permission denied\)"), hold(tmp_path / "a.lock"):
        pass
