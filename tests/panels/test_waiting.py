"""A job that waits for the host's own queue: Stop is obeyed at once, and the queue goes on as if it had not been."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager

import pytest

from d3po_core.errors import interruptible
from d3po_core.run import Run
from d3po_panels.host import acquired
from d3po_panels.worker import Worker
from d3po_studio.host import StudioHost
from tests.garden_taste import OneModel

SECONDS = 2.0
"""In which a press of Stop is obeyed."""


class QueueHost(StudioHost):
    """One with a queue of its own, as web UIs have it."""

    def __init__(self, models: OneModel) -> None:
        super().__init__(models)
        self.lock = threading.Lock()

    def turn(self) -> AbstractContextManager[object]:
        return acquired(self.lock)


@pytest.fixture
def host(models: OneModel) -> QueueHost:
    return QueueHost(models)


@pytest.fixture
def worker(host: QueueHost) -> Iterator[Worker]:
    worker = Worker(host).start()
    yield worker
    worker.close()


def until(what: object, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not what():  # type: ignore[operator]
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.02)


def test_stop_is_obeyed_while_the_host_is_at_other_work(host: QueueHost, worker: Worker, run: Run) -> None:
    with host.lock:
        worker.draw(run, 2)
        until(lambda: worker.work(run), 10)
        worker.stop(run)
        until(lambda: worker.work(run) is None, SECONDS)
        assert not run.groups.select()
    until(lambda: not host.lock.locked(), SECONDS)  # whoever waited in vain keeps nobody out
    worker.draw(run, 1)
    until(lambda: len(run.groups.select()) == 1, 120)


def test_the_program_ends_while_the_host_is_at_other_work(host: QueueHost, run: Run) -> None:
    worker = Worker(host).start()
    with host.lock:
        worker.draw(run, 2)
        until(lambda: worker.work(run), 10)
        begun = time.monotonic()
        worker.close()
        assert time.monotonic() - begun < SECONDS


def test_a_lock_is_held_inside_and_given_back_whatever_happens() -> None:
    lock = threading.Lock()
    with acquired(lock):
        assert lock.locked()
    assert not lock.locked()
    with pytest.raises(ZeroDivisionError), acquired(lock):
        raise ZeroDivisionError
    assert not lock.locked()

    def stop() -> None:
        raise TimeoutError

    with lock, interruptible(stop), pytest.raises(TimeoutError), acquired(lock):
        pytest.fail("it is somebody else's")
    until(lambda: not lock.locked(), SECONDS)
