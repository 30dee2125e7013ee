"""The web UI as the job queue's host: jobs take turns in its queue, on the model that the user loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path

from modules import call_queue, shared
from modules import progress as tasks

from d3po_core.app.runs import sample_settings
from d3po_core.diffusion.image_model import ImageModel
from d3po_core.diffusion.trainable import plain_kernels, trainable_tensors
from d3po_core.errors import D3POError
from d3po_core.gallery.actions import WorkProgress
from d3po_core.run import Run
from d3po_core.settings import RewardSettings, TrainSettings
from d3po_panels.host import Stopped, acquired

from . import flow_settings, host
from .cards import Cards
from .gradients import checkpointed, large_blocks
from .model import WebuiModel
from .teachable import teachable_model

LABELS = {
    "loading": "loading the model",
    "drawing": "drawing",
    "checking": "looking at the pictures",
    "teaching": "teaching",
    "blind": "preparing the blind check",
    "importing": "importing pictures",
}
"""What the host's progress bar calls each kind of work."""


class LoadedModel:
    """The web UI's own model, as where models come from."""

    @property
    def device(self) -> str:
        """The device on which the model computes."""
        return str(host.device())

    def get(self, source: str = "") -> WebuiModel:
        """Return the model that is loaded; there is no other.

        Raises:
            D3POError: there is none, or it cannot be trained.
        """
        return WebuiModel(teachable_model())

    def of(self, run: Run) -> WebuiModel:
        """Return the model that is loaded, if a run was begun with it.

        Raises:
            D3POError: another one is loaded.
        """
        settings = sample_settings(run)
        model = WebuiModel(teachable_model(), settings.height, settings.width, flow_settings.stored(run.settings))
        if model.identity != run.model["identity"]:
            raise D3POError(
                f"This taste was begun with {run.model['name']}, and another checkpoint is loaded.",
                "Choose that one at the top of the page, then try again.",
                "Your picks are saved.",
            )
        return model


class WebuiHost:
    """See `d3po_panels.host.Host`; LoRAs are shown among the cards."""

    attachment = "hooks"

    def __init__(self, cards: Cards) -> None:
        self.cards = cards
        self.models = LoadedModel()
        self.open_to_others = bool(shared.cmd_opts.webui_is_non_local)  # --listen, --share, --ngrok or --server-name
        self.groups_per_turn = 2  # the user's own images wait meanwhile
        self.task = ""
        self._has_turn = False

    @contextmanager
    def turn(self) -> Iterator[None]:
        """See `Host.turn`. While the host's other work goes on, who waits may be stopped."""
        self.task = tasks.create_task_id("d3po")
        tasks.add_task_to_queue(self.task)
        try:
            with acquired(call_queue.queue_lock), self._begun():
                model = teachable_model()
                host.take_off_networks()
                host.to_device(model)
                yield
        finally:
            tasks.pending_tasks.pop(self.task, None)  # it was stopped before its turn
            self.task = ""

    @contextmanager
    def _begun(self) -> Iterator[None]:
        """Let the host show the task as the present one."""
        shared.state.begin(job=self.task)
        tasks.start_task(self.task)
        self._has_turn = True
        try:
            yield
        finally:
            self._has_turn = False
            tasks.finish_task(self.task)
            shared.state.end()
            shared.state.interrupted = shared.state.skipped = False

    def should_yield(self) -> bool:
        """See `Host.should_yield`."""
        return bool(tasks.pending_tasks)

    def check_stop(self, progress: WorkProgress) -> None:
        """See `Host.check_stop`. Interrupt and Skip stop the job, and Interrupt drawing ahead too."""
        if not self._has_turn:  # what the host shows, and what is interrupted there, is its other work
            return
        shown, state = progress.shown(0), shared.state
        state.job_count, state.job_no = 1, 0
        state.sampling_step, state.sampling_steps = shown["done"], max(1, shown["of"])
        state.textinfo = f"D3PO: {LABELS[shown['kind']]}"
        if state.interrupted or state.skipped:
            raise Stopped(rest=bool(state.interrupted))

    @contextmanager
    def training(self, model: ImageModel, settings: TrainSettings | RewardSettings) -> Iterator[None]:
        """See `Host.training`."""
        assert isinstance(model, WebuiModel)
        module, decodes = model.denoiser.module, isinstance(settings, RewardSettings)
        host.to_device(model.model, alone=True, vae=decodes)
        with (
            trainable_tensors([module]),
            plain_kernels(),
            checkpointed(large_blocks(module) if settings.checkpointing else []),
            model.gradients_through_decode(settings.checkpointing) if decodes else nullcontext(),
        ):
            yield

    def lora_saved(self, run: Run, path: Path) -> None:
        """See `Host.lora_saved`: the LoRA gets a card."""
        self.cards.publish(run, path)

    def lora_copies(self, run: Run) -> Mapping[Path, str]:
        """See `Host.lora_copies`: those of its cards."""
        return self.cards.policies(run)

    def previews_drawn(self, run: Run, round: int) -> None:
        """See `Host.previews_drawn`: the card gets an image."""
        self.cards.picture(run, round)
