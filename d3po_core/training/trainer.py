"""One round that learns from picks: they become a LoRA.

The host draws progress, checks for interrupts and may close the generator of reports at any step; what was learnt is in
the run by then, and a killed trainer goes on from its last saved state.

Whether there is anything to learn is decided before, by the judge that is fitted to the picks (rewards/judge.py):
without evidence of a taste nothing is trained. The held-out groups, which are never trained on, are a second witness:
the LoRA's own log-ratios predict their picks.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Generator, Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from typing import Any

from ..diffusion.denoiser import Denoiser
from ..diffusion.rollout import generator
from ..diffusion.trainable import PLAIN
from ..errors import D3POError
from ..lora.weights import blend
from ..processes import ALONE, Processes
from ..rewards import Reward
from ..rewards.description import Looked, note_network
from ..rewards.features import NETWORK
from ..rewards.judge import enough, preferences
from ..run import Run
from ..run.panel import Panel, check_people
from ..settings import FILLED, FilledTrainSettings, LoraSettings, TrainSettings, fill_in, from_stored, validate
from .methods import METHODS
from .passes import BatchLimits, checkpointing, fit_batch_limits, unpack_optimizer
from .preference_optimizer import PreferenceOptimizer, rows_at_once
from .preferences import (
    GroupLoader,
    PreferenceData,
    UnusableGroup,
    check_same_model,
    collect_preferences,
    judged_preferences,
    of_each_kind,
    score_preferences,
)
from .reports import RoundResult, RoundState, StepReport, TeachingMemory, Update
from .round_trainer import OpenRound, RoundPlan, RoundTrainer, open_round, opening, stopped_round
from .rows import Reference, Rows, group_rows, noise_images, noise_levels

DRIFT_GROUPS = 16
"""Groups on which drift is measured at the end, on one recorded step of one image each."""
LORA_COPIES = 7
"""Of a LoRA's values in memory: themselves, their gradient, AdamW's moments, and the saved state of all but that."""
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
        if not plan.settings.reevaluate_reference:
            self._check_samplers()
        with checkpointing(denoiser.module, plan.settings.checkpointing):
            how = (plan.settings.micro_batch, opened.processes.size)
            self._limits = fit_batch_limits(denoiser, self._sample_rows(), *how)
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
        kinds: Collection[str] = (),
        show: Looked = lambda done, total: None,
        processes: Processes = ALONE,
    ) -> Trainer:
        """Begin a round, or take up the one that was interrupted.

        Args:
            run: with picks.
            denoiser: the base model; a LoRA is attached while the trainer is open and taken off without a trace.
            settings, lora_settings: how. An interrupted round goes on with those that it was begun with.
            attachment: "peft" for diffusers modules, "hooks" for modules that a host owns.
            reward: scores all images in place of picks.
            kinds: of what was noted of pictures, for the judge to see beside statistics and what the network sees.
            show: called while the network looks at pictures, before a round is begun.
            processes: which train it together; see `app.handing_over` for how all of them open the run.

        Raises:
            D3POError: settings out of range, nothing to learn from, another base model, a damaged group (which is left
                out the next time), or another trainer at work on the run.
        """
        validate(settings)
        validate(lora_settings)
        with opening(run, processes) as exit:
            begun: tuple[int, TrainPlan, bool] | None = None
            if processes.first:
                begun = _begin_or_resume(run, denoiser, settings, lora_settings, reward, kinds, show)
            number, plan, resumed = _shared_plan(processes, begun)
            opened = open_round(
                run, denoiser, number, plan, resumed=resumed, attachment=attachment, exit=exit, processes=processes
            )
            try:
                return cls(run, denoiser, plan, opened)
            except UnusableGroup as error:
                if processes.first:
                    _leave_out(run, number, plan, error)
                raise

    def steps(self) -> Generator[StepReport, None, None]:
        """Train and report after every update; see `RoundTrainer.steps`. A group that cannot be read is left out the
        next time."""
        try:
            with checkpointing(self.denoiser.module, self.settings.checkpointing):
                yield from self._train()
        except UnusableGroup as error:
            if self.processes.first:
                _leave_out(self.run, self.round, self._plan, error)
            raise

    def result(self) -> RoundResult:
        """Return what was learnt so far, taken back as far as the evidence asks."""
        state, judge, share = self.state, self.data.judge, self.data.share
        return RoundResult(
            round=self.round,
            weights=blend(self._initial, self._lora.weights(), share),
            strength=share,
            z=judge.z if judge else None,
            guessed=judge.accuracy * judge.groups if judge else sum(state.held_out_hits),
            guessed_of=judge.groups if judge else len(state.held_out_hits),
            strength_scan=tuple(state.strength_scan),
            figures=state.figures,
            reason=" ".join([self._reason(), *doubts(share)]).strip(),
        )

    def memory(self) -> TeachingMemory | None:
        """See `RoundTrainer.memory`."""
        lora, device = self._lora.parameters(), self.denoiser.device
        ours = {id(parameter) for parameter in lora}
        weights = [p for p in self.denoiser.module.parameters() if id(p) not in ours]
        if not self._limits.each or any(type(weight) not in PLAIN for weight in weights):  # a host's quantised ones
            return None
        return TeachingMemory(
            network=sum(p.untyped_storage().nbytes() for p in weights if p.device == device),
            lora=LORA_COPIES * sum(parameter.untyped_storage().nbytes() for parameter in lora),
            row=self._limits.each,
            rows=rows_at_once(self._limits, *self._shape, self.settings),
        )

    @property
    def trained_on(self) -> list[str]:
        """Return the ids of the groups that the LoRA has learnt from."""
        return sorted(self.data.training) if self.data.share else []

    def _reason(self) -> str:
        if not self.data.share:
            return ""
        return "Stopped before the end." if self.state.done < self._fit.total else "Every pick was used."

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
        group, settings = self._load(min(self.data.training)), self.settings
        self._shape = group.shape
        if METHODS[settings.method].rows == "images":
            levels = noise_levels(self.denoiser, settings.lowest_sigma)
            return noise_images(group, levels, 1, generator(settings.seed), self.denoiser)
        recorded = group.guided if settings.guided_loss else group.cond
        return group_rows(group, recorded, settings.guided_loss, self.denoiser.device)

    def _recorded(self) -> dict[str, int]:
        """Count the recorded steps of each group's pictures; what was drawn by the same settings has as many."""
        if METHODS[self.settings.method].rows == "images":
            return {}
        alike: dict[str, list[str]] = {}
        for name in sorted(self.data.training):
            alike.setdefault(json.dumps(self.run.groups.get(name).settings, sort_keys=True), []).append(name)
        steps = {how: len(self._load(names[0]).steps) for how, names in alike.items()}
        return {name: steps[how] for how, names in alike.items() for name in names}

    def _references(self, limits: BatchLimits) -> tuple[Reference, Reference]:
        """Return the reference that the settings name, and the base."""
        anew = self.settings.reevaluate_reference
        base = Reference("base", self.denoiser, self._lora.off, limits.forward, anew)
        if self._plan.reference == "base":
            return base, base
        return Reference(self.start, self.denoiser, self._lora.reference, limits.forward, anew), base

    # -- fitting -----------------------------------------------------------------------------------------------------

    def _train(self) -> Iterator[StepReport]:
        if not self.data.share:
            return
        fit, state = self._fit, self.state
        if state.done:
            unpack_optimizer(self._saved.tensors, fit.optimizer.adamw, fit.parameters)
            fit.done, fit.offset = state.done, state.offset
        try:
            while fit.done < fit.total:
                if fit.done + 1 == fit.total:  # after that update come measures, in which a person may stop
                    self.save_state(fit.optimizer.adamw, fit.parameters)
                report = self._report(fit.update())
                state.done, state.offset = fit.done, fit.offset
                self.save_state_when_due(fit.optimizer.adamw, fit.parameters)
                yield report
        finally:
            if fit.done < fit.total:  # a state between the last update and measures could not be gone on from
                state.done, state.offset = fit.done, fit.offset
            if fit.done == state.done:
                self.save_state(fit.optimizer.adamw, fit.parameters)
        self.scan()

    def scan(self) -> None:
        """See `RoundTrainer.scan`."""
        if not (self.data.share and self.processes.first):  # nothing was learnt that could have drifted
            return
        self.state.strength_scan = self.scan_strengths(
            blend(self._initial, self._lora.weights(), self.data.share),
            [self._load(name) for name in self._watched()],
            lambda group: self._base.predictions(group, guided=True),
            self._limits.forward,
            thin=True,
        )

    @cached_property
    def _fit(self) -> PreferenceOptimizer:
        return PreferenceOptimizer(
            self.denoiser,
            self._lora.parameters(),
            {name: max(1, len(pairs)) for name, pairs in self.data.training.items()},
            self._recorded(),
            self._load,
            self._reference,
            self.settings,
            self._limits,
            self._base,
            self.processes,
        )

    def _watched(self) -> list[str]:
        """Return groups on which drift is measured: held-out ones first; not imported ones, without a step."""
        groups = [*sorted(self.data.held_out), *sorted(self.data.training)]
        return [name for name in groups if self.run.groups.get(name).recorded][:DRIFT_GROUPS]

    def _report(self, update: Update) -> StepReport:
        ended = update.number == update.total
        hidden = self._fit.measure(sorted(self.data.held_out)) if ended and self.data.held_out else None
        if ended:
            seen = hidden or update.measures
            self.state.held_out_hits = list(hidden.hits) if hidden else []
            self.state.figures = {name: getattr(seen, name) for name in ("loss", "margin", "clip_fraction", "winner")}
        return self.log(
            StepReport(
                update=update.number, total=update.total, epoch=update.epoch, training=update.measures, hidden=hidden
            )
        )


