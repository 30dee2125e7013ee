"""One round that learns from picks: they become a LoRA.

The host draws progress, checks for interrupts and may close the generator of reports at any step; what was learnt is in
the run by then, and a killed trainer goes on from its last saved state.

The round trains the same LoRA up to three times. The first two times, on one half of the picks each, it predicts the
other half: that shows how many epochs help and how far the result can be trusted (evidence.py). What it learns the
third time, from all picks, is kept.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator, Iterator

from torch import Tensor

from ..diffusion.denoiser import Denoiser
from ..diffusion.rollout import generator
from ..errors import D3POError
from ..lora.weights import blend, reinitialised
from ..rewards import Reward
from ..run import Run
from ..settings import FILLED, FilledTrainSettings, LoraSettings, TrainSettings, fill_in, from_stored, validate
from .evidence import Phase, doubts, epochs_to_teach, plan_phases, strength, z_score
from .methods import METHODS
from .passes import BatchLimits, MeanKL, checkpointing, fit_batch_limits, mean_kl, unpack_optimizer, unpack_parameters
from .preference_optimizer import PreferenceOptimizer
from .preferences import (
    GroupLoader,
    PreferenceData,
    UnusableGroup,
    check_same_model,
    collect_preferences,
    of_each_kind,
    score_preferences,
)
from .reports import RoundResult, RoundState, StepReport, Update, by_epoch
from .round_trainer import OpenRound, RoundPlan, RoundTrainer, open_round, opening, stopped_round
from .rows import Reference, Rows, group_rows, noise_images, noise_levels

DRIFT_GROUPS = 8
"""Groups on which drift is measured at the end of an epoch."""
FREE_TO_CHANGE = ("micro_batch", "checkpointing", "reevaluate_reference")
"""Settings that an interrupted round takes anew: they change memory, or were changed because the model has."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainPlan(RoundPlan):
    """The plan of a round that learns from picks.

    Attributes:
        data: what it learns from, fixed when the round begins.
    """

    KIND = "train"
    settings: FilledTrainSettings
    data: PreferenceData

    @property
    def keeps_previous(self) -> bool:
        """Return whether last round's LoRA is the reference."""
        return self.settings.reference == "last_round" or METHODS[self.settings.method].reference == "last round"

    @property
    def reference(self) -> str:
        """Return the id of the reference policy."""
        return self.start if self.keeps_previous else "base"

    def to_json(self) -> dict[str, object]:
        """Return what a run keeps of the plan."""
        settings = {**dataclasses.asdict(self.settings), FILLED: True}
        return {**super().to_json(), self.KIND: settings, "lesson": self.data.to_json()}


