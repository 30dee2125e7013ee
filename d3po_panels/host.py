"""What a program that shows the panels provides for the job queue."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from d3po_core.diffusion.image_model import ImageModel
from d3po_core.errors import check_stop
from d3po_core.gallery.actions import WorkProgress
from d3po_core.run import Run
from d3po_core.settings import RewardSettings, TrainSettings


class Stopped(Exception):
    """A person asked for the present job to stop.

    Args:
        rest: draw nothing ahead for its taste either, until something is asked for.
    """

    def __init__(self, rest: bool = False) -> None:
        super().__init__()
        self.rest = rest


WAIT_SECONDS = 0.2
"""After which whoever waits asks whether to stop."""


class Lock(Protocol):
    """A lock that any thread may release; a host's own knows no waiting time."""

    def acquire(self) -> object:
        """Wait for it."""

    def release(self) -> None:
        """Give it back."""


@contextmanager
def acquired(lock: Lock) -> Iterator[None]:
    """Hold a lock while inside; whoever waits for it may be stopped, see `errors.interruptible`.

    A thread of its own waits, in the order in which a fair lock serves all. If nobody needs the lock any more when that
    thread gets it, it gives it back at once.
    """
    got, guard, wanted = threading.Event(), threading.Lock(), [True]

    def wait() -> None:
        lock.acquire()
        with guard:
            if wanted:
                got.set()
                return
        lock.release()

    threading.Thread(target=wait, name="d3po-waits", daemon=True).start()
    try:
        while not got.wait(WAIT_SECONDS):
            check_stop()
    except BaseException:
        with guard:
            wanted.clear()
        if got.is_set():
            lock.release()
        raise
    try:
        yield
    finally:
        lock.release()


class Models(Protocol):
    """Where models come from."""

    @property
    def device(self) -> str:
        """The device of the model in memory."""

    def get(self, source: str) -> ImageModel:
        """Return a model by its source.

        Raises:
            D3POError: it cannot be loaded.
        """

    def of(self, run: Run) -> ImageModel:
        """Return the model that a run was begun with.

        Raises:
            D3POError: it cannot be loaded, or another one is in its place.
        """


class Host(Protocol):
    """What differs between the programs that show the panels: the Studio, A1111 and the Forge family."""

    @property
    def models(self) -> Models:
        """Where models come from."""

    @property
    def attachment(self) -> str:
        """How a LoRA is attached to these models, see `lora.attach`."""

    @property
    def groups_per_turn(self) -> int:
        """Groups to draw ahead before the host's other work has its turn."""

    @property
    def open_to_others(self) -> bool:
        """Whether other computers can see the page. Then it takes no paths, which would name files of this one."""

    @property
    def task(self) -> str:
        """Id of the present turn in the host's own progress bar; "" if it has none."""

    def turn(self) -> AbstractContextManager[object]:
        """Hold the host's own queue, its model ready for use, while a job is done."""

    def should_yield(self) -> bool:
        """Return whether the host's other work waits for a turn."""

    def check_stop(self, progress: WorkProgress) -> None:
        """Show progress in the host's own way, and see whether a person stopped the job there.

        Raises:
            Stopped: they did.
        """

    def training(self, model: ImageModel, settings: TrainSettings | RewardSettings) -> AbstractContextManager[object]:
        """Hold the network, and for a reward the decoder: autograd works, and memory is as the settings ask."""

    def lora_saved(self, run: Run, path: Path) -> None:
        """Take note of a LoRA file that was written into a run.

        Raises:
            D3POError: it cannot be copied to where the host lists LoRAs.
        """

    def lora_copies(self, run: Run) -> Mapping[Path, str]:
        """Return the copies of a run's LoRA files that the host lists, each with the policy that it notes beside it."""

    def previews_drawn(self, run: Run, round: int) -> None:
        """Take note that a round's images before and after were drawn."""
