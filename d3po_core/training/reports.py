"""What a trainer reports while it works, and what came out when it is done."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..lora import LoraWeights
from ..run import RoundSummary


@dataclass(frozen=True)
class Measures:
    """Figures of the policy on some groups.

    Attributes:
        loss: mean over groups of the method's loss.
        accuracy: share of pairs whose winner has the higher log-ratio, summed over steps; ties count half.
        margin: mean of winner's - loser's log-ratio, summed over steps, times `settings.prediction_beta`: the logit of
            predicting the pick.
        clip_fraction: share of step log-ratios at which the clamp bites.
        winner: mean of the winner's own log-ratio, a mean over steps. Below 0 what was preferred became less likely, as
            drift alone makes it: over all recorded pictures of the reference the expectation is minus the KL.
        hits: for every group with pairs, the weighted share of its pairs predicted right.
        margins: for every group with pairs, the weighted mean of its pairs' margins.
    """

    loss: float
    accuracy: float
    margin: float
    clip_fraction: float
    winner: float
    hits: tuple[float, ...]
    margins: tuple[float, ...]


@dataclass(frozen=True)
class Update:
    """One optimiser step: its number (from 1), how many there will be, and measures before the step."""

    number: int
    total: int
    epoch: int
    measures: Measures
    gradient_norm: float


@dataclass(frozen=True)
class TeachingMemory:
    """What the network and its LoRA take in memory in a round, measured before its first update.

    All but the last are in bytes.

    Attributes:
        network: its weights.
        lora: its values, their gradient, AdamW's two moments, and the saved state of all but the gradient.
        row: what autograd keeps for one row of (image, step).
        rows: how many are evaluated at once.
    """

    network: int
    lora: int
    row: int
    rows: int

    @property
    def total(self) -> int:
        """Return all of it, in bytes."""
        return self.network + self.lora + self.row * self.rows


@dataclass(frozen=True, kw_only=True)
class Report(ABC):
    """What is known after an update of any round.

    Attributes:
        update, total: updates done, and how many there will be.
        seconds: since the round was started or resumed.
    """

    update: int
    total: int
    seconds: float = 0.0

    @property
    @abstractmethod
    def minimised(self) -> float:
        """Return what the update lowers: the loss, or minus the reward."""

    @property
    @abstractmethod
    def note(self) -> str:
        """Return the most telling figure, for people; "" without one."""


@dataclass(frozen=True, kw_only=True)
class StepReport(Report):
    """What is known after an update by picks.

    Attributes:
        epoch: from 0.
        training: measures of this update's pairs, before the step.
        hidden: measures of the picks in held-out groups, after the last update.
    """

    epoch: int
    training: Measures
    hidden: Measures | None = None

    @property
    def minimised(self) -> float:
        return self.training.loss

    @property
    def note(self) -> str:
        return f"{self.hidden.accuracy:.0%} of hidden picks predicted" if self.hidden else ""

    @property
    def details(self) -> str:
        """Return all figures of an update, for people."""
        line = f"update {self.update}, epoch {self.epoch + 1}: loss {self.training.loss:.4f}, "
        line += f"accuracy {self.training.accuracy:.3f}, clipped {self.training.clip_fraction:.1%}, "
        line += f"winners' log-ratio {self.training.winner:+.2g}"
        if self.hidden is not None:
            line += f", hidden loss {self.hidden.loss:.4f}, hidden accuracy {self.hidden.accuracy:.3f}"
        return line


@dataclass(frozen=True, kw_only=True)
class RewardReport(Report):
    """What is known after an update by a reward.

    Attributes:
        reward_name: for people.
        reward: mean of this update's images, before the step.
        gradient_norm: before it was clipped.
        watched: mean reward of images that are drawn from the same noises every time, after updates that draw them.
        kl_base: of the guided policy, in nats per image, with `watched`.
    """

    reward_name: str
    reward: float
    gradient_norm: float
    watched: float | None = None
    kl_base: float | None = None

    @property
    def minimised(self) -> float:
        return -self.reward

    @property
    def note(self) -> str:
        return f"{self.reward_name} {self.reward:.4g}"


@dataclass(frozen=True, kw_only=True)
class RoundResult(RoundSummary):
    """What came out of a round: what a run keeps of it, and the LoRA.

    Attributes:
        round: its number.
        weights: the LoRA, `strength` already applied.
    """

    round: int
    weights: LoraWeights
    figures: Mapping[str, float] = field(default_factory=dict)

    @property
    def changed(self) -> bool:
        """Return whether the round changed anything: what was taken back entirely does not."""
        return self.strength > 0 and any(bool(layer.up.any()) for layer in self.weights.values())


@dataclass
class RoundState:
    """Where a round is: everything besides tensors that a resumed trainer needs.

    Attributes:
        done: updates done.
        offset: mean log-ratio of the last of them, which Diffusion-KTO compares with.
        held_out_hits: for every held-out group, the share of its pairs predicted right by the LoRA's log-ratios.
        figures, strength_scan: see `RoundResult`.
        reason: why training stopped early, if it did.
    """

    done: int = 0
    offset: float = 0.0
    held_out_hits: list[float] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)
    strength_scan: list[tuple[float, float]] = field(default_factory=list)
    reason: str = ""
