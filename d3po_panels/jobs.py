"""The job queue: one thread that owns the models and does one job at a time.

A job is stopped before the network's next evaluation, and keeps what was done.
"""

from __future__ import annotations

import threading
import traceback
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from d3po_core.app.cost import within_memory
from d3po_core.diffusion.image_model import ImageModel
from d3po_core.errors import D3POError, interruptible
from d3po_core.gallery.actions import WorkProgress
from d3po_core.run import Run

from .host import Host, Stopped
from .report import where

LESS_MEMORY = "Close other programs, or begin a taste with smaller pictures."
SAFE = "Your picks are saved."
UNFORESEEN = (
    "Something went wrong that should not have.",
    "Copy the report and send it to the makers, then try again.",
    SAFE,
)
Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class Job:
    """Something to do.

    Attributes:
        run_id: of the taste that it is for; "" for none.
        work: does it.
        drop: called instead of `work`, or after that was stopped, if nothing comes of it.
        fail: called with what went wrong; None to show that on the taste's page and drop the job.
        needs_model: whether it has to wait for the host's turn.
    """

    run_id: str
    work: Callable[[], object]
    drop: Callable[[], object] = lambda: None
    fail: Callable[[D3POError], object] | None = None
    needs_model: bool = True


class JobQueue:
    """Does jobs in turn, in a thread of its own; `start` it first, `close` it in the end.

    Args:
        host: whose turns and models it uses.
        when_idle: returns something to do while nothing is asked for, or None.
    """

    def __init__(self, host: Host, when_idle: Callable[[], Job | None]) -> None:
        self._host, self._when_idle = host, when_idle
        self._jobs: deque[Job] = deque()
        self._now: tuple[str, WorkProgress] = ("", WorkProgress("idle", 0))
        self._problems: dict[str, D3POError] = {}
        self._resting: set[str] = set()  # tastes for which nothing is drawn ahead until something is asked for
        self._wake, self._stop, self._end = threading.Event(), threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._loop, name="d3po-worker", daemon=True)
        self.log: deque[str] = deque(maxlen=50)
        """Where mistakes of ours happened, see `report.where`; oldest first."""

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Stop the present job, keep what it did, and end the thread."""
        self._end.set()
        self._stop.set()
        self._wake.set()
        self._thread.join()
        while self._jobs:
            self._jobs.popleft().drop()

    # -- asking ------------------------------------------------------------------------------------------------------

    def add(self, job: Job, first: bool = False) -> None:
        """Add a job at the end, or before all others."""
        (self._jobs.appendleft if first else self._jobs.append)(job)
        self._wake.set()

    def ask(self, job: Job) -> None:
        """Add a job on a person's behalf: what went wrong before is forgotten, and drawing ahead goes on."""
        self._forget(job.run_id)
        self.add(job)

    def forget(self, run: Run) -> None:
        """Forget what went wrong for a taste; drawing ahead goes on."""
        self._forget(run.run_id)
        self._wake.set()

    def _forget(self, run_id: str) -> None:
        self._resting.discard(run_id)
        self._problems.pop(run_id, None)

    def job(self, run: Run, work: Callable[[ImageModel], object]) -> Job:
        """Return a job with a taste's model."""
        return Job(run.run_id, lambda: work(self._host.models.of(run)))

    def call(self, work: Callable[[], Result], run: Run | None = None, needs_model: bool = True) -> Future[Result]:
        """Add a job, and return its outcome.

        Args:
            work: what to do.
            run: the taste that it is for, on whose page it is then shown.
            needs_model: see `Job`.
        """
        outcome: Future[Result] = Future()
        self.add(job_with(outcome, run, lambda: outcome.set_result(work()), needs_model))
        return outcome

    def stop(self, run: Run) -> None:
        """Drop all jobs of a taste, stop the present one if it is for it, and draw nothing ahead for it."""
        for job in [job for job in list(self._jobs) if job.run_id == run.run_id]:
            with suppress(ValueError):  # it has just been begun
                self._jobs.remove(job)
                job.drop()
        self._resting.add(run.run_id)
        self.skip(run)

    def skip(self, run: Run) -> None:
        """Stop the present job if it is for a taste; its other jobs, and drawing ahead, go on."""
        if self.is_busy(run):
            self._stop.set()

    def wake(self) -> None:
        """Look at once whether there is something to do."""
        self._wake.set()

    # -- looking -----------------------------------------------------------------------------------------------------

    def is_busy(self, run: Run) -> bool:
        """Return whether the present job is for a taste."""
        return self._now[0] == run.run_id

    def is_resting(self, run: Run) -> bool:
        """Return whether nothing is to be drawn ahead for a taste: it was stopped, or something went wrong."""
        return run.run_id in self._resting or run.run_id in self._problems

    def problem(self, run: Run) -> D3POError | None:
        """Return what went wrong last for a taste, until something is asked for again."""
        return self._problems.get(run.run_id)

    def work(self, run: Run) -> dict[str, object] | None:
        """Return what is being done for a taste, as the gallery shows it; None if nothing is."""
        now, progress = self._now
        if now != run.run_id:
            return None
        if self._stop.is_set():
            progress = WorkProgress("stopping", 0)
        task = {"task": self._host.task} if self._host.task else {}
        return {**progress.shown(len(self._jobs)), **task}

    # -- for jobs ----------------------------------------------------------------------------------------------------

    @property
    def progress(self) -> WorkProgress:
        """The present job's progress."""
        return self._now[1]

    def show(self, run: Run, kind: str, of: int, text: str = "") -> WorkProgress:
        """Begin another piece of the present job, and return its progress; see `WorkProgress`."""
        progress = WorkProgress(kind, of, text)
        self._now = (run.run_id, progress)
        return progress

    def say(self, text: str) -> None:
        """Show a sentence beside the present piece's progress."""
        self.progress.text = text

    def at(self, done: int, total: int | None = None) -> None:
        """Show how far the present piece has come, and see whether the job is to be stopped; see `check`."""
        self.progress.at(done, total)
        self.check()

    def check(self) -> None:
        """See whether the present job is to be stopped.

        Raises:
            Stopped: it is.
        """
        if self._stop.is_set() or self._end.is_set():
            raise Stopped
        self._host.check_stop(self.progress)

    # -- the thread --------------------------------------------------------------------------------------------------

    def _loop(self) -> None:
        while not self._end.is_set():
            job = self._jobs.popleft() if self._jobs else self._when_idle()
            if job is None:
                self._wake.wait(0.5)
                self._wake.clear()
            else:
                self._do(job)

    def _do(self, job: Job) -> None:
        self._stop.clear()
        self._now = (job.run_id, WorkProgress("loading", 0))
        try:
            with interruptible(self.check):
                within_memory(lambda: self._in_turn(job), LESS_MEMORY, SAFE)
        except Stopped as stopped:
            if stopped.rest:
                self._resting.add(job.run_id)
            job.drop()
        except D3POError as error:
            # A new one: the caught error's traceback would hold tensors in memory.
            self._failed(job, D3POError(error.what, error.do, error.safe))
        except Exception as error:
            traceback.print_exc()
            self.log.append(where(error))
            self._failed(job, D3POError(*UNFORESEEN))
        finally:
            self._now = ("", WorkProgress("idle", 0))

    def _in_turn(self, job: Job) -> None:
        self.check()
        if not job.needs_model:
            job.work()
            return
        with self._host.turn():
            self.check()  # it may have waited long
            job.work()

    def _failed(self, job: Job, error: D3POError) -> None:
        if job.fail is None:
            self._problems[job.run_id] = error
            job.drop()
        else:
            job.fail(error)


def job_with(outcome: Future[Result], run: Run | None, work: Callable[[], object], needs_model: bool = True) -> Job:
    """Return a job on whose outcome somebody waits: if it fails or is dropped, they get the reason.

    Args:
        outcome: `work` sets its result.
        run: the taste that it is for.
        work: what to do.
        needs_model: see `Job`.
    """

    def fail(error: D3POError) -> None:
        if not outcome.done():
            outcome.set_exception(error)

    def drop() -> None:
        fail(D3POError("It was stopped.", "Press the button again, if you want it after all."))

    return Job(run.run_id if run else "", work, drop, fail, needs_model)
