"""What teaching a round takes, whatever it is taught from: it is begun or resumed, a LoRA is attached, the state is
saved as it goes, and at the end drift is measured at several strengths.

The state is the LoRA's parameters, AdamW's moments and a `Progress`, in the run: a killed trainer goes on from there.
"""

from __future__ import annotations

import dataclasses
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor

from ..diffusion.denoiser import Denoiser
from ..errors import D3POError
from ..evaluation.drift import STRENGTHS
from ..lora import LoraWeights, attach, import_lora, save_lora, unused_path
from ..lora.file import policy_id
from ..lora.weights import scale_weights
from ..run import Round, RoundSummary, Run, device_name
from ..settings import LoraSettings, validate
from .optimize import pack_optimizer
from .passes import mean_kl
from .reports import Report, Result, RoundState
from .rows import TrainingGroup

SAVE_EVERY_SECONDS = 5.0
"""A killed trainer loses at most this much work."""
R = TypeVar("R", bound=Report)
BEST = "best."
"""Begins the names of the best epoch's parameters in a saved state."""


class RoundTrainer(ABC, Generic[R]):
    """One round of teaching: a new one, or the one that was interrupted.

    Args:
        run: the taste.
        denoiser: the base model; a LoRA is attached while training and removed without a trace afterwards.
        lora_settings: what is trained. An interrupted round goes on with those that it was begun with.
        attachment: "peft" for diffusers modules, "hooks" for modules that a host owns.
    """

    KIND: ClassVar[str]
    """Names the settings of this kind of round in what a run keeps of it."""
    round: int
    """The round's number, once `steps` has begun."""
    _start: str
    """The policy that the round goes on from."""

    def __init__(self, run: Run, denoiser: Denoiser, lora_settings: LoraSettings, attachment: str) -> None:
        self.run, self.denoiser, self.attachment = run, denoiser, attachment
        self.lora_settings = validate(lora_settings)
        self._progress = RoundState()
        self._tensors: dict[str, Tensor] = {}
        self._best: dict[str, Tensor] = {}

    def steps(self) -> Generator[R, None, None]:
        """Train and report after every update.

        Closing the generator saves the state: `result` gives what was learnt so far, and another trainer on the same
        run goes on from there.

        Raises:
            D3POError: another base model, a damaged group, out of memory, or another trainer at work on the run.
        """
        with self.run.rounds.lock():
            self._began = self._saved = time.monotonic()
            self._begin_or_resume()
            self._load_state()
            self._attach()
            try:
                yield from self._teach()
            finally:
                self._learnt = self._lora.weights()
                self._lora.remove()

    @abstractmethod
    def result(self) -> Result:
        """What was learnt when `steps` ended or was closed."""

    @property
    @abstractmethod
    def trained_on(self) -> list[str]:
        """Ids of the groups that the LoRA has learnt from."""

    @abstractmethod
    def _begin_or_resume(self) -> None:
        """Set `round` and `_start`."""

    @abstractmethod
    def _teach(self) -> Generator[R, None, None]:
        """Train, the LoRA being attached."""

    def _unfinished(self) -> Round | None:
        """The round that was interrupted; one that was given up before it learnt anything is begun anew.

        Raises:
            D3POError: it was one of another kind.
        """
        found = self.run.rounds.stopped()
        if found is None:
            return None
        if self.KIND not in found.settings:
            other = "picks" if "train" in found.settings else "a reward"
            raise D3POError(
                f"Round {found.number} of this taste, which learns from {other}, was stopped in the middle.",
                "Let it go on, or finish it as it is, first.",
                "What it has learnt is saved.",
            )
        return found

    def _load_state(self) -> None:
        saved = self.run.rounds.load_state(self.round)
        if saved:
            tensors, info = saved
            self._tensors = {name: t for name, t in tensors.items() if not name.startswith(BEST)}
            self._best = {name.removeprefix(BEST): t for name, t in tensors.items() if name.startswith(BEST)}
            known = {item.name for item in dataclasses.fields(RoundState)}  # an older version may have kept more
            self._progress = RoundState(**{name: value for name, value in info.items() if name in known})

    def _note(self, **settings: Any) -> None:
        """Keep in the run's manifest how it was last taught."""
        self.run.write_manifest(
            device=device_name(self.denoiser.device), lora=dataclasses.asdict(self.lora_settings), **settings
        )

    def _attach(self) -> None:
        """The LoRA, going on from last round's."""
        path = self.run.rounds.lora(self._start)
        self._previous = import_lora(path, self.denoiser.module) if path else None
        self._lora = attach(
            self.denoiser.module,
            self.lora_settings,
            kind=self.attachment,
            start=self._previous,
            reference=self._previous if self._keeps_previous() else None,
            seed=self._seed(),
        )
        self._initial = self._lora.weights()

    def _keeps_previous(self) -> bool:
        """Whether last round's LoRA is needed beside the trained one."""
        return False

    @abstractmethod
    def _seed(self) -> int: ...

    def _save(self, optimizer: torch.optim.Optimizer, parameters: Sequence[torch.nn.Parameter]) -> None:
        self._tensors = pack_optimizer(optimizer, parameters)
        best = {BEST + name: tensor for name, tensor in self._best.items()}
        self.run.rounds.save_state(self.round, {**self._tensors, **best}, dataclasses.asdict(self._progress))
        self._saved = time.monotonic()

    def _save_now_and_then(self, optimizer: torch.optim.Optimizer, parameters: Sequence[torch.nn.Parameter]) -> None:
        if time.monotonic() - self._saved > SAVE_EVERY_SECONDS:
            self._save(optimizer, parameters)

    def _tell(self, report: R) -> R:
        """The report with its time, written into the run's metrics."""
        report = dataclasses.replace(report, seconds=time.monotonic() - self._began)
        self.run.metrics.append({"round": self.round, **dataclasses.asdict(report)})
        return report

    def _watch_drift(self, drift: float, limit: float) -> None:
        """End the round if drift has passed its limit, or is no number any more.

        Args:
            drift: KL from the base, nats per latent element.
            limit: the same; 0 is off.
        """
        if limit and math.isnan(drift):
            self._progress.reason = "Stopped: how far the model has drifted cannot be measured any more."
        elif limit and drift > limit:
            self._progress.reason = f"Stopped: drift from the base reached {drift:.3g}, over its limit of {limit:g}."

    def _swept(
        self,
        kept: LoraWeights,
        groups: Sequence[TrainingGroup],
        base: Callable[[TrainingGroup], Tensor],
        together: int,
    ) -> list[tuple[float, float]]:
        """Drift from the base at every strength; the LoRA is put back after.

        Args:
            kept: the LoRA at strength 1.
            groups: on which it is measured; without any it is not.
            base: the base model's guided predictions on a group.
            together: rows per forward pass.
        """
        learnt, found = self._lora.weights(), []
        if not groups:
            return []
        try:
            for part in STRENGTHS:
                self._lora.load(scale_weights(kept, part))
                drift = mean_kl(self.denoiser, groups, base, together).per_element
                if math.isfinite(drift):  # half precision can overflow
                    found.append((part, drift))
        finally:
            self._lora.load(learnt)
        return found


