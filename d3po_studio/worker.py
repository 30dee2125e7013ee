"""One thread that owns the graphics card and does one thing at a time: draw ahead, teach, show what was taught.

Whatever it does can be stopped between two steps and keeps what was done. While it teaches and the person runs out of
pictures, it puts teaching aside, draws some, and goes on: a trainer resumes exactly where it was.
"""

from __future__ import annotations

import dataclasses
import functools
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch

from d3po_core.errors import D3POError
from d3po_core.gallery import Actions
from d3po_core.gallery.actions import FEWEST_PICKS
from d3po_core.gallery.progress import Progress
from d3po_core.gentler import make_gentler
from d3po_core.image_model import ImageModel
from d3po_core.policies import applied
from d3po_core.run import Run
from d3po_core.sampling import add_prompts, sample_groups
from d3po_core.settings import LoraSettings, RewardSettings, SampleSettings, TrainSettings, preset_values

from . import by_reward
from .by_reward import RewardLesson
from .report import where

if TYPE_CHECKING:
    from d3po_core.imported import Found, Imported
    from d3po_core.training.course import Course

AHEAD = 12
"""Groups that lie ready for the person, as far as the machine keeps up."""
LOOKED_SECONDS = 120.0
"""So long after a page was last heard of, drawing ahead goes on."""

TURN_SECONDS = 30.0
"""So long is taught, at least, before others have their turn: going on costs some seconds."""
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


@dataclass(frozen=True)
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


