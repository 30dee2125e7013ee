"""One round of training, from picks or from a reward: it is begun or resumed, a LoRA is attached, its state is saved in
between, and the LoRA that came out is written at its end.

The state is the LoRA's parameters, AdamW's moments and a `RoundState`, in the run: a killed trainer goes on from there.
A trainer is a context manager:

    with Trainer.open(run, denoiser, settings, lora_settings) as trainer:
        for report in trainer.steps():
            ...
        saved = save_round(trainer)

While it is open it holds the run's lock, and its LoRA is attached to the network.
"""

from __future__ import annotations

import dataclasses
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar, Literal, TypeVar

import torch
from torch import Tensor

from ..diffusion.denoiser import Denoiser
from ..errors import D3POError, unbroken
from ..evaluation.compare import STRENGTHS
from ..lora import Lora, LoraWeights, attach, import_lora, save_lora, unused_path
from ..lora.weights import scale_weights
from ..processes import ALONE, Message, Processes
from ..run import Round, Run, device_name, policy_id
from ..run.rounds import DamagedState
from ..settings import FilledTrainSettings, LoraSettings, RewardSettings
from .passes import mean_kl, misfit, pack_optimizer
from .reports import Report, RoundResult, RoundState, TeachingMemory
from .rows import TrainingGroup

if TYPE_CHECKING:
    from typing_extensions import Self

SAVE_EVERY_SECONDS = 5.0
"""A killed trainer loses at most this much work."""
LORA_FOLDER = "loras"
"""In a run: where its rounds' LoRA files are."""
R = TypeVar("R", bound=Report)


@dataclass
class SavedState:
    """What a run keeps of a round in the middle.

    Attributes:
        tensors: parameters of the LoRA and moments of its optimiser, see `passes.pack_optimizer`.
        round: where the round is.
    """

    tensors: dict[str, Tensor]
    round: RoundState


@dataclass(frozen=True, kw_only=True)
class RoundPlan:
    """What a round is begun with, and an interrupted one goes on with.

    Attributes:
        settings, lora_settings: how it is trained.
        start: id of the policy that it goes on from.
        reward_name: what it learns from, for people; "" for picks.
    """

    KIND: ClassVar[Literal["train", "reward"]]
    """Name of the settings in a run: "train" for a round that learns from picks, "reward" for one by a reward."""
    settings: FilledTrainSettings | RewardSettings
    lora_settings: LoraSettings
    start: str
    reward_name: str = ""

    @property
    def keeps_previous(self) -> bool:
        """Return whether last round's LoRA is needed beside the trained one, as its reference."""
        return False

    def to_json(self) -> dict[str, object]:
        """Return what a run keeps of the plan."""
        return {**self.all_settings(), "start": self.start}

    def all_settings(self) -> dict[str, dict[str, object]]:
        """Return the settings by the names that a run keeps them under."""
        return {self.KIND: dataclasses.asdict(self.settings), "lora": dataclasses.asdict(self.lora_settings)}


@dataclass(frozen=True)
class OpenRound:
    """A round that was begun or resumed, its LoRA attached.

    Attributes:
        number: of the round.
        resumed: it was interrupted, and learns on.
        lora: attached to the network.
        previous: last round's LoRA; None if the round goes on from the base model.
        saved: where it was left.
        exit: closes it: takes the LoRA off and gives the run's lock back.
        processes: which train it together.
    """

    number: int
    resumed: bool
    lora: Lora
    previous: LoraWeights | None
    saved: SavedState
    exit: ExitStack
    processes: Processes = ALONE


