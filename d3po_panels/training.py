"""Train a round on the job queue: in turns with the host's other work, and with drawing while pictures run out."""

from __future__ import annotations

import time
from collections.abc import Callable

from d3po_core.app.runs import lora_settings, prompts_to_draw, sample_settings, train_settings
from d3po_core.app.sampling import add_prompts
from d3po_core.app.training import Next, RewardRequest, train_round
from d3po_core.diffusion.image_model import ImageModel
from d3po_core.evaluation.images import draw_previews
from d3po_core.run import Run
from d3po_core.training.reports import Report
from d3po_core.training.reward_trainer import RewardTrainer
from d3po_core.training.round_trainer import SavedRound
from d3po_core.training.trainer import Trainer

from .drawing import AHEAD, Drawing
from .host import Host
from .jobs import JobQueue

TURN_SECONDS = 30.0
"""How long a turn of training is at least: to resume a round costs some seconds."""


class Training:
    """Trains rounds as jobs; a round that is put aside resumes exactly where it was.

    Args:
        host: whose models are trained.
        queue: of the jobs.
        drawing: draws while the person runs out of pictures.
    """

    def __init__(self, host: Host, queue: JobQueue, drawing: Drawing) -> None:
        self._host, self._queue, self._drawing = host, queue, drawing

    def train(self, run: Run, model: ImageModel, request: RewardRequest | None, finish: bool) -> bool:
        """Train a round and draw its previews, as part of the present job.

        Args:
            run: the taste.
            model: its model.
            request: how, by a reward; None to train by picks, as the run says.
            finish: end after one more update.

        Returns:
            Whether the round is done; else the host's other work has its turn first, and the run keeps the state.

        Raises:
            D3POError: see `Trainer.open` and `RewardTrainer.open`.
        """
        while (saved := self._train(run, model, request, finish)) is None:
            if self._host.should_yield():
                return False
            self._drawing.draw(run, model, AHEAD // 2)
        self._host.lora_saved(run, saved.path)
        if saved.result.changed:  # else before and after are the same
            self._draw_previews(run, model, saved)
        return True

    def _train(self, run: Run, model: ImageModel, request: RewardRequest | None, finish: bool) -> SavedRound | None:
        attachment, after_update = self._host.attachment, self._after_update(run, finish)
        if request is None:
            self._queue.show(run, "checking", 0)
            settings = train_settings(run)
            with self._host.training(model, settings):
                trainer = Trainer.open(run, model.denoiser, settings, lora_settings(run), attachment)
                return train_round(trainer, after_update)
        self._queue.show(run, "loading", 0)
        sample = sample_settings(run)  # prompts are encoded before the host clears memory for training
        prompts = add_prompts(run, model, prompts_to_draw(run), sample.negative) if request.reward else []
        with self._host.training(model, request.settings):
            how = (request.settings, lora_settings(run), sample, attachment, prompts)
            by_reward = (
                RewardTrainer.open(run, model, request.reward, *how)
                if request.reward
                else RewardTrainer.open_stopped(run, model, request.settings, attachment)
            )
            return train_round(by_reward, after_update)

    def _after_update(self, run: Run, finish: bool) -> Callable[[Report], Next]:
        """Return what `train_round` asks: how a turn goes on. It raises `Stopped` if a person stopped it."""
        begun = time.monotonic()

        def after_update(report: Report) -> Next:
            if report.phase == "teach" and self._queue.progress.kind != "teaching":
                self._queue.show(run, "teaching", report.total)
            self._queue.progress.at(report.update, report.total)
            self._queue.check()
            if finish:
                return Next.FINISH
            turn_is_over = time.monotonic() - begun > TURN_SECONDS and self._host.should_yield()
            return Next.PAUSE if turn_is_over or self._drawing.is_short(run) else Next.CONTINUE

        return after_update

    def _draw_previews(self, run: Run, model: ImageModel, saved: SavedRound) -> None:
        progress, result = self._queue.show(run, "blind", 0), saved.result
        for done, total in draw_previews(
            run, model, result.round, result.weights, sample_settings(run), self._host.attachment
        ):
            progress.at(done, total)
            self._queue.check()
        self._host.previews_drawn(run, result.round)
