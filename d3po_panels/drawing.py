"""Drawing: what was asked for, and ahead for whoever looks at a taste."""

from __future__ import annotations

import dataclasses
import time
from contextlib import closing

from d3po_core.app.runs import next_round, prompts_to_draw, sample_settings
from d3po_core.app.sampling import sample_groups
from d3po_core.app.tournament import waiting
from d3po_core.diffusion.image_model import ImageModel
from d3po_core.errors import D3POError
from d3po_core.lora.attachment import applied
from d3po_core.run import Run

from .host import Host
from .jobs import Job, JobQueue

AHEAD = 12
"""Groups that are ready for the person, as far as the machine keeps up."""
LOOKED_SECONDS = 120.0
"""How long drawing ahead goes on after a page was last heard of."""


class Drawing:
    """Draws groups as jobs."""

    def __init__(self, host: Host, queue: JobQueue) -> None:
        self._host, self._queue = host, queue
        self._looked: tuple[Run, float] | None = None
        self.seconds_per_image: float | None = None
        """As it was last time; None before anything was drawn."""

    def seen(self, run: Run) -> None:
        """Take note that somebody looks at a taste."""
        self._looked = (run, time.monotonic())
        self._queue.wake()

    def ask(self, run: Run, groups: int) -> None:
        """Draw groups when it is their turn."""
        self._queue.ask(self._queue.job(run, lambda model: self._draw_in_turns(run, model, groups)))

    def next_job(self) -> Job | None:
        """Return a job that draws ahead for whoever looks at a taste; None if nothing has to be drawn."""
        run = self._looked[0] if self._looked else None
        try:
            return self._draw_ahead(run) if run is not None else None
        except D3POError:  # the taste was deleted
            self._looked = None
            return None

    def is_short(self, run: Run) -> bool:
        """Return whether somebody looks at a taste, has judged all its groups, and more can be drawn."""
        return self._is_looked_at(run) and waiting(run) == 0 and bool(prompts_to_draw(run))

    def draw(self, run: Run, model: ImageModel, groups: int) -> int:
        """Draw groups now, as part of the present job, until the host's other work waits.

        Args:
            run: the taste.
            model: its model.
            groups: how many; at least one is drawn.

        Returns:
            How many were drawn.

        Raises:
            D3POError: the taste has no prompts, or the disk is full.
        """
        done = 0
        progress = self._queue.show(run, "drawing", groups)
        settings = dataclasses.replace(sample_settings(run), groups=max(1, groups))
        policy, prompts = run.rounds.current_policy(), prompts_to_draw(run)
        if not prompts:
            raise D3POError("Nobody has asked for pictures yet.", "Begin a taste with prompts under New taste.")
        sampled = sample_groups(run, model, settings, prompts, policy, next_round(run))
        with applied(model.denoiser, run.rounds.lora(policy), self._host.attachment), closing(sampled):
            for group in sampled:
                done = group.done
                progress.at(done)
                self.seconds_per_image = progress.seconds_each() / settings.candidates
                self._queue.check()
                if self._host.should_yield():
                    break
        return done

    def _draw_in_turns(self, run: Run, model: ImageModel, groups: int) -> None:
        left = groups - self.draw(run, model, groups)
        if left > 0:
            self._queue.add(self._queue.job(run, lambda model: self._draw_in_turns(run, model, left)), first=True)

    def _draw_ahead(self, run: Run) -> Job | None:
        if not self._is_looked_at(run) or self._queue.is_resting(run) or not prompts_to_draw(run):
            return None
        if waiting(run) > AHEAD // 2:  # not one by one: every start costs, and a batch is quicker
            return None

        def draw(model: ImageModel) -> None:
            self.draw(run, model, min(self._host.groups_per_turn, AHEAD - waiting(run)))

        return self._queue.job(run, draw)

    def _is_looked_at(self, run: Run) -> bool:
        looked = self._looked
        return looked is not None and looked[0].run_id == run.run_id and time.monotonic() - looked[1] < LOOKED_SECONDS
