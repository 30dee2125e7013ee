"""Train a round on the job queue: in turns with the host's other work, and with drawing while pictures run out."""

from __future__ import annotations

import time

from d3po_core.app.runs import sample_settings
from d3po_core.app.training import Next, PicksRequest, RewardRequest, settle_round
from d3po_core.run import Run
from d3po_core.training.reports import Report
from d3po_core.training.round_trainer import SavedRound

from .drawing import AHEAD, Drawing
from .host import Host
from .jobs import JobQueue

TURN_SECONDS = 30.0
"""How long a turn of training is at least: to resume a round costs some seconds."""


def train_in_turns(
    host: Host, queue: JobQueue, drawing: Drawing, run: Run, request: PicksRequest | RewardRequest, finish: bool
) -> bool:
    """Train a round and draw its previews, as part of the present job; raise `Stopped` if a person stopped it.

    Returns:
        Whether the round is done; else the host's other work has its turn first, and the run keeps the state.
    """
    model, begun = host.models.of(run), time.monotonic()

    def after_update(report: Report) -> Next:
        if queue.progress.kind != "teaching":
            queue.show(run, "teaching", report.total, queue.progress.text)
        queue.at(report.update, report.total)
        turn_is_over = time.monotonic() - begun > TURN_SECONDS and host.should_yield()
        return Next.FINISH if finish else Next.PAUSE if turn_is_over or drawing.is_short(run) else Next.CONTINUE

    def train() -> SavedRound | None:
        queue.show(run, request.FIRST_WORK, 0)
        prepared = request.prepared(run, model)
        with host.training(model, prepared.settings):
            return prepared.train(run, model, host.attachment, after_update, queue.at, say=queue.say)

    while (saved := train()) is None:
        if host.should_yield():
            return False
        drawing.draw(run, model, AHEAD // 2)
        begun = time.monotonic()
    try:
        if saved.result.changed:  # else before and after are the same
            queue.show(run, "blind", 0)
            saved = settle_round(run, model, saved, sample_settings(run), host.attachment, queue.at)
    finally:  # also when a person stops the drawing
        host.lora_saved(run, run.rounds.lora(run.rounds.current_policy()) or saved.path)
    if saved.result.changed:
        host.previews_drawn(run, saved.result.round)
    return True
