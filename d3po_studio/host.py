"""The Studio as the job queue's host: it has the machine to itself, and one model in memory."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from threading import Thread

from d3po_core.app.loras import NO_COPIES
from d3po_core.diffusion.image_model import ImageModel
from d3po_core.errors import D3POError, check_stop
from d3po_core.gallery.actions import WorkProgress
from d3po_core.run import Run
from d3po_core.settings import RewardSettings, TrainSettings
from d3po_panels.drawing import AHEAD
from d3po_panels.host import WAIT_SECONDS, Models


def _load(source: str, base_config: str | None, dtype: str) -> ImageModel:
    from d3po_core.models import load_model

    return load_model(source, base_config=base_config, dtype=dtype, device=None)


def _load_into(model: Future[ImageModel], source: str, base_config: str | None, dtype: str) -> None:
    """Load a model, and set what came of it: the model, or what went wrong."""
    try:
        model.set_result(_load(source, base_config, dtype))
    except BaseException as error:
        model.set_exception(error)
    finally:
        del model  # the error's traceback holds this frame, and would hold itself


class LoadedModels:
    """Loads the model that a taste was begun with, and keeps it until another one is needed."""

    def __init__(self) -> None:
        self._key: tuple[str, str | None, str] | None = None
        self._model: Future[ImageModel] | None = None
        self._loader = Thread()

    def get(self, source: str, base_config: str | None = None, dtype: str = "float32") -> ImageModel:
        """Return a model by its source, as `d3po_core.models.load_model` takes it.

        Nothing cuts a model's loading short, so a thread of its own loads it: whoever waits may stop at once, and the
        model is there the next time. The program's end does not wait for that thread.

        Raises:
            D3POError: it cannot be loaded.
        """
        key = (source, base_config, dtype)
        if self._model is None or key != self._key:
            self._model, self._key = None, key  # two would not fit
            while self._loader.is_alive():  # with the one that is not wanted any more
                self._loader.join(WAIT_SECONDS)
                check_stop()
            self._model = Future()
            self._loader = Thread(target=_load_into, args=(self._model, *key), name="d3po-loader", daemon=True)
            self._loader.start()
        while not wait([self._model], WAIT_SECONDS).done:
            check_stop()
        try:
            return self._model.result()
        except BaseException:
            self._model = None  # the error's traceback holds tensors
            raise

    @property
    def device(self) -> str:
        """The device of the model in memory."""
        loaded = self._model is not None and self._model.done() and not self._model.exception()
        return str(self._model.result().denoiser.device) if self._model and loaded else "cpu"

    def of(self, run: Run) -> ImageModel:
        """Return the model that a run was begun with.

        Raises:
            D3POError: it cannot be loaded, or another one is in its place now.
        """
        facts = run.model
        if not facts.get("source"):
            raise D3POError("This taste does not know where its model is.", "Open it in the program that made it.")
        model = self.get(facts["source"], facts.get("base_config"), facts.get("dtype", "float32"))
        if model.identity != facts["identity"]:
            raise D3POError(
                f"The model at {facts['source']} is not the one that this taste was begun with.",
                "Put the old one back, or begin a new taste.",
                "Your picks are saved.",
            )
        return model


class StudioHost:
    """See `d3po_panels.host.Host`: there is no other work, and no other list of LoRAs than the tastes' own."""

    attachment = "peft"
    groups_per_turn = AHEAD
    open_to_others = False
    task = ""

    def __init__(self, models: Models | None = None) -> None:
        self.models: Models = models or LoadedModels()

    def turn(self) -> AbstractContextManager[object]:
        """See `Host.turn`."""
        return nullcontext()

    def should_yield(self) -> bool:
        """See `Host.should_yield`."""
        return False

    def check_stop(self, progress: WorkProgress) -> None:
        """See `Host.check_stop`."""

    def training(self, model: ImageModel, settings: TrainSettings | RewardSettings) -> AbstractContextManager[object]:
        """See `Host.training`."""
        return nullcontext()

    def lora_saved(self, run: Run, path: Path) -> None:
        """See `Host.lora_saved`."""

    def lora_copies(self, run: Run) -> Mapping[Path, str]:
        """See `Host.lora_copies`."""
        return NO_COPIES

    def previews_drawn(self, run: Run, round: int) -> None:
        """See `Host.previews_drawn`."""
