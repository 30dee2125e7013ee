"""One round of training on the host's own model, inside one sampling of the host's."""

from __future__ import annotations

from dataclasses import dataclass

from ..d3po_core.app.loras import publish
from ..d3po_core.app.training import Next, PicksRequest, RewardRequest, round_outcome, train_round
from ..d3po_core.diffusion.denoiser import Conditioning
from ..d3po_core.evaluation.images import draw_previews
from ..d3po_core.run import Run
from ..d3po_core.settings import SampleSettings
from ..d3po_core.training.reports import PHASES, Report
from ..d3po_core.training.round_trainer import SavedRound
from . import folders
from .host.memory import checkpointed
from .host.model import HostModel, RunModel
from .host.sampling import host_sampling
from .progress import Working, send_event


@dataclass(frozen=True)
class HostRound:
    """A round as a node asks for it.

    Attributes:
        run: the taste.
        request: what it learns from, and how.
        host: the MODEL.
        prompts: all conditioning that the trainer asks for.
        shape: of one image's latents.
        previews: draws images before and after, and how; None for none.
        notice: what the node says before the first update.
    """

    run: Run
    request: PicksRequest | RewardRequest
    host: HostModel
    prompts: list[Conditioning]
    shape: tuple[int, ...]
    previews: tuple[RunModel, SampleSettings] | None
    notice: str


def train(round: HostRound, node: str) -> tuple[str, list[float]]:
    """Train a round, publish its LoRA, and draw before and after and a blind check for the gallery.

    Interrupted, it keeps its state, and training again goes on from there.

    Returns:
        A sentence or a few on what came out, and what each update lowered: the loss, or minus the reward.
    """
    run, host, losses = round.run, round.host, list[float]()
    with Working(run, node, round.request.FIRST_WORK) as work:

        def after_update(report: Report) -> Next:
            losses.append(report.minimised)
            work.next("teaching" if report.phase == "teach" else "checking", report.total)
            work.at(report.update, report.total, f"{PHASES[report.phase]}, {report.note}".rstrip(", "))
            return Next.CONTINUE

        def inside_sampling() -> SavedRound | None:
            with checkpointed(host.large_blocks() if round.request.settings.checkpointing else []):
                return train_round(round.request.open(run, host, "hooks"), after_update)

        work.say(round.notice)
        try:
            saved = host_sampling(host.denoiser, round.prompts, round.shape, inside_sampling, host.beside)
        finally:
            round.request.release()  # the host, which knows nothing of a reward's network, would find its card full
        assert saved is not None  # nothing here pauses a round but an exception
        publish(saved.path, folders.lora_folder())
        try:
            if round.previews and saved.result.changed:
                work.next("blind")
                model, settings = round.previews
                for done, total in draw_previews(
                    run, model, saved.result.round, saved.result.weights, settings, attachment="hooks"
                ):
                    work.at(done, total, "Drawing before and after")
        finally:
            send_event("d3po.taught", taste=run.run_id, lora=folders.lora_name(run))
    return round_outcome(saved), losses
