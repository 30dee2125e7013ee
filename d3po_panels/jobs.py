"""One thread that owns the graphics card and does one thing at a time.

Whatever it does can be stopped between two steps and keeps what was done.
"""

from __future__ import annotations

import threading
import traceback
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch

from d3po_core.diffusion.image_model import ImageModel
from d3po_core.errors import D3POError
from d3po_core.gallery import Actions
from d3po_core.gallery.progress import WorkProgress
from d3po_core.run import Run

from .report import where

if TYPE_CHECKING:
    from typing_extensions import Self

NO_MEMORY = (
    "There is not enough memory for this.",
    "Close other programs, or begin a taste with smaller pictures.",
    "Your picks are saved.",
)
UNFORESEEN = (
    "Something went wrong that should not have.",
    "Copy the report and send it to the makers, then try again.",
    "Your picks are saved.",
)
Result = TypeVar("Result")


class Source(Protocol):
    """Where models come from."""

    @property
    def device(self) -> str:
        """Where the model in memory is."""
        ...

    def get(self, source: str) -> ImageModel:
        """A model by its source."""
        ...

    def of(self, run: Run) -> ImageModel:
        """The model that a run was begun with."""
        ...


@dataclass(frozen=True, eq=False)
class Job:
    """Something to do for a taste ("" for none)."""

    run_id: str
    work: Callable[[], object]
    drop: Callable[[], object] = lambda: None
    """Called instead of `work`, or after it was stopped, if nothing comes of it."""
    fail: Callable[[D3POError], object] | None = None
    """Called with what went wrong, which is then nobody else's problem."""
    free: bool = False
    """Whether it can be done without a model, so that it need not wait for its turn."""


class Stopped(Exception):
    """The person pressed Stop."""


class Jobs(Actions):
    """Does what is asked for, in turn; `start` it first, `close` it in the end.

    Args:
        models: where models come from.
    """

    def __init__(self, models: Source) -> None:
        self.models = models
        self._jobs: deque[Job] = deque()
        self._now: tuple[str, WorkProgress] = ("", WorkProgress("idle", 0))
        self._problems: dict[str, D3POError] = {}
        self._resting: set[str] = set()
        self._wake, self._stop, self._end = threading.Event(), threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._loop, name="d3po-worker", daemon=True)
        self.log: deque[str] = deque(maxlen=50)

    def start(self) -> Self:
        self._thread.start()
        return self

    def close(self) -> None:
        """Stop what is being done, keep it, and end."""
        self._end.set()
        self._stop.set()
        self._wake.set()
        self._thread.join()
        while self._jobs:
            self._jobs.popleft().drop()

    # -- what is asked for -------------------------------------------------------------------------------------------

    def work(self, run: Run) -> Mapping[str, object] | None:
        now, progress = self._now
        return progress.shown(len(self._jobs)) if now == run.run_id else None

    def problem(self, run: Run) -> D3POError | None:
        return self._problems.get(run.run_id)

    def stop(self, run: Run) -> None:
        for job in [job for job in list(self._jobs) if job.run_id == run.run_id]:
            with suppress(ValueError):  # it has just been begun
                self._jobs.remove(job)
                job.drop()
        self._resting.add(run.run_id)
        if self._now[0] == run.run_id:
            self._stop.set()

    def skip(self, run: Run) -> None:
        """Stop what is being done for a taste and keep it; what waits, and drawing ahead, goes on."""
        if self._now[0] == run.run_id:
            self._stop.set()

    def call(self, work: Callable[[], Result], run: Run | None = None, free: bool = False) -> Future[Result]:
        """Let something else be done in its turn, by the thread that may use models; its outcome.

        Args:
            work: what.
            run: the taste that it belongs to, on whose page it is then shown as work.
            free: it needs no model.
        """
        outcome: Future[Result] = Future()
        self._jobs.append(self._job_with(outcome, run, lambda: outcome.set_result(work()), free))
        self._wake.set()
        return outcome

    def _job_with(self, outcome: Future[Any], run: Run | None, work: Callable[[], object], free: bool = False) -> Job:
        """One on whose outcome somebody waits; if it does not come, they are told why."""

        def fail(error: D3POError) -> None:
            if not outcome.done():
                outcome.set_exception(error)

        def drop() -> None:
            fail(D3POError("It was stopped.", "Press the button again, if you want it after all."))

        return Job(run.run_id if run else "", work, drop, fail, free)

    def _ask(self, run: Run, work: Callable[[Run, ImageModel], None]) -> None:
        self._resting.discard(run.run_id)
        self._problems.pop(run.run_id, None)
        self._jobs.append(self._job(run, work))
        self._wake.set()

    def _job(self, run: Run, work: Callable[[Run, ImageModel], object]) -> Job:
        return Job(run.run_id, lambda: work(run, self.models.of(run)))

    # -- the thread --------------------------------------------------------------------------------------------------

    def _loop(self) -> None:
        while not self._end.is_set():
            job = self._jobs.popleft() if self._jobs else self._ahead()
            if job is None:
                self._wake.wait(0.5)
                self._wake.clear()
            else:
                self._do(job)

    def _ahead(self) -> Job | None:
        """Something to do while nothing is asked for."""
        return None

    def _do(self, job: Job) -> None:
        self._stop.clear()
        self._now = (job.run_id, WorkProgress("loading", 0))
        try:
            self._check()
            with nullcontext() if job.free else self._turn(job):
                job.work()
        except Stopped:
            job.drop()
        except D3POError as error:
            # A new one: the caught error's traceback would hold tensors in memory.
            self._failed(job, D3POError(error.what, error.do, error.safe))
        except torch.cuda.OutOfMemoryError:  # its name in every torch, for all devices
            self._failed(job, D3POError(*NO_MEMORY))
        except Exception as error:
            traceback.print_exc()
            self.log.append(where(error))
            self._failed(job, D3POError(*UNFORESEEN))
        finally:
            self._now = ("", WorkProgress("idle", 0))

    def _failed(self, job: Job, error: D3POError) -> None:
        if job.fail is None:
            self._problems[job.run_id] = error
        else:
            job.fail(error)

    # -- for hosts ---------------------------------------------------------------------------------------------------

    def _turn(self, job: Job) -> AbstractContextManager[object]:
        """Held while a job is done: a host's own queue, and its model made ready."""
        return nullcontext()

    def _others_wait(self) -> bool:
        """Whether somebody else wants a turn."""
        return False

    # -- for jobs ----------------------------------------------------------------------------------------------------

    def _show(self, run: Run, kind: str, of: int) -> WorkProgress:
        progress = WorkProgress(kind, of)
        self._now = (run.run_id, progress)
        return progress

    def _check(self) -> None:
        if self._stop.is_set() or self._end.is_set():
            raise Stopped
