"""What is being done for a taste, shown in three places: the host's progress bar, the node, and the gallery."""

from __future__ import annotations

from contextlib import ExitStack

from server import PromptServer

from ..d3po_core.app.cost import duration
from ..d3po_core.app.training import Next
from ..d3po_core.errors import interruptible
from ..d3po_core.gallery.actions import WorkProgress, WorkState
from ..d3po_core.run import Run
from ..d3po_core.training.reports import Report
from .host.process import ProgressBar, check_interrupted, is_interrupted

_now: dict[str, WorkProgress] = {}
_seconds_per_image: dict[str, float] = {}


def work_of(run: Run) -> WorkState | None:
    """Return work on a taste as the gallery shows it; None if there is none."""
    progress = _now.get(run.run_id)
    if progress and is_interrupted():
        progress = WorkProgress("stopping", 0)
    return progress.shown(0) if progress else None


def seconds_per_image(run: Run) -> float | None:
    """Return how long an image of this taste took to draw, if one was drawn since the host's start."""
    return _seconds_per_image.get(run.run_id)


def send_event(event: str, **facts: str) -> None:
    """Send an event to every page that is open."""
    PromptServer.instance.send_sync(event, facts)


def write_into_node(text: str, node: str) -> None:
    """Write a sentence into a node."""
    PromptServer.instance.send_progress_text(text, node)


class Working:
    """One piece of a node's work for a taste, as a context; `kind` and `of` are as for `WorkProgress`."""

    def __init__(self, run: Run, node: str, kind: str, of: int = 0) -> None:
        self.run, self.node = run, node
        self._progress, self._bar = WorkProgress(kind, of), ProgressBar()
        self._exit, self._sentence = ExitStack(), ""
        self.lowered: list[float] = []
        """What each update of training lowered, before it: the loss, or minus the reward."""

    def __enter__(self) -> Working:
        _now[self.run.run_id] = self._progress
        self._exit.callback(_now.pop, self.run.run_id, None)
        self._exit.enter_context(interruptible(check_interrupted))
        return self

    def __exit__(self, *error: object) -> None:
        self._exit.close()

    def next(self, kind: str, of: int = 0) -> None:
        """Go on with another kind of work."""
        if kind != self._progress.kind:
            text = self._progress.text if kind == "teaching" else ""
            self._progress = _now[self.run.run_id] = WorkProgress(kind, of, text)

    def say(self, text: str) -> None:
        """Write a sentence into the node."""
        self._sentence = text
        write_into_node(text, self.node)

    def takes(self, memory: str) -> None:
        """Say in the node and in the gallery what this work takes in memory, behind the sentence in the node."""
        self._progress.text = memory
        self.say(f"{self._sentence.rstrip('.')}. {memory}" if self._sentence else memory)

    def at(self, done: int, of: int, text: str = "") -> None:
        """Show how many steps are done. Raises the host's interruption if the user asked for it."""
        self._progress.at(done, of)
        if text:
            left = self._progress.shown(0)["left_s"]
            self.say(text + (f", about {duration(left)} left" if left else ""))
        self._bar.at(done, of)

    def trained(self, report: Report) -> Next:
        """Show an update of training, and return that it goes on. Raises the host's interruption if the user asked."""
        self.lowered.append(report.minimised)
        self.next("teaching", report.total)
        self.at(report.update, report.total, f"Teaching, {report.note}".rstrip(", "))
        return Next.CONTINUE

    def looked(self, done: int, total: int) -> None:
        """Show at how many groups of pictures the network has looked, before the first update; see `at`."""
        self.at(done, total, "Looking at pictures")

    def drawn(self, done: int, total: int) -> None:
        """Show how many images before and after are drawn, and of how many; see `at`."""
        self.at(done, total, "Drawing before and after")

    def note_pace(self, images: int) -> None:
        """Remember how long an image takes; a step of this work drew this many."""
        _seconds_per_image[self.run.run_id] = self._progress.seconds_each() / images