class Trainer(RoundTrainer):
    """A round that learns from picks; see `Trainer.open`."""

    def __init__(self, run: Run, denoiser: Denoiser, plan: TrainPlan, opened: OpenRound) -> None:
        super().__init__(run, denoiser, plan, opened)
        self.settings, self.data, self._plan = plan.settings, plan.data, plan
        self._load = GroupLoader(run, plan.data)
        self._phases = plan_phases(plan.data, plan.settings)
        self._fresh = reinitialised(self._initial, plan.settings.seed) if opened.previous else self._initial
        if not plan.settings.reevaluate_reference:
            self._check_samplers()
        with checkpointing(denoiser.module, plan.settings.checkpointing):
            self._limits = fit_batch_limits(denoiser, self._sample_rows(), plan.settings.micro_batch)
        self._reference, self._base = self._references(self._limits)

    @classmethod
    def open(
        cls,
        run: Run,
        denoiser: Denoiser,
        settings: TrainSettings,
        lora_settings: LoraSettings,
        attachment: str = "peft",
        reward: Reward | None = None,
    ) -> Trainer:
        """Begin a round, or take up the one that was interrupted.

        Args:
            run: with picks.
            denoiser: the base model; a LoRA is attached while the trainer is open and taken off without a trace.
            settings, lora_settings: how. An interrupted round goes on with those that it was begun with.
            attachment: "peft" for diffusers modules, "hooks" for modules that a host owns.
            reward: scores all images in place of picks.

        Raises:
            D3POError: settings out of range, nothing to learn from, another base model, a damaged group (which is left
                out the next time), or another trainer at work on the run.
        """
        validate(settings)
        validate(lora_settings)
        with opening(run) as exit:
            number, plan, resumed = _begin_or_resume(run, settings, lora_settings, reward)
            opened = open_round(run, denoiser, number, plan, resumed=resumed, attachment=attachment, exit=exit)
            try:
                return cls(run, denoiser, plan, opened)
            except UnusableGroup as error:
                _leave_out(run, number, plan, error)
                raise

    def steps(self) -> Generator[StepReport, None, None]:
        """Train and report after every update; see `RoundTrainer.steps`. A group that cannot be read is left out the
        next time."""
        try:
            with checkpointing(self.denoiser.module, self.settings.checkpointing):
                yield from self._train()
        except UnusableGroup as error:
            _leave_out(self.run, self.round, self._plan, error)
            raise

    def result(self) -> RoundResult:
        """Return what was learnt so far, taken back as far as the evidence asks."""
        state, share = self.state, self._share()
        hits = by_epoch(state.hits)[self._epochs() - 1] if self._checked else []
        predicted = hits or state.held_out_hits
        return RoundResult(
            round=self.round,
            weights=blend(self._initial, self._lora.weights(), share),
            strength=share,
            z=self._z(),
            guessed=sum(predicted),
            guessed_of=len(predicted),
            curve=tuple(sum(epoch) / len(epoch) for epoch in by_epoch(state.hits)) if self._checked else (),
            strength_scan=tuple(state.strength_scan),
            figures=state.figures,
            reason=" ".join([self._reason(), *doubts(share)]),
        )

    @property
    def trained_on(self) -> list[str]:
        """Return the ids of the groups that the LoRA has learnt from."""
        return self._phases[min(self.state.phase, len(self._phases) - 1)].groups

    def _z(self) -> float | None:
        """Return how surely hidden picks were predicted; None without a check."""
        return z_score(by_epoch(self.state.margins)[self._epochs() - 1]) if self._checked else None

    def _share(self) -> float:
        """Return the share of what was learnt that the evidence allows."""
        z = self._z()
        return 1.0 if z is None else strength(z)

    def _reason(self) -> str:
        if self.state.reason:
            return self.state.reason
        if self.state.phase < len(self._phases) - 1:
            return "Stopped while checking: half of the picks were used, and nothing tells yet how well."
        if self.state.phase < len(self._phases):
            return "Stopped before the end."
        if self._epochs() < self.settings.epochs:
            return f"Stopped after epoch {self._epochs()}: with more, hidden picks were predicted worse."
        return "Every pick was used."

    # -- opening -----------------------------------------------------------------------------------------------------

    def _check_samplers(self) -> None:
        """Check that the model is the one that sampled, on a step of every kind of group by the policy that drew it."""
        for group_id in of_each_kind(self.run, [*self.data.training, *self.data.held_out]):
            policy = self.run.groups.get(group_id).policy
            if policy == "base":
                with self._lora.off():
                    check_same_model(self.denoiser, self._load(group_id))
            elif policy == self.start:  # nothing has been learnt since
                check_same_model(self.denoiser, self._load(group_id))

    def _sample_rows(self) -> Rows:
        """Return rows of the kind that is trained on, to see what fits into memory."""
        group, settings = self._load(self._phases[-1].groups[0]), self.settings
        if METHODS[settings.method].rows == "images":
            levels = noise_levels(self.denoiser, settings.lowest_sigma)
            return noise_images(group, levels, 1, generator(settings.seed), self.denoiser)
        recorded = group.guided if settings.guided_loss else group.cond
        return group_rows(group, recorded, settings.guided_loss, self.denoiser.device)

    def _references(self, limits: BatchLimits) -> tuple[Reference, Reference]:
        """Return the reference that the settings name, and the base."""
        anew = self.settings.reevaluate_reference
        base = Reference("base", self.denoiser, self._lora.off, limits.forward, anew)
        if self._plan.reference == "base":
            return base, base
        return Reference(self.start, self.denoiser, self._lora.reference, limits.forward, anew), base

    # -- fitting -----------------------------------------------------------------------------------------------------

    def _train(self) -> Iterator[StepReport]:
        state = self.state
        if state.phase == len(self._phases):
            unpack_parameters(self._saved.tensors, self._lora.parameters())
        while state.phase < len(self._phases):
            yield from self._fit(self._phases[state.phase])
        state.strength_scan = self.scan_strengths(
            blend(self._initial, self._lora.weights(), self._share()),
            [self._load(name) for name in self._watched()],
            lambda group: self._base.predictions(group, guided=True),
            self._limits.forward,
        )

    def _watched(self) -> list[str]:
        """Groups on which drift is measured: held-out ones, where there are any; not imported ones, without a step."""
        last = self._phases[-1]
        recorded = [name for name in last.hidden or last.groups if self.run.groups.get(name).recorded]
        return recorded[:DRIFT_GROUPS]

    def _fit(self, phase: Phase) -> Iterator[StepReport]:
        state = self.state
        fit = self._optimizer_of(phase)
        try:
            while fit.done < fit.total and not state.reason:
                if fit.ends_epoch(fit.done + 1):  # after that update come measures, in which a person may stop
                    self.save_state(fit.optimizer.adamw, fit.parameters)
                report = self._report(phase, fit, fit.update())
                state.done = fit.done  # only now: a state between update and measures could not be gone on from
                self.save_state_when_due(fit.optimizer.adamw, fit.parameters)
                yield report
            if phase.name == "teach" and state.reason and self._saved.best:
                unpack_parameters(self._saved.best, fit.parameters)
                state.figures, state.held_out_hits = state.best
            state.phase, state.done, fit.done = state.phase + 1, 0, 0
        finally:
            if fit.done == state.done:
                self.save_state(fit.optimizer.adamw, fit.parameters)

    def _optimizer_of(self, phase: Phase) -> PreferenceOptimizer:
        """Return the phase's optimizer, where it was left.

        A check knows nothing of earlier rounds, which saw the picks that it hides.
        """
        checking = phase.name != "teach"
        self._lora.load(self._fresh if checking else self._initial)
        fit = PreferenceOptimizer(
            self.denoiser,
            self._lora.parameters(),
            {name: max(1, len(self.data.training[name])) for name in phase.groups},
            self._load,
            self._base if checking else self._reference,
            dataclasses.replace(self.settings, epochs=self._epochs()),
            self._limits,
            self._base,
        )
        if self.state.done:
            unpack_optimizer(self._saved.tensors, fit.optimizer.adamw, fit.parameters)
            fit.done = self.state.done
        return fit

    def _report(self, phase: Phase, fit: PreferenceOptimizer, update: Update) -> StepReport:
        report = StepReport(
            phase=phase.name, update=update.number, total=update.total, epoch=update.epoch, training=update.measures
        )
        return self.log(self._end_epoch(report, phase, fit) if fit.ends_epoch(fit.done) else report)

    def _end_epoch(self, report: StepReport, phase: Phase, fit: PreferenceOptimizer) -> StepReport:
        """Measure the groups that this phase does not see, and draw the consequences."""
        state = self.state
        hidden = fit.measure(phase.hidden) if phase.hidden else None
        if phase.name != "teach":
            assert hidden is not None
            state.note_check(state.phase, hidden)
            return dataclasses.replace(report, hidden=hidden)
        groups, drift = self._watched(), dict[str, float]()
        if groups:
            base = self._kl(groups, lambda group: self._base.predictions(group, guided=True))
            sampler = self._kl(groups, lambda group: group.guided)
            drift = {"kl_sampler": sampler.per_image, "kl_base": base.per_image}
            self.watch_drift(base.per_element, self.settings.drift_limit)
        if hidden:
            state.held_out.append(hidden.loss)
            state.held_out_hits = list(hidden.hits)
        seen = hidden or fit.measure(phase.groups[:DRIFT_GROUPS])
        state.figures = {**{name: getattr(seen, name) for name in ("loss", "margin", "clip_fraction")}, **drift}
        self._stop_or_go_on(fit)
        return dataclasses.replace(
            report, hidden=hidden, kl_sampler=drift.get("kl_sampler"), kl_base=drift.get("kl_base")
        )

    def _kl(self, groups: list[str], guided: Callable[..., Tensor]) -> MeanKL:
        return mean_kl(self.denoiser, [self._load(name) for name in groups], guided, self._limits.forward)

    def _stop_or_go_on(self, fit: PreferenceOptimizer) -> None:
        """Stop when held-out picks are predicted worse, where no check has decided the number of epochs."""
        state, losses = self.state, self.state.held_out
        if self._checked or not self.settings.patience or not losses:
            return
        best = losses.index(min(losses))
        if best == len(losses) - 1:
            self._saved.best = {f"{i}.parameter": p.detach().clone() for i, p in enumerate(fit.parameters)}
            state.best = (state.figures, state.held_out_hits)
        elif len(losses) - 1 - best >= self.settings.patience:
            state.reason = f"Stopped: held-out picks were predicted best after epoch {best + 1}, which is kept."

    def _epochs(self) -> int:
        """Return the epochs of the present phase; the checks decide those of the last one."""
        return epochs_to_teach(by_epoch(self.state.margins)) if self._checked else self.settings.epochs

    @property
    def _checked(self) -> bool:
        """Return whether both checks are done."""
        return len(self._phases) == 3 and self.state.phase >= 2


