"""One round of training on the host's own model, inside one sampling of the host's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from ..d3po_core.app.loras import publish
from ..d3po_core.app.training import PicksRequest, RewardRequest, round_outcome, settle_round
from ..d3po_core.diffusion.denoiser import Conditioning
from ..d3po_core.run import Run
from ..d3po_core.settings import SampleSettings
from . import folders
from .host.model import HostModel, RunModel
from .progress import Working, send_event


@dataclass(frozen=True)
class HostRound:
    """A round as a node asks for it.

    Attributes:
        prompts: all conditioning that the trainer asks for.
        shape: of one image's latents.
        previews: returns what draws images before and after, and how (without a VAE latents only); None for none.
        notice: what the node says before the first update.
    """

    run: Run
    request: PicksRequest | RewardRequest
    host: HostModel
    prompts: list[Conditioning]
    shape: tuple[int, ...]
    previews: Callable[[], tuple[RunModel, SampleSettings]] | None
    notice: str


def train(round: HostRound, node: str) -> tuple[str, list[float]]:
    """Train a round, draw before and after and a blind check, publish its LoRA, and return what came out, in words.

    Interrupted, it keeps its state, and training again goes on from there. Beside the words comes what each update
    lowered: the loss, or minus the reward.
    """
    run, request = round.run, round.request
    with Working(run, node, request.FIRST_WORK) as work:
        work.say(round.notice)
        work_inside = partial(request.train, run, round.host, "hooks", work.trained, work.looked, say=work.takes)
        saved = round.host.train(round.prompts, round.shape, request.settings.checkpointing, work_inside)
        assert saved is not None  # nothing here pauses a round but an exception
        try:
            if round.previews and saved.result.changed:
                work.next("blind")
                model, settings = round.previews()
                others = request.others if isinstance(request, PicksRequest) else ()
                saved = settle_round(run, model, saved, settings, "hooks", work.drawn, model.vae is not None, others)
        finally:  # also when drawing is interrupted
            publish(run.rounds.lora(run.rounds.current_policy()) or saved.path, folders.lora_folder())
            send_event("d3po.taught", taste=run.run_id, lora=folders.lora_name(run))
    return round_outcome(saved), work.lowered