class RoundTrainer(ABC):
    """A round being trained; open one by `Trainer.open` or `RewardTrainer.open`.

    Args:
        run: the run.
        denoiser: the base model; the round's LoRA is attached to it.
        plan: what the round was begun with.
        opened: the round.
    """

    def __init__(self, run: Run, denoiser: Denoiser, plan: RoundPlan, opened: OpenRound) -> None:
        self.run, self.denoiser = run, denoiser
        self.round, self.resumed, self.previous = opened.number, opened.resumed, opened.previous
        self.start, self.lora_settings, self.reward_name = plan.start, plan.lora_settings, plan.reward_name
        self.plan = plan
        self._lora, self._initial = opened.lora, opened.lora.weights()
        self._saved, self._exit, self.processes = opened.saved, opened.exit, opened.processes
        self._begun = self._saved_at = time.monotonic()
        self.is_open = True

    def __enter__(self) -> Self:
        if not self.is_open:
            raise ValueError("a closed trainer cannot be used again: open another")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.is_open = False
        self._exit.close()

    @abstractmethod
    def steps(self) -> Generator[Report, None, None]:
        """Train and report after every update.

        Closing the generator saves the state: `result` gives what was learnt so far, and another trainer on the same
        run goes on from there.

        Raises:
            D3POError: a damaged group, out of memory, or training that ran away.
        """

    @abstractmethod
    def result(self) -> RoundResult:
        """Return what was learnt so far."""

    @property
    @abstractmethod
    def trained_on(self) -> list[str]:
        """Return the ids of the groups that the LoRA has learnt from."""

    def memory(self) -> TeachingMemory | None:
        """Return what the network and its LoRA take in memory; None where that was not measured."""
        return None

    @property
    def state(self) -> RoundState:
        """Return where the round is."""
        return self._saved.round

    def scan(self) -> None:
        """Measure drift at every strength, of what was learnt so far, where a round is ended early; here nothing is."""
        self.state.strength_scan = []

    def save_state(self, optimizer: torch.optim.Optimizer, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Keep the state in the run.

        Raises:
            D3POError: the disk is full or the folder cannot be written to.
        """
        with unbroken():  # it is also saved because of Ctrl+C, and a second press is not to prevent that
            self._saved.tensors = pack_optimizer(optimizer, parameters)
            if self.processes.first:
                self.run.rounds.save_state(self.round, self._saved.tensors, dataclasses.asdict(self.state))
            self._saved_at = time.monotonic()

    def save_state_when_due(self, optimizer: torch.optim.Optimizer, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Keep the state if the last one is older than `SAVE_EVERY_SECONDS`."""
        if time.monotonic() - self._saved_at > SAVE_EVERY_SECONDS:
            self.save_state(optimizer, parameters)

    def log(self, report: R) -> R:
        """Write a report into the run's metrics, and return it with its time."""
        report = dataclasses.replace(report, seconds=time.monotonic() - self._begun)
        if self.processes.first:
            self.run.metrics.append({"round": self.round, **dataclasses.asdict(report)})
        return report

    def watch_drift(self, drift: float, limit: float) -> None:
        """End the round if drift has passed its limit, or is no number any more.

        Args:
            drift: KL from the base, nats per latent element.
            limit: the same; 0 is off.
        """
        if limit and math.isnan(drift):
            self.state.reason = "Stopped: how far the model has drifted cannot be measured any more."
        elif limit and drift > limit:
            self.state.reason = f"Stopped: drift from the base reached {drift:.3g}, over its limit of {limit:g}."

    def scan_strengths(
        self,
        weights: LoraWeights,
        groups: Sequence[TrainingGroup],
        base: Callable[[TrainingGroup], Tensor],
        batch: int,
        thin: bool = False,
    ) -> list[tuple[float, float]]:
        """Measure drift from the base at each of `STRENGTHS`; the attached LoRA is as before afterwards.

        Args:
            weights: the LoRA at strength 1.
            groups: on which it is measured; without any nothing is.
            base: the base model's guided predictions on a group, (C, K, ...).
            batch: rows per forward pass.
            thin: see `mean_kl`.

        Returns:
            Strengths, each with its drift in nats per latent element, where that is finite: half precision overflows.
        """
        before, scan = self._lora.weights(), []
        if not groups:
            return []
        try:
            for strength in STRENGTHS:
                self._lora.load(scale_weights(weights, strength))
                drift = mean_kl(self.denoiser, groups, base, batch, thin).per_element
                if math.isfinite(drift):
                    scan.append((strength, drift))
        finally:
            self._lora.load(before)
        return scan


def stopped_round(run: Run, kind: str) -> Round | None:
    """Return the round that was interrupted, None without one; one that learnt nothing yet is begun anew.

    Args:
        run: the run.
        kind: of the round to be trained, see `RoundPlan`.

    Raises:
        D3POError: it learns from the other of the two.
    """
    stopped = run.rounds.stopped()
    if stopped is not None and kind not in stopped.settings:
        other = "picks" if "train" in stopped.settings else "a reward"
        raise D3POError(
            f"Round {stopped.number} of this taste, which learns from {other}, was stopped in the middle.",
            "Let it go on, or finish it as it is, first.",
            "What it has learnt is saved.",
        )
    return stopped


@contextmanager
def opening(run: Run, processes: Processes = ALONE) -> Iterator[ExitStack]:
    """Yield what a trainer closes at its end, the run's lock in it; it is closed at once if opening the trainer fails.

    Of several processes the first one holds the lock.

    Raises:
        D3POError: another trainer is at work on the run, or the LoRA to go on from is missing or damaged.
    """
    exit = ExitStack()
    try:
        if processes.first:
            exit.enter_context(run.rounds.lock())
            run.rounds.lora(run.rounds.needed())  # now: no round is begun, and no minute spent on a judge
        yield exit
    except BaseException:
        exit.close()
        raise


def open_round(
    run: Run,
    denoiser: Denoiser,
    number: int,
    plan: RoundPlan,
    *,
    resumed: bool,
    attachment: str,
    exit: ExitStack,
    processes: Processes = ALONE,
) -> OpenRound:
    """Attach the LoRA of a round that was just begun or resumed, and read its state.

    The run's manifest then says how it was last trained.

    Args:
        run, denoiser, plan: see `RoundTrainer`.
        number, resumed, exit: see `OpenRound`.
        attachment: "peft" for diffusers modules, "hooks" for modules that a host owns.
        processes: see `OpenRound`.

    Raises:
        D3POError: last round's LoRA is missing or damaged, or does not fit the network; or the state is damaged: it is
            set aside, and the round begins anew the next time.
    """
    if processes.first:
        run.write_manifest(device=device_name(denoiser.device), **plan.all_settings())
    path = run.rounds.lora(plan.start)
    previous = import_lora(path, denoiser.module) if path else None
    lora = attach(
        denoiser.module,
        plan.lora_settings,
        kind=attachment,
        start=previous,
        reference=previous if plan.keeps_previous else None,
        seed=plan.settings.seed,
    )
    exit.callback(lora.remove)
    try:
        saved = _read_state(run, number, plan.KIND, lora.parameters()) if processes.first else None
    except DamagedState as error:
        aside = run.rounds.set_state_aside(number)
        raise D3POError(
            f"What round {number} had learnt so far is damaged ({error}).",
            "Start the round again: it begins anew, with all picks that you have now.",
            f"All picks, pictures and finished rounds are saved, and the damaged file is kept: {aside}.",
        ) from error
    return OpenRound(number, resumed, lora, previous, _shared_state(processes, saved), exit, processes)


def _shared_state(processes: Processes, saved: SavedState | None) -> SavedState:
    """Return the state that the first process has read, in all of them."""
    if saved is not None and processes.size == 1:
        return saved
    message = processes.share(Message(dataclasses.asdict(saved.round), saved.tensors) if saved else None)
    return saved or SavedState(dict(message.tensors), RoundState(**message.facts))  # type: ignore[arg-type]


def _read_state(run: Run, number: int, kind: str, parameters: Sequence[torch.nn.Parameter]) -> SavedState:
    """Return where a round was left; raises DamagedState if it cannot be gone on from."""
    stored = run.rounds.load_state(number)
    # In 0.1.0 a round by picks had several phases: it is begun anew.
    if stored is None or (kind == "train" and "phase" in stored[1]):
        return SavedState({}, RoundState())
    tensors, info = stored
    known = {item.name for item in dataclasses.fields(RoundState)}
    state = RoundState(**{name: value for name, value in info.items() if name in known})
    if type(state.done) is not int or state.done < 0:
        raise DamagedState(f"it says that {state.done} updates were done")
    if (state.done or tensors) and (wrong := misfit(tensors, parameters)):
        raise DamagedState(wrong)
    return SavedState(tensors, state)


@dataclass(frozen=True)
class SavedRound:
    """A finished round.

    Attributes:
        result: what came out.
        path: of the LoRA file in the run's folder.
        settings: how it was trained.
        reward_name: what it learnt from, for people; "" for picks.
        resumed: it had been interrupted.
    """

    result: RoundResult
    path: Path
    settings: FilledTrainSettings | RewardSettings
    reward_name: str = ""
    resumed: bool = False


def save_round(trainer: RoundTrainer) -> SavedRound:
    """Write what an open trainer has learnt into its run and close the round; of several processes the first does so.

    Killed in here, the round stays open, and training again writes the file anew under another name.

    Raises:
        D3POError: the disk is full or the folder cannot be written to; the round then stays open.
        ValueError: the trainer was closed: another one may be at the round by now.
    """
    if not trainer.is_open:
        raise ValueError("a round is saved before its trainer is closed")
    if not trainer.state.strength_scan:
        trainer.scan()
    run, result = trainer.run, trainer.result()
    facts = {"round": result.round, "strength": f"{result.strength:.3f}", "groups": len(trainer.trained_on)}
    path = save_lora(
        unused_path(run.folder / LORA_FOLDER, f"{run.name}-round{result.round}"),
        result.weights,
        trainer.denoiser.module,
        extra=facts,
        base_name=Path(run.model.get("source") or "").stem,
        prediction_type=run.model.get("prediction_type", ""),
    )
    run.rounds.finish(result.round, path, policy_id(path), result, groups=trainer.trained_on)
    return SavedRound(result, path, trainer.plan.settings, trainer.reward_name, trainer.resumed)
