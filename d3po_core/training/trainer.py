"""One round of teaching: a run's picks become a LoRA.

A generator of reports. The host draws progress, checks for interrupts and may close the generator at any step; what was
learnt is in the run by then, and a killed trainer goes on from its last saved state.

The round is up to three fits of the same LoRA. The first two, on one half of the picks each, predict the other half:
that tells how many epochs help and how far the result can be trusted (evidence.py). The third, on all picks, is kept.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from ..denoiser import Denoiser
from ..lora import LayerWeights, LoraWeights, attach, import_lora
from ..policies import latest_policy
from ..rollout import generator
from ..run import Run
from ..settings import LoraSettings, TrainSettings, check
from .evidence import strength, z_score
from .fit import Fit, Update
from .groups import TrainingGroup, group_rows
from .loading import GroupLoader, Lesson, check_same_model, collect
from .memory import checkpointing, fitting_rows
from .passes import mean_kl
from .references import Reference
from .reports import Progress, Result, StepReport, after
from .state import pack_optimizer, unpack_optimizer, unpack_parameters

SAVE_EVERY_SECONDS = 5.0
"""A killed trainer loses at most this much work."""
DRIFT_GROUPS = 8
"""Groups on which drift is measured at the end of an epoch."""
CHECKABLE = 8
"""Fewer groups than this are not worth halving."""


@dataclasses.dataclass(frozen=True)
class Phase:
    """One fit: groups to train on, and groups that it does not see."""

    name: str
    groups: list[str]
    hidden: list[str]


class Trainer:
    """Teaches one round: a new one, or the one that was interrupted.

    Args:
        run: with picks.
        denoiser: the base model; a LoRA is attached while training and removed without a trace afterwards.
        settings, lora_settings: how to train what. An interrupted round goes on with those that it was begun with.
        attachment: "peft" for diffusers modules, "hooks" for modules that a host owns.

    Raises:
        D3POError: settings out of range, or no usable pair.
    """

    def __init__(
        self,
        run: Run,
        denoiser: Denoiser,
        settings: TrainSettings,
        lora_settings: LoraSettings,
        attachment: str = "peft",
    ) -> None:
        self.run, self.denoiser, self.attachment = run, denoiser, attachment
        self.settings, self.lora_settings = check(settings), check(lora_settings)
        self.round, lesson = self._begin_or_resume()
        self._load = GroupLoader(run, lesson)
        self._lesson = lesson
        self._phases = self._plan(lesson)
        self._progress = Progress()
        self._tensors: dict[str, Tensor] = {}
        self._learnt: LoraWeights = {}

    def steps(self) -> Iterator[StepReport]:
        """Train and report after every update.

        Closing the generator saves the state: `result` gives what was learnt so far, and another Trainer on the same
        run goes on from there.

        Raises:
            D3POError: another base model, a damaged group, out of memory, or another trainer at work on the run.
        """
        with self.run.trainer_lock():
            self._begin = time.monotonic()
            saved = self.run.load_state(self.round)
            if saved:
                self._tensors, info = saved
                self._progress = Progress(**info)
            self._attach()
            try:
                if self._progress.phase == len(self._phases):
                    unpack_parameters(self._tensors, self._lora.parameters())
                with checkpointing(self.denoiser.module, self.settings.checkpointing):
                    while self._progress.phase < len(self._phases):
                        yield from self._fit(self._phases[self._progress.phase])
            finally:
                self._learnt = self._lora.weights()
                self._lora.remove()

    def result(self) -> Result:
        """What was learnt when `steps` ended or was closed, taken back as far as the evidence asks."""
        progress = self._progress
        best = progress.best_epoch() if self._checked else None
        hits = [] if best is None else after(progress.hits, best)
        z = None if best is None else z_score(after(progress.margins, best))
        share = 1.0 if z is None else strength(z)
        finished = progress.phase == len(self._phases)
        shown = hits or progress.held_out_hits
        return Result(
            round=self.round,
            weights=blend(self._initial, self._learnt, share),
            strength=share,
            z=z,
            guessed=sum(shown),
            guessed_of=len(shown),
            reason=progress.reason or ("Every pick was used." if finished else "Stopped before the end."),
        )

    @property
    def trained_on(self) -> list[str]:
        """Ids of the groups that the round learns from."""
        return self._phases[-1].groups

    # -- beginning ---------------------------------------------------------------------------------------------------

    def _begin_or_resume(self) -> tuple[int, Lesson]:
        unfinished = self.run.open_round()
        if unfinished is not None:
            stored = unfinished.settings
            self.settings, self.lora_settings = TrainSettings(**stored["train"]), LoraSettings(**stored["lora"])
            return unfinished.number, Lesson.from_json(stored["lesson"])
        lesson = collect(self.run)
        stored = {
            "train": dataclasses.asdict(self.settings),
            "lora": dataclasses.asdict(self.lora_settings),
            "lesson": lesson.to_json(),
        }
        reference = latest_policy(self.run) if self.settings.reference == "last_round" else "base"
        return self.run.begin_round(stored, reference), lesson

    def _plan(self, lesson: Lesson) -> list[Phase]:
        ids = sorted(lesson.training)
        teach = Phase("teach", ids, sorted(lesson.held_out))
        if not self.settings.cross_check or len(ids) < CHECKABLE:
            return [teach]
        order = torch.randperm(len(ids), generator=generator(self.settings.seed, "halves")).tolist()
        a, b = [ids[i] for i in order[::2]], [ids[i] for i in order[1::2]]
        return [Phase("check A", a, b), Phase("check B", b, a), teach]

    def _attach(self) -> None:
        """The LoRA, going on from last round's, and the policies that it is measured against."""
        last = latest_policy(self.run)
        path = self.run.lora(last)
        previous = import_lora(path, self.denoiser.module) if path else None
        from_last = self.settings.reference == "last_round" and last != "base"
        self._lora = attach(
            self.denoiser.module,
            self.lora_settings,
            kind=self.attachment,
            start=previous,
            reference=previous if from_last else None,
            seed=self.settings.seed,
        )
        self._initial = self._lora.weights()
        try:
            first = self._load(self._phases[-1].groups[0])
            if first.policy == "base":
                with self._lora.off():
                    check_same_model(self.denoiser, first)
            rows = group_rows(first, first.cond, 1.0, self.denoiser.device)
            self._micro_batch = self.settings.micro_batch or fitting_rows(self.denoiser, rows)
        except BaseException:
            self._lora.remove()
            raise
        self._base = Reference("base", self.denoiser, self._lora.off, self._micro_batch)
        self._reference = self._base
        if from_last:
            self._reference = Reference(last, self.denoiser, self._lora.reference, self._micro_batch)

    # -- fitting -----------------------------------------------------------------------------------------------------

    def _fit(self, phase: Phase) -> Iterator[StepReport]:
        progress = self._progress
        fit = self._resumed(phase)
        try:
            while fit.done < fit.total and not progress.reason:
                update = fit.update()
                progress.done = fit.done
                report = self._report(phase, fit, update)
                if time.monotonic() - self._saved > SAVE_EVERY_SECONDS:
                    self._save(fit)
                yield report
            progress.phase, progress.done = progress.phase + 1, 0
        finally:
            self._save(fit)

    def _resumed(self, phase: Phase) -> Fit:
        self._lora.load(self._initial)
        settings = self.settings
        if self._checked:
            settings = dataclasses.replace(settings, epochs=self._progress.best_epoch() + 1)
        fit = Fit(
            self.denoiser,
            self._lora.parameters(),
            {name: len(self._lesson.training[name]) for name in phase.groups},
            self._load,
            self._reference,
            settings,
            self._micro_batch,
        )
        if self._progress.done:
            unpack_optimizer(self._tensors, fit.optimizer, fit.parameters)
            fit.done = self._progress.done
        self._saved = time.monotonic()
        return fit

    def _save(self, fit: Fit) -> None:
        self._tensors = pack_optimizer(fit.optimizer, fit.parameters)
        self.run.save_state(self.round, self._tensors, dataclasses.asdict(self._progress))
        self._saved = time.monotonic()

    def _report(self, phase: Phase, fit: Fit, update: Update) -> StepReport:
        report = StepReport(
            phase=phase.name,
            update=update.number,
            total=update.total,
            epoch=update.epoch,
            training=update.measures,
            seconds=time.monotonic() - self._begin,
        )
        if fit.ends_epoch():
            extra = self._end_of_epoch(phase, fit)
            report = dataclasses.replace(report, **extra)
        self.run.append_metrics({"round": self.round, **dataclasses.asdict(report)})
        return report

    def _end_of_epoch(self, phase: Phase, fit: Fit) -> dict[str, Any]:
        """Measure the groups that this phase does not see, and draw the consequences."""
        progress = self._progress
        hidden = fit.measure([self._load(name) for name in phase.hidden]) if phase.hidden else None
        if phase.name != "teach":
            assert hidden is not None
            progress.note_check(progress.phase, hidden)
            return {"hidden": hidden}
        groups = [self._load(name) for name in (phase.hidden or phase.groups)[:DRIFT_GROUPS]]
        kl_base = self._kl(groups, lambda group: self._base.predictions(group, guided=True))
        if hidden:
            progress.held_out.append(hidden.loss)
            progress.held_out_hits = list(hidden.hits)
        progress.reason = self._reason_to_stop(kl_base)
        return {"hidden": hidden, "kl_sampler": self._kl(groups, lambda group: group.guided), "kl_base": kl_base}

    def _kl(self, groups: list[TrainingGroup], guided: Callable[[TrainingGroup], Tensor]) -> float:
        return mean_kl(self.denoiser, groups, guided, self._micro_batch)

    def _reason_to_stop(self, kl_base: float) -> str:
        settings, losses = self.settings, self._progress.held_out
        if settings.drift_limit and kl_base > settings.drift_limit:
            return f"Stopped: drift from the base reached {kl_base:.1f} nats, over the limit {settings.drift_limit:g}."
        best = losses.index(min(losses)) if losses else 0
        if not settings.cross_check and settings.patience and len(losses) - 1 - best >= settings.patience:
            return f"Stopped: the held-out picks were guessed best after epoch {best + 1}."
        return ""

    @property
    def _checked(self) -> bool:
        """Whether both checks are done."""
        return len(self._phases) == 3 and self._progress.phase >= 2


def blend(start: LoraWeights, end: LoraWeights, share: float) -> LoraWeights:
    """The way from one LoRA to another of the same layers, gone by `share`."""

    def between(a: LayerWeights, b: LayerWeights) -> LayerWeights:
        return LayerWeights(torch.lerp(a.down, b.down, share), torch.lerp(a.up, b.up, share), b.alpha)

    return {path: between(start[path], weights) for path, weights in end.items()}
