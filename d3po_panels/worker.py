"""All that gallery and panels ask for: draw, teach by picks or by a reward, show what came of it, bring pictures in.

While it teaches and the person runs out of pictures, it puts teaching aside, draws some, and goes on: a trainer resumes
exactly where it was.
"""

from __future__ import annotations

import functools
import time
from concurrent.futures import Future
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from d3po_core.app.scale_lora import scale_lora

from d3po_core.app.sampling import add_prompts
from d3po_core.diffusion.image_model import ImageModel
from d3po_core.errors import D3POError
from d3po_core.gallery.actions import MIN_PICKS
from d3po_core.run import Run
from d3po_core.settings import RewardSettings, TrainSettings

from . import by_reward
from .by_reward import RewardRequest
from .drawing import AHEAD, Drawing
from .importing import Importing
from .jobs import Job, Source
from .run_settings import sample_settings, texts, train_settings

if TYPE_CHECKING:
    from d3po_core.importing import Imported, JudgedImages
    from d3po_core.training.round_trainer import RoundTrainer

TURN_SECONDS = 30.0
"""So long is taught, at least, before others have their turn: going on costs some seconds."""


class Worker(Drawing):
    """See `Jobs`."""

    open_to_others = False
    """Whether the page may be seen from other computers; then it takes no path, which would name this one's files."""

    def __init__(self, models: Source) -> None:
        super().__init__(models)
        self._teaching: dict[str, object] = {}  # by taste, a mark of the press that asked for it

    # -- what the gallery asks for -----------------------------------------------------------------------------------

    def can(self, run: Run) -> list[str]:
        busy = self._now[0] == run.run_id
        teaching, stopped = self.teaches(run), run.rounds.stopped() is not None
        enough = self.counts(run).usable >= MIN_PICKS and self.untaught(run) > 0
        found = ["draw"]
        if not teaching and not stopped:
            found.append("decide")  # going back in the middle of a round would be lost at its end
        if not teaching and (enough or stopped):
            found.append("teach")
        return [*found, "stop"] if busy else found

    def teaches(self, run: Run | None = None) -> bool:
        """Whether a taste, or any, is being taught or waits for it."""
        return bool(self._teaching) if run is None else run.run_id in self._teaching

    def teach(self, run: Run) -> None:
        """Let a stopped round go on, whatever it learns from; else teach by picks."""
        if run.run_id not in self._teaching:
            self._begin(run)

    def teach_by_reward(self, run: Run, written: str, settings: RewardSettings) -> None:
        """Teach a round by a reward; see `by_reward.begin`.

        Raises:
            D3POError: the taste is being taught, or what `by_reward.begin` raises.
        """
        self._check_free(run)  # first: what the picks say now is not to replace what a round is learning from
        self._begin(run, by_reward.begin(run, written, settings))

    def finish(self, run: Run) -> None:
        """Make a LoRA of what a stopped round has learnt.

        Raises:
            D3POError: there is none, or the taste is being taught.
        """
        self._check_free(run)
        if run.rounds.stopped() is None:
            raise D3POError("No round of this taste was stopped in the middle.", "There is nothing to finish.")
        self._begin(run, finish=True)

    def bring(self, run: Run, found: JudgedImages, who: str) -> Future[Imported]:
        """Bring pictures that exist already into a taste, encoded by its model; see `imported.import_pictures`."""
        outcome: Future[Imported] = Future()
        importing = Importing(run, found, who)
        job = self._job_with(outcome, run, lambda: self._bring(run, importing, outcome, job))
        self._jobs.append(job)
        self._wake.set()
        return outcome

    def stop(self, run: Run) -> None:
        self._teaching.pop(run.run_id, None)
        super().stop(run)

    def decide(self, run: Run, round: int, decision: str, strength: float) -> None:
        if decision == "back":
            made = {0: "base", **{found.number: found.lora_hash for found in run.rounds.all() if found.lora_hash}}
            if round not in made:
                raise D3POError(f"There is no finished round {round} to go back to.")
            run.rounds.go_back(made[round])
        elif decision == "gentler":
            self._kept(run, scale_lora(run, round, strength))

    def _check_free(self, run: Run) -> None:
        if self.teaches(run):
            raise D3POError("This taste is being taught just now.", "Wait until that is done, or press Stop first.")

    def _begin(self, run: Run, lesson: RewardRequest | None = None, finish: bool = False) -> None:
        mark = self._teaching[run.run_id] = object()
        self._ask(run, functools.partial(self._teach, mark=mark, lesson=lesson, finish=finish))

    # -- for hosts ---------------------------------------------------------------------------------------------------

    def _for_gradients(
        self, model: ImageModel, settings: TrainSettings | RewardSettings
    ) -> AbstractContextManager[object]:
        """Held while a network is taught: its weights made such that autograd takes them, its memory as is asked; those
        of the decoder too, where a reward's gradient has to pass through it."""
        return nullcontext()

    def _kept(self, run: Run, lora: Path) -> None:
        """A round's LoRA was written."""

    def _shown(self, run: Run, round: int) -> None:
        """A round's pictures before and after were drawn."""

    # -- the jobs ----------------------------------------------------------------------------------------------------

    def _teach(
        self, run: Run, model: ImageModel, mark: object, lesson: RewardRequest | None = None, finish: bool = False
    ) -> None:
        """Teach for a turn, unless that was stopped; a later press of Teach has a mark and a job of its own."""
        goes_on = False
        try:
            left = by_reward.stopped(run)
            if lesson is None and left is not None:
                lesson = by_reward.finishing(left) if finish else by_reward.go_on(run, left)
            goes_on = self._teach_round(run, model, lesson, finish)
        finally:
            if not goes_on and self._teaching.get(run.run_id) is mark:
                del self._teaching[run.run_id]
        if goes_on and self._teaching.get(run.run_id) is mark:  # with the lesson: a reward may take long to load
            again = functools.partial(self._teach, mark=mark, lesson=lesson, finish=finish)
            self._jobs.appendleft(self._job(run, again))

    def _teach_round(self, run: Run, model: ImageModel, lesson: RewardRequest | None, finish: bool) -> bool:
        """Teach a round and show what came of it; whether it is to go on later, because others have their turn."""
        from d3po_core.evaluation.images import draw_previews
        from d3po_core.training.round_trainer import save_round

        while True:
            course, settings = self._course(run, model, lesson)
            with self._for_gradients(model, settings):
                taught = self._taught(run, course, finish)
            if taught:
                break
            if self._others_wait():
                return True
            self._draw(run, model, AHEAD // 2)
        self._kept(run, save_round(course))
        result = course.result()
        if not any(layer.up.any() for layer in result.weights.values()):
            return False  # before and after are the same
        progress = self._show(run, "blind", 0)
        for done, total in draw_previews(
            run, model, result.round, result.weights, sample_settings(run), self.attachment
        ):
            progress.at(done, total)
            self._check()
        self._shown(run, result.round)
        return False

    def _course(
        self, run: Run, model: ImageModel, lesson: RewardRequest | None
    ) -> tuple[RoundTrainer[Any], TrainSettings | RewardSettings]:
        """A trainer by picks or by a reward, and its settings."""
        from d3po_core.training.reward_trainer import RewardTrainer, StoppedReward
        from d3po_core.training.trainer import Trainer

        train, lora = train_settings(run)
        if lesson is None:
            return Trainer(run, model.denoiser, train, lora, self.attachment), train
        settings = lesson.settings
        if lesson.reward is None:
            return StoppedReward(run, model, settings, self.attachment), settings
        self._show(run, "loading", 0)
        sample = sample_settings(run)
        prompts = add_prompts(run, model, texts(run), sample.negative)
        return RewardTrainer(run, model, lesson.reward, settings, lora, sample, self.attachment, prompts), settings

    def _taught(self, run: Run, course: RoundTrainer[Any], finish: bool) -> bool:
        """Teach until it is done, until the person runs out of pictures, or until others wait; whether it is done."""
        progress, begun = self._show(run, "checking", 0), time.monotonic()
        with closing(course.steps()) as reports:
            for report in reports:
                if report.phase == "teach" and progress.kind != "teaching":
                    progress = self._show(run, "teaching", report.total)
                progress.at(report.update, report.total)
                self._check()
                if finish:
                    return True
                if self._looked_at(run) and run.picks.counts("").waiting == 0 and texts(run):
                    return False
                if time.monotonic() - begun > TURN_SECONDS and self._others_wait():
                    return False
        return True

    def _bring(self, run: Run, importing: Importing, outcome: Future[Imported], job: Job) -> None:
        """Bring pictures in for a turn."""
        progress = self._show(run, "importing", importing.total)
        for said in importing.go_on(self.models.of(run), self._others_wait):
            progress.at(said.done, said.total)
            self._check()
        if importing.done:
            outcome.set_result(said)
        else:
            self._jobs.appendleft(job)