def doubts(share: float) -> list[str]:
    """Return what a person should know where the evidence did not allow all of what was learnt."""
    if share == 0:
        return ["Hidden picks were not predicted better than by chance, so the model was left as it was."]
    return [f"The evidence is thin, so {share:.0%} of what was learnt was kept."] if share < 1 else []


def preference_data(
    run: Run,
    denoiser: Denoiser,
    settings: TrainSettings,
    reward: Reward | None = None,
    kinds: Collection[str] = (),
    show: Looked = lambda done, total: None,
) -> PreferenceData:
    """Return what a new round would learn from; where a judge is fitted, it is first noted what the network sees.

    Args:
        run: with picks.
        denoiser: the base model, no LoRA attached.
        settings: for the method.
        reward: scores all images in place of picks.
        kinds, show: see `Trainer.open`.

    Raises:
        D3POError: there is nothing to learn from, only images that the method cannot learn from, or another model;
            somebody who was named has not picked.
    """
    if reward:
        return score_preferences(run, reward, settings.method)
    check_people(run, settings)
    panel = Panel.of(run, settings)
    if not settings.judge:
        return collect_preferences(run, settings.method, panel)
    if not settings.reevaluate_reference:  # else the model is not the one that drew
        _look_at_pictures(run, denoiser, show, panel)
        kinds = [NETWORK, *kinds]
    return judged_preferences(run, settings.method, kinds, panel)


