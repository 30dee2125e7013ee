"""What the gallery can do inside ComfyUI: ask for teaching. Drawing is the queue's business."""

from __future__ import annotations

from ..d3po_core.gallery import Actions
from ..d3po_core.run import Run
from . import trainer


class HostActions(Actions):
    """See `Actions`."""

    def can(self, run: Run) -> list[str]:
        return [] if trainer.waiting(run) and run.open_round() is None else ["teach"]

    def teach(self, run: Run) -> None:
        trainer.asked.add(run.run_id)