def preference_data(run: Run, settings: TrainSettings, reward: Reward | None = None) -> PreferenceData:
    """Return what a new round would learn from.

    Args:
        run: with picks.
        settings: for the method.
        reward: scores all images in place of picks.

    Raises:
        D3POError: there is nothing to learn from, or only images that the method cannot learn from.
    """
    return score_preferences(run, reward, settings.method) if reward else collect_preferences(run, settings.method)


def _begin_or_resume(
    run: Run, settings: TrainSettings, lora_settings: LoraSettings, reward: Reward | None
) -> tuple[int, TrainPlan, bool]:
    """Begin a round or find the interrupted one; return its number, its plan, and whether it was interrupted."""
    stopped = stopped_round(run, TrainPlan.KIND)
    if stopped is None:
        data = preference_data(run, settings, reward)
        start = run.rounds.current_policy()
        plan = TrainPlan(settings=fill_in(settings), lora_settings=lora_settings, start=start, data=data)
        number = run.rounds.begin(plan.to_json(), plan.reference, anew=True, by_picks=reward is None)
        return number, plan, False
    stored = stopped.settings
    as_now = {name: getattr(settings, name) for name in FREE_TO_CHANGE}
    plan = TrainPlan(
        settings=fill_in(from_stored(TrainSettings, {**stored["train"], **as_now})),
        lora_settings=from_stored(LoraSettings, stored["lora"]),
        data=PreferenceData.from_json(stored["lesson"]),
        # Not the present one: somebody may have gone back to another round meanwhile.
        start=stored.get("start") or run.rounds.current_policy(),
    )
    return stopped.number, plan, True


def _leave_out(run: Run, number: int, plan: TrainPlan, error: UnusableGroup) -> None:
    """Go on without a group that cannot be read: the round begins anew, with the other picks.

    Raises:
        D3POError: there are no others.
    """
    rest = dataclasses.replace(plan, data=plan.data.without(error.group_id))
    if not rest.data.training:
        raise D3POError(error.what, "No other group is left to learn from: pick in more groups.", error.safe) from error
    run.rounds.begin(rest.to_json(), rest.reference)
    run.rounds.save_state(number, {}, dataclasses.asdict(RoundState()))