def _look_at_pictures(run: Run, denoiser: Denoiser, show: Looked, panel: Panel) -> None:
    """Note what the network sees in a run's pictures, if there are picks enough for a judge, who asks for it.

    Raises:
        AnotherModel: it is not the network that drew them, whose notes would stay in the run.
    """
    if not enough(*preferences(run, panel)):
        return
    by_base = [group.id for group in run.groups.select(freed=False) if group.policy == "base"]
    for group_id in of_each_kind(run, by_base):
        with suppress(UnusableGroup):
            check_same_model(denoiser, GroupLoader(run, PreferenceData({group_id: []}, {}, {}))(group_id))
    note_network(run, denoiser, show)


def _begin_or_resume(
    run: Run,
    denoiser: Denoiser,
    settings: TrainSettings,
    lora_settings: LoraSettings,
    reward: Reward | None,
    kinds: Collection[str],
    show: Looked,
) -> tuple[int, TrainPlan, bool]:
    """Begin a round or find the interrupted one; return its number, its plan, and whether it was interrupted."""
    stopped = stopped_round(run, TrainPlan.KIND)
    if stopped is None or "cross_check" in stopped.settings["train"]:  # of 0.1.0, whose states cannot be gone on from
        data = preference_data(run, denoiser, settings, reward, kinds, show)
        start = run.rounds.current_policy()
        lora_settings = lora_settings.with_targets("all")
        plan = TrainPlan(settings=fill_in(settings), lora_settings=lora_settings, start=start, data=data)
        number = run.rounds.begin(plan.to_json(), plan.reference, anew=True, by_picks=reward is None)
        return number, plan, False
    as_now = {name: getattr(settings, name) for name in FREE_TO_CHANGE}
    # Not the present one: somebody may have gone back to another round meanwhile.
    start = stopped.settings.get("start") or run.rounds.current_policy()
    return stopped.number, _plan_of({**stopped.settings, "start": start}, as_now), True


def _plan_of(stored: dict[str, Any], as_now: Mapping[str, object] | None = None) -> TrainPlan:
    """Return the plan that a run keeps, with other settings of memory."""
    # Without `decay` or `credit`: begun before there was one, so it goes on without.
    train = {"decay": False, "credit": "step", **stored["train"], **(as_now or {})}
    return TrainPlan(
        settings=fill_in(from_stored(TrainSettings, train)),
        lora_settings=from_stored(LoraSettings, stored["lora"]),
        data=PreferenceData.from_json(stored["lesson"]),
        start=stored["start"],
    )


def _shared_plan(processes: Processes, begun: tuple[int, TrainPlan, bool] | None) -> tuple[int, TrainPlan, bool]:
    """Return what the first process has begun or resumed, in all of them."""
    if begun is not None and processes.size == 1:
        return begun
    number, resumed = (begun[0], begun[2]) if begun else (0, False)
    number, stored, resumed = processes.share_facts((number, begun[1].to_json() if begun else {}, resumed))
    return begun or (number, _plan_of(stored), resumed)


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