LORA_FOLDER = "loras"


def save_round(trainer: RoundTrainer[Any]) -> Path:
    """Write what a trainer has learnt into its run and close the round; call it after `steps` ended or was closed.

    Killed in here, the round stays open, and training again writes the file anew under another name.

    Returns:
        The LoRA file, in the run's folder.

    Raises:
        D3POError: the disk is full or the folder cannot be written to, or another trainer has taken the round up
            meanwhile; the round then stays open.
    """
    with trainer.run.rounds.lock():
        return _save_round(trainer)


def _save_round(trainer: RoundTrainer[Any]) -> Path:
    run, result = trainer.run, trainer.result()
    extra = {"round": result.round, "strength": f"{result.strength:.3f}", "groups": len(trainer.trained_on)}
    path = save_lora(
        unused_path(run.folder / LORA_FOLDER, f"{run.name}-round{result.round}"),
        result.weights,
        trainer.denoiser.module,
        extra=extra,
        base_name=Path(run.model.get("source") or "").stem,
        prediction_type=run.model.get("prediction_type", ""),
    )
    summary = RoundSummary(
        strength=result.strength,
        z=result.z,
        guessed=result.guessed,
        guessed_of=result.guessed_of,
        curve=tuple(result.curve),
        strength_scan=tuple(result.sweep),
        figures=result.figures,
        reason=result.reason,
    )
    run.rounds.finish(result.round, path, policy_id(path), summary, groups=trainer.trained_on)
    return path