class Worker(Actions):
    """Does what the gallery asks for; `start` it first, `close` it in the end.

    Args:
        models: where models come from.
    """

    attachment = "peft"
    """How a LoRA is put on the models, see `lora.attach`."""
    in_a_turn = AHEAD
    """Groups that are drawn ahead before others may have their turn."""
    open_to_others = False
    """Whether the page may be seen from other computers; then it takes no path, which would name this one's files."""

    def __init__(self, models: Source) -> None:
        self.models = models
        self._jobs: deque[Job] = deque()
        self._looked: tuple[Run, float] | None = None
        self._now: tuple[str, Progress] = ("", Progress("idle", 0))
        self._problems: dict[str, D3POError] = {}
        self._resting: set[str] = set()
        self._teaching: dict[str, object] = {}  # by taste, a mark of the press that asked for it
        self._wake, self._stop, self._end = threading.Event(), threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._loop, name="d3po-worker", daemon=True)
        self.log: deque[str] = deque(maxlen=50)
        self.seconds_per_image: float | None = None

    def start(self) -> Worker:
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

    # -- what the gallery asks for -----------------------------------------------------------------------------------

    def can(self, run: Run) -> list[str]:
        busy = self._now[0] == run.run_id
        open_round = run.open_round() is not None
        enough = self.counts(run).usable >= FEWEST_PICKS and run.untaught() > 0
        found = ["draw"]
        if not open_round:
            found.append("decide")  # going back in the middle of a round would be lost at its end
        if run.run_id not in self._teaching and (enough or open_round):
            found.append("teach")
        return [*found, "stop"] if busy else found

    def teaches(self, run: Run | None = None) -> bool:
        """Whether a taste, or any, is being taught or waits for it."""
        return bool(self._teaching) if run is None else run.run_id in self._teaching

    def seen(self, run: Run) -> None:
        self._looked = (run, time.monotonic())
        self._wake.set()

    def work(self, run: Run) -> dict[str, Any] | None:
        now, progress = self._now
        return progress.shown(len(self._jobs)) if now == run.run_id else None

    def problem(self, run: Run) -> D3POError | None:
        return self._problems.get(run.run_id)

    def draw(self, run: Run, groups: int) -> None:
        self._ask(run, lambda run, model: self._draw_in_turns(run, model, groups))

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
        if run.stopped_round() is None:
            raise D3POError("No round of this taste was stopped in the middle.", "There is nothing to finish.")
        self._begin(run, finish=True)

    def bring(self, run: Run, found: Found, who: str) -> Future[Imported]:
        """Bring pictures that exist already into a taste, encoded by its model; see `imported.import_pictures`."""
        return self.call(lambda: self._bring(run, found, who), run)

    def stop(self, run: Run) -> None:
        for job in [job for job in list(self._jobs) if job.run_id == run.run_id]:
            with suppress(ValueError):  # it has just been begun
                self._jobs.remove(job)
                job.drop()
        self._resting.add(run.run_id)
        self._teaching.pop(run.run_id, None)
        if self._now[0] == run.run_id:
            self._stop.set()

    def skip(self, run: Run) -> None:
        """Stop what is being done for a taste and keep it; what waits, and drawing ahead, goes on."""
        if self._now[0] == run.run_id:
            self._stop.set()

    def decide(self, run: Run, round: int, decision: str, strength: float) -> None:
        if decision == "back":
            made = {0: "base", **{found.number: found.lora_hash for found in run.rounds() if found.lora_hash}}
            if round not in made:
                raise D3POError(f"There is no finished round {round} to go back to.")
            run.go_back(made[round])
        elif decision == "gentler":
            self._kept(run, make_gentler(run, round, strength))

    def call(self, work: Callable[[], Result], run: Run | None = None, free: bool = False) -> Future[Result]:
        """Let something else be done in its turn, by the thread that may use models; its outcome.

        Args:
            work: what.
            run: the taste that it belongs to, on whose page it is then shown as work.
            free: it needs no model.
        """
        outcome: Future[Result] = Future()

        def fail(error: D3POError) -> None:
            if not outcome.done():
                outcome.set_exception(error)

        def drop() -> None:
            fail(D3POError("It was stopped.", "Press the button again, if you want it after all."))

        self._jobs.append(Job(run.run_id if run else "", lambda: outcome.set_result(work()), drop, fail, free))
        self._wake.set()
        return outcome

    def _check_free(self, run: Run) -> None:
        if self.teaches(run):
            raise D3POError("This taste is being taught just now.", "Wait until that is done, or press Stop first.")

    def _begin(self, run: Run, lesson: RewardLesson | None = None, finish: bool = False) -> None:
        mark = self._teaching[run.run_id] = object()
        self._ask(run, functools.partial(self._teach, mark=mark, lesson=lesson, finish=finish))

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
            try:
                job = self._jobs.popleft() if self._jobs else self._ahead()
            except D3POError:  # the taste that was looked at is gone
                self._looked, job = None, None
            if job is None:
                self._wake.wait(0.5)
                self._wake.clear()
            else:
                self._do(job)

    def _ahead(self) -> Job | None:
        """Drawing for whoever looks, unless they stopped it or it failed."""
        run = self._looked and self._looked[0]
        if run is None or not self._looked_at(run):
            return None
        if run.run_id in self._resting or run.run_id in self._problems or not texts(run):
            return None
        if run.counts("").waiting > AHEAD // 2:  # not one by one: every start costs, and a batch is quicker
            return None
        return self._job(
            run, lambda run, model: self._draw(run, model, min(self.in_a_turn, AHEAD - run.counts("").waiting))
        )

    def _looked_at(self, run: Run) -> bool:
        looked = self._looked
        return looked is not None and looked[0].run_id == run.run_id and time.monotonic() - looked[1] < LOOKED_SECONDS

    def _do(self, job: Job) -> None:
        self._stop.clear()
        self._now = (job.run_id, Progress("loading", 0))
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
            self._now = ("", Progress("idle", 0))

    def _failed(self, job: Job, error: D3POError) -> None:
        if job.fail is None:
            self._problems[job.run_id] = error
        else:
            job.fail(error)

    # -- for hosts -------------------------------------------------------------------------------------------------

    def _turn(self, job: Job) -> AbstractContextManager[object]:
        """Held while a job is done: a host's own queue, and its model made ready."""
        return nullcontext()

    def _others_wait(self) -> bool:
        """Whether somebody else wants a turn."""
        return False

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

    def _show(self, run: Run, kind: str, of: int) -> Progress:
        progress = Progress(kind, of)
        self._now = (run.run_id, progress)
        return progress

    def _check(self) -> None:
        if self._stop.is_set() or self._end.is_set():
            raise Stopped

    def _draw_in_turns(self, run: Run, model: ImageModel, groups: int) -> None:
        left = groups - self._draw(run, model, groups)
        if left > 0:
            self._jobs.appendleft(self._job(run, lambda run, model: self._draw_in_turns(run, model, left)))

    def _draw(self, run: Run, model: ImageModel, groups: int) -> int:
        """Draw groups until others wait; how many."""
        done = 0
        progress = self._show(run, "drawing", groups)
        settings = dataclasses.replace(sample_settings(run), groups=max(1, groups))
        policy, prompts = run.current_policy(), texts(run)
        if not prompts:
            raise D3POError("Nobody has asked for pictures yet.", "Begin a taste with prompts under New taste.")
        number = 1 + sum(round.finished is not None for round in run.rounds())
        drawn = sample_groups(run, model, settings, prompts, policy, number)
        with applied(model.denoiser, run.lora(policy), self.attachment), closing(drawn):
            for report in drawn:
                done = report.done
                progress.at(done)
                self.seconds_per_image = progress.seconds_each() / settings.candidates
                self._check()
                if self._others_wait():
                    break
        return done

    def _teach(
        self, run: Run, model: ImageModel, mark: object, lesson: RewardLesson | None = None, finish: bool = False
    ) -> None:
        """Teach for a turn, unless that was stopped; a later press of Teach has a mark and a job of its own."""
        goes_on = False
        try:
            left = by_reward.stopped(run)
            if lesson is None and left is not None:
                lesson = by_reward.go_on(run, left)
            goes_on = self._teach_round(run, model, lesson, finish)
        finally:
            if not goes_on and self._teaching.get(run.run_id) is mark:
                del self._teaching[run.run_id]
        if goes_on and self._teaching.get(run.run_id) is mark:  # with the lesson: a reward may take long to load
            again = functools.partial(self._teach, mark=mark, lesson=lesson, finish=finish)
            self._jobs.appendleft(self._job(run, again))

    def _teach_round(self, run: Run, model: ImageModel, lesson: RewardLesson | None, finish: bool) -> bool:
        """Teach a round and show what came of it; whether it is to go on later, because others have their turn."""
        from d3po_core.showcase import show
        from d3po_core.training.keep import keep

        while True:
            course, settings = self._course(run, model, lesson)
            with self._for_gradients(model, settings):
                taught = self._taught(run, course, finish)
            if taught:
                break
            if self._others_wait():
                return True
            self._draw(run, model, AHEAD // 2)
        self._kept(run, keep(course))
        result = course.result()
        if not any(layer.up.any() for layer in result.weights.values()):
            return False  # before and after are the same
        progress = self._show(run, "blind", 0)
        for done, total in show(run, model, result.round, result.weights, sample_settings(run), self.attachment):
            progress.at(done, total)
            self._check()
        self._shown(run, result.round)
        return False

    def _course(
        self, run: Run, model: ImageModel, lesson: RewardLesson | None
    ) -> tuple[Course[Any], TrainSettings | RewardSettings]:
        """A trainer by picks or by a reward, and its settings."""
        from d3po_core.training.reward_trainer import RewardTrainer
        from d3po_core.training.trainer import Trainer

        train, lora = train_settings(run)
        if lesson is None:
            return Trainer(run, model.denoiser, train, lora, self.attachment), train
        self._show(run, "loading", 0)
        sample = sample_settings(run)
        prompts = add_prompts(run, model, texts(run), sample.negative)
        reward, settings = lesson.reward, lesson.settings
        trainer = RewardTrainer(run, model, reward, settings, lora, sample, self.attachment, prompts, lesson.written)
        return trainer, settings

    def _taught(self, run: Run, course: Course[Any], finish: bool) -> bool:
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
                if self._looked_at(run) and run.counts("").waiting == 0 and texts(run):
                    return False
                if time.monotonic() - begun > TURN_SECONDS and self._others_wait():
                    return False
        return True

    def _bring(self, run: Run, found: Found, who: str) -> Imported:
        from d3po_core.imported import import_pictures

        model: Any = self.models.of(run)
        progress = self._show(run, "importing", len(found.groups))
        for said in import_pictures(run, found, model, who):
            progress.at(said.done, said.total)
            self._check()
        return said


def texts(run: Run) -> list[str]:
    """A run's prompts, each once, without those that only came with imported pictures."""
    return list(dict.fromkeys(prompt.text for prompt in run.prompts() if prompt.asked))


def sample_settings(run: Run) -> SampleSettings:
    """How a run's pictures are drawn."""
    return SampleSettings(**run.settings.get("sample", {}))


def train_settings(run: Run) -> tuple[TrainSettings, LoraSettings]:
    """How a run is taught."""
    method = run.settings.get("train", {}).get("method", TrainSettings.method)
    preset = preset_values(run.settings.get("preset", "taste"), method)  # runs of the command line keep it alone
    train, lora = ({**preset.get(name, {}), **run.settings.get(name, {})} for name in ("train", "lora"))
    return TrainSettings(**train), LoraSettings(**lora)
