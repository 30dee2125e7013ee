"""Drawing: what is asked for, and ahead for whoever looks at a taste."""

from __future__ import annotations

import dataclasses
import time
from contextlib import closing

from d3po_core.app.sampling import sample_groups
from d3po_core.diffusion.image_model import ImageModel
from d3po_core.errors import D3POError
from d3po_core.lora.attach import applied
from d3po_core.run import Run

from .jobs import Job, Jobs, Source
from .run_settings import sample_settings, texts

AHEAD = 12
"""Groups that lie ready for the person, as far as the machine keeps up."""
LOOKED_SECONDS = 120.0
"""So long after a page was last heard of, drawing ahead goes on."""


class Drawing(Jobs):
    """See `Jobs`."""

    attachment = "peft"
    """How a LoRA is put on the models, see `lora.attach`."""
    in_a_turn = AHEAD
    """Groups that are drawn ahead before others may have their turn."""

    def __init__(self, models: Source) -> None:
        super().__init__(models)
        self._looked: tuple[Run, float] | None = None
        self.seconds_per_image: float | None = None

    def seen(self, run: Run) -> None:
        self._looked = (run, time.monotonic())
        self._wake.set()

    def draw(self, run: Run, groups: int) -> None:
        self._ask(run, lambda run, model: self._draw_in_turns(run, model, groups))

    def _ahead(self) -> Job | None:
        try:
            return self._for_who_looks()
        except D3POError:  # the taste that was looked at is gone
            self._looked = None
            return None

    def _for_who_looks(self) -> Job | None:
        """Drawing, unless they stopped it or it failed."""
        run = self._looked and self._looked[0]
        if run is None or not self._looked_at(run):
            return None
        if run.run_id in self._resting or run.run_id in self._problems or not texts(run):
            return None
        if run.picks.counts("").waiting > AHEAD // 2:  # not one by one: every start costs, and a batch is quicker
            return None
        return self._job(
            run, lambda run, model: self._draw(run, model, min(self.in_a_turn, AHEAD - run.picks.counts("").waiting))
        )

    def _looked_at(self, run: Run) -> bool:
        looked = self._looked
        return looked is not None and looked[0].run_id == run.run_id and time.monotonic() - looked[1] < LOOKED_SECONDS

    def _draw_in_turns(self, run: Run, model: ImageModel, groups: int) -> None:
        left = groups - self._draw(run, model, groups)
        if left > 0:
            self._jobs.appendleft(self._job(run, lambda run, model: self._draw_in_turns(run, model, left)))

    def _draw(self, run: Run, model: ImageModel, groups: int) -> int:
        """Draw groups until others wait; how many."""
        done = 0
        progress = self._show(run, "drawing", groups)
        settings = dataclasses.replace(sample_settings(run), groups=max(1, groups))
        policy, prompts = run.rounds.current_policy(), texts(run)
        if not prompts:
            raise D3POError("Nobody has asked for pictures yet.", "Begin a taste with prompts under New taste.")
        number = 1 + sum(round.finished is not None for round in run.rounds.all())
        drawn = sample_groups(run, model, settings, prompts, policy, number)
        with applied(model.denoiser, run.rounds.lora(policy), self.attachment), closing(drawn):
            for report in drawn:
                done = report.done
                progress.at(done)
                self.seconds_per_image = progress.seconds_each() / settings.candidates
                self._check()
                if self._others_wait():
                    break
        return done
