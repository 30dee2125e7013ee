"""What the gallery can do inside ComfyUI. Drawing and teaching are the queue's business, where the page puts them."""

from __future__ import annotations

from typing import Any

from ..d3po_core.app.scale_lora import scale_lora
from ..d3po_core.errors import D3POError
from ..d3po_core.gallery import Actions
from ..d3po_core.run import Run
from . import loras, process, teaching, trainer, working


class HostActions(Actions):
    """See `Actions`."""

    def method(self, run: Run) -> str | None:
        return trainer.methods.get(run.run_id)

    def can(self, run: Run) -> list[str]:
        now = working.shown(run)
        if now and now["kind"] == "drawing" and not teaching.waiting(run, self.method(run)):
            return ["draw", "stop", "teach"]  # the queue does it next
        if now:
            return ["draw", "stop"]
        taken_back = ["stop"] if run.run_id in trainer.asked else []
        if run.open_round() is not None:
            return ["draw", "teach", *taken_back]
        return ["draw", "decide", *([] if teaching.waiting(run, self.method(run)) else ["teach"]), *taken_back]

    def work(self, run: Run) -> dict[str, Any] | None:
        return working.shown(run)

    def draw(self, run: Run, groups: int) -> None:
        """The page queues the graph's samplers."""

    def teach(self, run: Run) -> None:
        """The page queues the graph's trainers, which see that they were asked."""
        trainer.asked.add(run.run_id)

    def stop(self, run: Run) -> None:
        """Take Teach back while it waits, as the page does where it finds no trainer; else stop what is being done."""
        if run.run_id in trainer.asked:
            trainer.asked.discard(run.run_id)
        elif working.shown(run):
            process.interrupt()

    def decide(self, run: Run, round: int, decision: str, strength: float) -> None:
        if decision == "gentler":
            loras.publish(run, scale_lora(run, round, strength))
        elif decision == "back":
            made = {0: "base", **{found.number: found.lora_hash for found in run.rounds() if found.lora_hash}}
            if round not in made:
                raise D3POError(f"There is no finished round {round} to go back to.")
            run.go_back(made[round])
