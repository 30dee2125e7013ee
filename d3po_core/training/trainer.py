"""One round of teaching by picks: they become a LoRA.

A generator of reports. The host draws progress, checks for interrupts and may close the generator at any step; what was
learnt is in the run by then, and a killed trainer goes on from its last saved state.

The round is up to three fits of the same LoRA. The first two, on one half of the picks each, predict the other half:
that tells how many epochs help and how far the result can be trusted (evidence.py). The third, on all picks, is kept.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator, Iterator
from typing import Any, cast

import torch
from torch import Tensor

from ..diffusion.denoiser import Denoiser
from ..diffusion.rollout import generator
from ..lora.weights import blend, reinitialised
from ..rewards import Reward
from ..run import Run
from ..settings import LoraSettings, TrainSettings, resolved, validate
from .evidence import epochs_to_teach, strength, z_score
from .methods import METHODS
from .optimize import unpack_optimizer, unpack_parameters
from .passes import BatchLimits, MeanKL, checkpointing, fit_batch_limits, mean_kl
from .preference_optimizer import PreferenceOptimizer, Update
from .preferences import (
    GroupLoader,
    PreferenceData,
    UnusableGroup,
    check_same_model,
    collect_preferences,
    of_each_kind,
    score_preferences,
)
from .references import Reference
from .reports import Result, RoundState, StepReport, by_epoch
from .round_trainer import RoundTrainer
from .rows import TrainingGroup, group_rows, noise_images, noise_levels

DRIFT_GROUPS = 8
"""Groups on which drift is measured at the end of an epoch."""
FREE_TO_CHANGE = ("micro_batch", "checkpointing", "reevaluate_reference")
"""Settings that an interrupted round takes anew: they change memory, or were changed because the model has."""
CHECKABLE = 8
"""Fewer groups than this are not worth halving."""


@dataclasses.dataclass(frozen=True)
class Phase:
    """One fit: groups to train on, and groups that it does not see."""

    name: str
    groups: list[str]
    hidden: list[str]


class Trainer(RoundTrainer[StepReport]):
    """Teaches one round by picks, see `Course`.

    Args:
        run: with picks.
        settings: how. An interrupted round goes on with those that it was begun with.
        reward: judges all pictures in place of picks.

    Raises:
        D3POError: settings out of range, or no usable pair.
    """

    KIND = "train"

    def __init__(
        self,
        run: Run,
        denoiser: Denoiser,
        settings: TrainSettings,
        lora_settings: LoraSettings,
        attachment: str = "peft",
        reward: Reward | None = None,
    ) -> None:
        super().__init__(run, denoiser, lora_settings, attachment)
        self.reward, self._collected = reward, cast("PreferenceData | None", None)
        self.settings = resolved(validate(settings))
        self.resumed = self._unfinished() is not None
        if not self.resumed:
            self._collect()  # too few picks are told before a model is touched

    def steps(self) -> Generator[StepReport, None, None]:
        """See `Course.steps`; a group that cannot be read is left out the next time."""
        try:
            yield from super().steps()
        except UnusableGroup as error:
            self._leave_out(error.group_id)
            raise

    def result(self) -> Result:
        """What was learnt when `steps` ended or was closed, taken back as far as the evidence asks."""
        progress = self._progress
        last = self._epochs() - 1
        hits = by_epoch(progress.hits)[last] if self._checked else []
        z, share = self._z(), self._share()
        shown = hits or progress.held_out_hits
        return Result(
            round=self.round,
            weights=blend(self._initial, self._learnt, share),
            strength=share,
            z=z,
            guessed=sum(shown),
            guessed_of=len(shown),
            curve=[sum(epoch) / len(epoch) for epoch in by_epoch(progress.hits)] if self._checked else [],
            sweep=progress.sweep,
            figures=progress.figures,
            reason=" ".join([self._reason(), *doubts(share)]),
        )

    def _z(self) -> float | None:
        """How surely hidden picks were foretold; None without a check."""
        return z_score(by_epoch(self._progress.margins)[self._epochs() - 1]) if self._checked else None

    def _share(self) -> float:
        """Of what was learnt, the part that the evidence allows."""
        z = self._z()
        return 1.0 if z is None else strength(z)

    @property
    def trained_on(self) -> list[str]:
        """Ids of the groups that the LoRA has learnt from."""
        return self._phases[min(self._progress.phase, len(self._phases) - 1)].groups

    def _reason(self) -> str:
        if self._progress.reason:
            return self._progress.reason
        if self._progress.phase < len(self._phases) - 1:
            return "Stopped while checking: half of the picks were used, and nothing tells yet how well."
        if self._progress.phase < len(self._phases):
            return "Stopped before the end."
        if self._epochs() < self.settings.epochs:
            return f"Stopped after epoch {self._epochs()}: with more, hidden picks were guessed worse."
        return "Every pick was used."

    # -- beginning ---------------------------------------------------------------------------------------------------

    def _begin_or_resume(self) -> None:
        unfinished = self._unfinished()
        if unfinished is None:
            self._lesson = self._collect()
            self._start = self.run.rounds.current_policy()
            by_picks = self.reward is None
            self.round = self.run.rounds.begin(self._stored(), self._reference_policy(), anew=True, by_picks=by_picks)
        else:
            stored = unfinished.settings
            as_now = {name: getattr(self.settings, name) for name in FREE_TO_CHANGE}
            self.settings = resolved(TrainSettings(**{**stored["train"], **as_now}))
            self.lora_settings = LoraSettings(**stored["lora"])
            self.round, self._lesson = unfinished.number, PreferenceData.from_json(stored["lesson"])
            # Not the present one: somebody may have gone back to another round meanwhile.
            self._start = stored.get("start") or self.run.rounds.current_policy()
        self._note(train=dataclasses.asdict(self.settings))
        self._load = GroupLoader(self.run, self._lesson)
        self._phases = self._plan(self._lesson)

    def _collect(self) -> PreferenceData:
        if self.reward is None:
            return collect_preferences(self.run, self.settings.method)
        if self._collected is None:  # once: a scorer may take minutes
            self._collected = score_preferences(self.run, self.reward, self.settings.method)
        return self._collected

    def _stored(self) -> dict[str, Any]:
        """What an interrupted round needs to know of itself."""
        return {
            "train": dataclasses.asdict(self.settings),
            "lora": dataclasses.asdict(self.lora_settings),
            "lesson": self._lesson.to_json(),
            "start": self._start,
        }

    def _reference_policy(self) -> str:
        return self._start if self._keeps_previous() else "base"

    def _leave_out(self, group_id: str) -> None:
        """Go on without a group that cannot be read: the round begins anew, with the other picks."""
        self._lesson = self._lesson.without(group_id)
        if not self._lesson.training:
            return
        self.run.rounds.begin(self._stored(), self._reference_policy())
        self.run.rounds.save_state(self.round, {}, dataclasses.asdict(RoundState()))

    def _plan(self, lesson: PreferenceData) -> list[Phase]:
        ids = sorted(lesson.training)
        teach = Phase("teach", ids, sorted(lesson.held_out))
        if not self.settings.cross_check or sum(map(bool, lesson.training.values())) < CHECKABLE:
            return [teach]
        order = torch.randperm(len(ids), generator=generator(self.settings.seed, "halves")).tolist()
        a, b = [ids[i] for i in order[::2]], [ids[i] for i in order[1::2]]
        return [Phase("check A", a, b), Phase("check B", b, a), teach]

    def _attach(self) -> None:
        """The LoRA, going on from last round's; the base model must be the one that sampled."""
        super()._attach()
        self._fresh = reinitialised(self._initial, self.settings.seed) if self._previous else self._initial
        try:
            if not self.settings.reevaluate_reference:
                self._check_samplers()
        except BaseException:
            self._lora.remove()
            raise

    def _keeps_previous(self) -> bool:
        return self.settings.reference == "last_round" or METHODS[self.settings.method].reference == "last round"

    def _seed(self) -> int:
        return self.settings.seed

    def _check_samplers(self) -> None:
        """Whether the model is the one that sampled: a step of every kind of group, each by the policy that drew it."""
        for group_id in of_each_kind(self.run, [*self._lesson.training, *self._lesson.held_out]):
            policy = self.run.groups.get(group_id).policy
            if policy == "base":
                with self._lora.off():
                    check_same_model(self.denoiser, self._load(group_id))
            elif policy == self._start:  # nothing has been learnt since
                check_same_model(self.denoiser, self._load(group_id))

    def _room_for(self) -> BatchLimits:
        group, settings = self._load(self._phases[-1].groups[0]), self.settings
        if METHODS[settings.method].rows == "images":
            levels = noise_levels(self.denoiser, settings.lowest_sigma)
            rows = noise_images(group, levels, 1, generator(settings.seed), self.denoiser)
        else:
            guided = settings.guided_loss
            rows = group_rows(group, group.guided if guided else group.cond, guided, self.denoiser.device)
        return fit_batch_limits(self.denoiser, rows, self.settings.micro_batch)

    def _references(self) -> tuple[Reference, Reference]:
        """The chosen reference, and the base."""
        together, anew = self._room.together, self.settings.reevaluate_reference
        base = Reference("base", self.denoiser, self._lora.off, together, anew)
        if self._reference_policy() == "base":
            return base, base
        return Reference(self._start, self.denoiser, self._lora.reference, together, anew), base

    def _teach(self) -> Generator[StepReport, None, None]:
        with checkpointing(self.denoiser.module, self.settings.checkpointing):
            self._room = self._room_for()
            self._reference, self._base = self._references()
            if self._progress.phase == len(self._phases):
                unpack_parameters(self._tensors, self._lora.parameters())
            while self._progress.phase < len(self._phases):
                yield from self._fit(self._phases[self._progress.phase])
            self._progress.sweep = self._swept(
                blend(self._initial, self._lora.weights(), self._share()),
                [self._load(name) for name in self._watched()],
                lambda group: self._base.predictions(group, guided=True),
                self._room.together,
            )

    def _watched(self) -> list[str]:
        """Groups on which drift is measured: held-out ones, where there are any; not imported ones, without a step."""
        teach = self._phases[-1]
        found = [name for name in teach.hidden or teach.groups if self.run.groups.get(name).recorded]
        return found[:DRIFT_GROUPS]

    # -- fitting -----------------------------------------------------------------------------------------------------

    def _fit(self, phase: Phase) -> Iterator[StepReport]:
        progress = self._progress
        fit = self._resumed(phase)
        try:
            while fit.done < fit.total and not progress.reason:
                if fit.ends_epoch(fit.done + 1):  # after that update come measures, in which a person may stop
                    self._save(fit.optimizer.adamw, fit.parameters)
                report = self._report(phase, fit, fit.update())
                progress.done = fit.done  # only now: a state between update and measures could not be gone on from
                self._save_now_and_then(fit.optimizer.adamw, fit.parameters)
                yield report
            if phase.name == "teach" and progress.reason and self._best:
                unpack_parameters(self._best, fit.parameters)
                progress.figures, progress.held_out_hits = progress.best
            progress.phase, progress.done, fit.done = progress.phase + 1, 0, 0
        finally:
            if fit.done == progress.done:
                self._save(fit.optimizer.adamw, fit.parameters)

    def _resumed(self, phase: Phase) -> PreferenceOptimizer:
        """The phase's fit, where it was left. A check knows nothing of earlier rounds, which saw the picks it hides."""
        checking = phase.name != "teach"
        self._lora.load(self._fresh if checking else self._initial)
        fit = PreferenceOptimizer(
            self.denoiser,
            self._lora.parameters(),
            {name: max(1, len(self._lesson.training[name])) for name in phase.groups},
            self._load,
            self._base if checking else self._reference,
            dataclasses.replace(self.settings, epochs=self._epochs()),
            self._room,
            self._base,
        )
        if self._progress.done:
            unpack_optimizer(self._tensors, fit.optimizer.adamw, fit.parameters)
            fit.done = self._progress.done
        return fit

    def _report(self, phase: Phase, fit: PreferenceOptimizer, update: Update) -> StepReport:
        extra = self._end_of_epoch(phase, fit) if fit.ends_epoch(fit.done) else {}
        report = StepReport(
            phase=phase.name,
            update=update.number,
            total=update.total,
            epoch=update.epoch,
            training=update.measures,
            **extra,
        )
        return self._tell(report)

    def _end_of_epoch(self, phase: Phase, fit: PreferenceOptimizer) -> dict[str, Any]:
        """Measure the groups that this phase does not see, and draw the consequences."""
        progress = self._progress
        hidden = fit.measure(phase.hidden) if phase.hidden else None
        if phase.name != "teach":
            assert hidden is not None
            progress.note_check(progress.phase, hidden)
            return {"hidden": hidden}
        groups, drift = self._watched(), {}
        if groups:
            base = self._kl(groups, lambda group: self._base.predictions(group, guided=True))
            sampler = self._kl(groups, lambda group: group.guided)
            drift = {"kl_sampler": sampler.per_image, "kl_base": base.per_image}
            self._watch_drift(base.per_element, self.settings.drift_limit)
        if hidden:
            progress.held_out.append(hidden.loss)
            progress.held_out_hits = list(hidden.hits)
        seen = hidden or fit.measure(phase.groups[:DRIFT_GROUPS])
        progress.figures = {**{name: getattr(seen, name) for name in ("loss", "margin", "clip_fraction")}, **drift}
        self._stop_or_go_on(fit)
        return {"hidden": hidden, **drift}

    def _kl(self, groups: list[str], guided: Callable[[TrainingGroup], Tensor]) -> MeanKL:
        return mean_kl(self.denoiser, [self._load(name) for name in groups], guided, self._room.together)

    def _stop_or_go_on(self, fit: PreferenceOptimizer) -> None:
        """Where no check has set the epochs, stop when held-out picks are guessed worse."""
        settings, losses = self.settings, self._progress.held_out
        if self._checked or not settings.patience or not losses:
            return
        best = losses.index(min(losses))
        if best == len(losses) - 1:
            self._best = {f"{i}.parameter": p.detach().clone() for i, p in enumerate(fit.parameters)}
            self._progress.best = (self._progress.figures, self._progress.held_out_hits)
        elif len(losses) - 1 - best >= settings.patience:
            self._progress.reason = f"Stopped: held-out picks were guessed best after epoch {best + 1}, which is kept."

    def _epochs(self) -> int:
        """Epochs of the present phase; those of the last one are decided by the checks."""
        return epochs_to_teach(by_epoch(self._progress.margins)) if self._checked else self.settings.epochs

    @property
    def _checked(self) -> bool:
        """Whether both checks are done."""
        return len(self._phases) == 3 and self._progress.phase >= 2


def doubts(share: float) -> list[str]:
    """What a person should know where the evidence did not allow all of what was learnt."""
    if share == 0:
        return ["Hidden picks were not guessed better than by chance, so the model was left as it was."]
    return [f"The evidence is thin, so {share:.0%} of what was learnt was kept."] if share < 1 else []
