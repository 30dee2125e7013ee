"""The Studio's worker inside a web UI: it takes its turns in the host's queue, on the model that the user loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from d3po_core.diffusion.image_model import ImageModel
from d3po_core.diffusion.trainable import trainable_tensors
from d3po_core.errors import D3POError
from d3po_core.run import Run
from d3po_core.settings import RewardSettings, TrainSettings
from d3po_panels.jobs import Job, Stopped
from d3po_panels.run_settings import sample_settings
from d3po_panels.worker import Worker

from . import host
from .cards import Cards
from .checkpointing import checkpointed, unet_layers
from .model import WebuiModel

DOING = {
    "loading": "loading the model",
    "drawing": "drawing",
    "checking": "looking through the pictures",
    "teaching": "teaching",
    "blind": "preparing the blind check",
    "importing": "bringing pictures in",
}
"""What the host's progress bar calls each kind of work; the gallery's words for it."""


class LoadedModel:
    """The web UI's own model, as where models come from."""

    def __init__(self) -> None:
        self.watch: Callable[[], None] = lambda: None
        """See `WebuiDenoiser.watch`."""

    @property
    def device(self) -> str:
        return str(host.device())

    def get(self, source: str = "") -> ImageModel:
        """The one that is loaded; there is no other.

        Raises:
            D3POError: there is none, or it cannot be taught.
        """
        return self._model()

    def _model(self, height: int = 0, width: int = 0) -> WebuiModel:
        model = WebuiModel(host.loaded_model(), height, width)
        model.denoiser.watch = self.watch
        return model

    def of(self, run: Run) -> ImageModel:
        """The same, if a taste was begun with it.

        Raises:
            D3POError: another one is loaded.
        """
        settings = sample_settings(run)
        model = self._model(settings.height, settings.width)
        if model.identity != run.model["identity"]:
            raise D3POError(
                f"This taste was begun with {run.model['name']}, and another checkpoint is loaded.",
                "Choose that one at the top of the page, then try again.",
                "Your picks are saved.",
            )
        return model


class WebuiWorker(Worker):
    """See `Worker`."""

    attachment = "hooks"
    in_a_turn = 2  # the user's own pictures wait meanwhile
    models: LoadedModel
    task = ""
    """Of what is being done or waits for its turn, as the host's progress bar knows it."""

    def __init__(self, models: LoadedModel) -> None:
        super().__init__(models)
        models.watch = self._check
        self.cards = Cards(host.lora_folder())
        self.open_to_others = host.open_to_others()

    def work(self, run: Run) -> dict[str, Any] | None:
        found = super().work(run)
        return found and {**found, "task": self.task}

    def _turn(self, job: Job) -> AbstractContextManager[object]:
        return self._in_queue()

    @contextmanager
    def _in_queue(self) -> Iterator[None]:
        self.task = host.new_task("d3po")
        try:
            with host.queued(self.task):
                model = host.loaded_model()
                host.forget_networks()
                host.to_device(model)
                yield
        finally:
            self.task = ""

    @contextmanager
    def _for_gradients(self, model: ImageModel, settings: TrainSettings | RewardSettings) -> Iterator[None]:
        assert isinstance(model, WebuiModel)
        module, again, decodes = model.denoiser.module, settings.checkpointing, isinstance(settings, RewardSettings)
        host.to_device(model.model, alone=True, vae=decodes)
        with (
            trainable_tensors([module]),
            checkpointed(unet_layers(module) if again else []),
            model.gradients_through_decode(again) if decodes else nullcontext(),
        ):
            yield

    def _check(self) -> None:
        super()._check()
        if self.task:  # else somebody else evaluates
            progress = self._now[1].shown(0)
            host.show(progress["done"], progress["of"], f"D3PO: {DOING[progress['kind']]}")
            if host.interrupted():
                self._resting.add(self._now[0])
            if host.interrupted() or host.skipped():
                raise Stopped

    def _others_wait(self) -> bool:
        return host.others_wait()

    def _kept(self, run: Run, lora: Path) -> None:
        self.cards.publish(run, lora)

    def _shown(self, run: Run, round: int) -> None:
        self.cards.picture(run, round)
