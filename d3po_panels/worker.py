"""Everything that gallery and panels ask for, as jobs of a queue: draw, train, decide, import images."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, cast

from d3po_core.app.loras import Decision, decide
from d3po_core.app.training import (
    PicksRequest,
    RewardRequest,
    has_round_to_go_on_with,
    request_next,
    request_reward,
    why_not_train,
)
from d3po_core.diffusion.image_model import Encoder
from d3po_core.errors import D3POError
from d3po_core.gallery import Actions
from d3po_core.importing import Imported, JudgedImages
from d3po_core.run import Run
from d3po_core.settings import RewardSettings

from .drawing import Drawing
from .host import Host
from .importing import Importing
from .jobs import Job, JobQueue, job_with
from .training import train_in_turns

if TYPE_CHECKING:
    from typing_extensions import Self


class Worker(Actions):
    """The gallery's actions on a host's models; `start` it first, `close` it in the end."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.queue = JobQueue(host, lambda: self.drawing.next_job())
        self.drawing = Drawing(host, self.queue)
        self._marks: dict[str, object] = {}  # by taste, a mark of the press of Teach that its present round is from

    def start(self) -> Self:
        """Start working, and return the worker itself."""
        self.queue.start()
        return self

    def close(self) -> None:
        """Stop what is being done, keep it, and end."""
        self.queue.close()

    # -- what the gallery shows --------------------------------------------------------------------------------------

    def can(self, run: Run) -> list[str]:
        """See `Actions.can`."""
        training, stopped = self.is_training(run), run.rounds.stopped() is not None
        actions = ["draw"]
        if not training and not stopped:
            actions.append("decide")  # going back in the middle of a round would be lost at its end
        if not training and (has_round_to_go_on_with(run) or not why_not_train(run, self.training(run))):
            actions.append("teach")
        return [*actions, "stop"] if self.queue.is_busy(run) else actions

    def work(self, run: Run) -> dict[str, object] | None:
        """See `Actions.work`."""
        return self.queue.work(run)

    def problem(self, run: Run) -> D3POError | None:
        """See `Actions.problem`."""
        return self.queue.problem(run)

    def is_training(self, run: Run | None = None) -> bool:
        """Return whether a taste, or any, is being trained or waits for it."""
        return bool(self._marks) if run is None else run.run_id in self._marks

    # -- what is asked for -------------------------------------------------------------------------------------------

    def seen(self, run: Run) -> None:
        """See `Actions.seen`."""
        self.drawing.seen(run)

    def draw(self, run: Run, groups: int) -> None:
        """See `Actions.draw`."""
        self.drawing.ask(run, groups)

    def teach(self, run: Run) -> None:
        """Let a stopped round go on, whatever it learns from; else train a round by picks."""
        if not self.is_training(run):
            self._ask_to_train(run)

    def teach_by_reward(self, run: Run, written: str, settings: RewardSettings) -> None:
        """Train a round by a reward; see `request_reward`.

        Raises:
            D3POError: the taste is being trained, or what `request_reward` raises.
        """
        self._check_free(run)  # first: what the picks say now must not replace what a round is learning from
        self._ask_to_train(run, request_reward(run, written, settings))

    def finish(self, run: Run) -> None:
        """Make a LoRA of what a stopped round has learnt.

        Raises:
            D3POError: there is none, or the taste is being trained.
        """
        self._check_free(run)
        if run.rounds.stopped() is None:
            raise D3POError("No round of this taste was stopped in the middle.", "There is nothing to finish.")
        self._ask_to_train(run, finish=True)

    def import_images(self, run: Run, images: JudgedImages, who: str) -> Future[Imported]:
        """Import images into a taste, encoded by its model, and return the last report; see `import_pictures`."""
        outcome: Future[Imported] = Future()
        importing = Importing(run, images, who)

        def work() -> None:
            self._import_in_turn(run, importing, outcome, job)

        job = job_with(outcome, run, work)
        self.queue.add(job)
        return outcome

    def stop(self, run: Run) -> None:
        """See `Actions.stop`."""
        self._marks.pop(run.run_id, None)
        self.queue.stop(run)

    def decide(self, run: Run, round: int, decision: str, strength: float) -> None:
        """See `Actions.decide`."""
        decide(run, round, cast("Decision", decision), strength, lambda lora: self.host.lora_saved(run, lora))

    def copies(self, run: Run) -> Mapping[Path, str]:
        """See `Actions.copies`."""
        return self.host.lora_copies(run)

    def go_on(self, run: Run) -> None:
        """See `Actions.go_on`; what went wrong before is forgotten, and drawing ahead goes on."""
        super().go_on(run)
        self.queue.forget(run)

    def _check_free(self, run: Run) -> None:
        if self.is_training(run):
            raise D3POError("This taste is being taught just now.", "Wait until that is done, or press Stop first.")

    def _ask_to_train(self, run: Run, request: RewardRequest | None = None, finish: bool = False) -> None:
        mark = self._marks[run.run_id] = object()
        self.queue.ask(self._training_job(run, mark, request, finish))

    def _training_job(self, run: Run, mark: object, request: PicksRequest | RewardRequest | None, finish: bool) -> Job:
        """Return a turn of training, which adds another one unless the round is done or was stopped.

        Also where it ends before it begins, the taste can be taught again. A later press of Teach has a mark and a job
        of its own.
        """

        def work() -> None:
            done = True
            try:
                chosen = request or request_next(run, finish)  # kept for the next turn: a reward may take long to load
                done = train_in_turns(self.host, self.queue, self.drawing, run, chosen, finish)
            finally:
                if done:
                    self._forget(run, mark)
            if not done and self._marks.get(run.run_id) is mark:
                self.queue.add(self._training_job(run, mark, chosen, finish), first=True)

        return Job(run.run_id, work, drop=lambda: self._forget(run, mark))

    def _forget(self, run: Run, mark: object) -> None:
        if self._marks.get(run.run_id) is mark:
            del self._marks[run.run_id]

    # -- jobs --------------------------------------------------------------------------------------------------------

    def _import_in_turn(self, run: Run, importing: Importing, outcome: Future[Imported], job: Job) -> None:
        """Import images for a turn, and add another one unless all are in."""
        progress = self.queue.show(run, "importing", importing.total)
        for report in importing.resume(cast("Encoder", self.host.models.of(run)), self.host.should_yield):
            progress.at(report.done, report.total)
            self.queue.check()
        if importing.done:
            outcome.set_result(report)
        else:
            self.queue.add(job, first=True)
