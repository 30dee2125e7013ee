"""One round of training on the host's own model, from picks or from a reward: the core's trainer, opened and run inside
one sampling of the host's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

import torch

from ..d3po_core.app.cost import within_memory
from ..d3po_core.app.loras import publish
from ..d3po_core.app.training import Next, train_round
from ..d3po_core.diffusion.denoiser import Conditioning
from ..d3po_core.evaluation.images import draw_previews
from ..d3po_core.run import Run
from ..d3po_core.settings import SampleSettings
from ..d3po_core.training.reports import Report, RoundResult
from ..d3po_core.training.round_trainer import RoundTrainer, SavedRound
from . import folders
from .host.memory import checkpointed
from .host.model import HostModel, RunModel
from .host.process import free_memory, is_out_of_memory
from .host.sampling import host_sampling
from .host.types import Patcher
from .progress import Working, send_event

R = TypeVar("R", bound=Report)


@dataclass(frozen=True)
class HostRound(ABC, Generic[R]):
    """A round as a node asks for it.

    Attributes:
        run: the taste.
        host: the MODEL.
        node: id of the node.
        memory_advice: what to do where memory runs out.
    """

    KIND: ClassVar[str] = "checking"
    """The first kind of work that the gallery shows."""
    run: Run
    host: HostModel
    node: str
    memory_advice: str

    @abstractmethod
    def check(self) -> str:
        """Return what the round will take, in words, once it is sure that it can be trained.

        Raises:
            D3POError: it cannot.
        """

    @abstractmethod
    def open(self) -> RoundTrainer[R]:
        """Open the trainer; called inside the host's sampling."""

    @abstractmethod
    def prompts(self) -> list[Conditioning]:
        """Return all conditioning that the trainer asks for."""

    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Return the shape of one image's latents."""

    @abstractmethod
    def recomputed(self) -> Sequence[torch.nn.Module]:
        """Return the blocks whose activations are computed again in the backward pass."""

    def beside(self) -> Sequence[Patcher]:
        """Return further networks of the host's that must be loaded."""
        return []

    def close(self) -> None:
        """Give back what only training needed."""

    @abstractmethod
    def loss(self, report: R) -> float:
        """Return an update's loss."""

    @abstractmethod
    def progress(self, report: R) -> str:
        """Return what the node shows after an update."""

    @abstractmethod
    def previews(self, trainer: RoundTrainer[R], result: RoundResult) -> tuple[RunModel, SampleSettings] | None:
        """Return what draws before and after, and how; None if nothing is to be drawn."""

    @abstractmethod
    def outcome(self, trainer: RoundTrainer[R], result: RoundResult) -> str:
        """Return what came out, in a few sentences."""


def train(round: HostRound[R]) -> tuple[str, list[float]]:
    """Train a round, publish its LoRA, and draw before and after and a blind check for the gallery.

    Interrupted, it keeps its state, and training again goes on from there.

    Returns:
        A sentence or a few on what came out, and the losses of all updates.

    Raises:
        D3POError: it cannot be trained, memory ran out, or the disk is full; what was learnt so far is kept.
    """
    return within_memory(
        lambda: _train(round),
        round.memory_advice,
        "Your picks and what was learnt so far are saved.",
        what="There is not enough memory to teach this model.",
        free=free_memory,
        recognises=is_out_of_memory,
    )


def _train(round: HostRound[R]) -> tuple[str, list[float]]:
    run, losses = round.run, list[float]()
    with Working(run, round.node, round.KIND) as work:

        def after_update(report: R) -> Next:
            losses.append(round.loss(report))
            work.next("teaching" if report.phase == "teach" else "checking", report.total)
            work.at(report.update, report.total, round.progress(report))  # raises the host's interruption
            return Next.CONTINUE

        def inside_sampling() -> tuple[RoundTrainer[R], SavedRound | None]:
            with checkpointed(round.recomputed()):
                trainer = round.open()
                return trainer, train_round(trainer, after_update)

        work.say(round.check())
        try:
            denoiser, prompts = round.host.denoiser, round.prompts()
            trainer, saved = host_sampling(denoiser, prompts, round.shape(), inside_sampling, round.beside())
        finally:
            round.close()
        assert saved is not None  # nothing here pauses a round but an exception
        publish(saved.path, folders.lora_folder())
        try:
            if previews := round.previews(trainer, saved.result):
                work.next("blind")
                model, settings = previews
                for done, total in draw_previews(
                    run, model, saved.result.round, saved.result.weights, settings, attachment="hooks"
                ):
                    work.at(done, total, "Drawing before and after")
        finally:
            send_event("d3po.taught", taste=run.run_id, lora=folders.lora_name(run))
    return round.outcome(trainer, saved.result), losses
