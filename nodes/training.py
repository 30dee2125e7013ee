"""A round of teaching on the host's own model: the core's trainer inside one sampling of the host's."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

from ..d3po_core.app.cost import training_cost
from ..d3po_core.errors import D3POError
from ..d3po_core.evaluation.images import draw_previews
from ..d3po_core.gallery.actions import MIN_PICKS
from ..d3po_core.run import Group, Run
from ..d3po_core.settings import LoraSettings, SampleSettings, TrainSettings
from ..d3po_core.training.methods import METHODS, needs_recording
from ..d3po_core.training.preferences import AnotherModel
from ..d3po_core.training.reports import Result
from ..d3po_core.training.round_trainer import save_round
from ..d3po_core.training.trainer import Trainer
from . import graph, loras
from .host.checks import check_trainable
from .host.memory import checkpointed
from .host.model import HostModel, RunModel, host_sampling, shape_of
from .host.process import within_memory
from .progress import Working, seconds_per_image, send_event

RESUMED = "It went on as it was begun: changed settings and new picks are for the next round."
PHASES = {"check A": "Guessing hidden picks, 1 of 2", "check B": "Guessing hidden picks, 2 of 2", "teach": "Teaching"}


@dataclass(frozen=True)
class TrainRequest:
    """What a round is taught with.

    Attributes:
        settings, lora: how.
        carried: what the MODEL carries now, as the graph tells.
        vae: for pictures of before and after; None for none.
        node: id of the node that teaches.
    """

    settings: TrainSettings
    lora: LoraSettings
    carried: graph.Carried
    vae: Any
    node: str


def waiting(run: Run, method: str | None) -> str:
    """Why there is nothing to teach; "" if there is.

    Args:
        run: with picks.
        method: that it is taught with; None if no trainer has said so yet.
    """
    recorded = needs_recording(method)
    usable, all_of_them = run.picks.counts("", recorded).usable, run.picks.counts("").usable
    if usable < MIN_PICKS:
        said, more = waiting_for(usable), all_of_them - usable
        why = f"{more} more are of imported pictures, which {method} cannot learn from, as diffusion-nft can"
        return f"{said}; {why}" if more else said
    return "" if run.picks.untaught(recorded) else "Nothing new to teach: pick some more."


def waiting_for(usable: int) -> str:
    """How many picks there are, and are needed."""
    return f"Waiting for picks: {usable} of {MIN_PICKS}"


def train(model: Any, run: Run, lesson: TrainRequest) -> tuple[str, list[float]]:
    """Teach one round and publish its LoRA. Interrupted, it keeps its state, and teaching again goes on from there.

    Args:
        model: the MODEL that sampled.
        run: with picks.
        lesson: how.

    Returns:
        A sentence on what came out, and the losses of all updates.

    Raises:
        D3POError: the model is another one, memory ran out, or the disk is full; the picks are safe.
    """
    try:
        result, losses = within_memory(
            lambda: _taught_and_shown(model, run, lesson),
            "Choose a smaller memory preset at the trainer if there is one, or begin a taste with smaller pictures.",
            "Your picks and what was learnt so far are saved.",
        )
    except AnotherModel as error:
        raise _named(run, lesson, error) from None
    return said(result), losses


def _taught_and_shown(model: Any, run: Run, lesson: TrainRequest) -> tuple[Result, list[float]]:
    with Working(run, lesson.node, "checking") as work:
        result, losses = _taught(model, run, lesson, work)
        try:
            if lesson.vae is not None and result.strength > 0:
                settings = sample_settings(run)
                show_round(run, RunModel(model, run, lesson.vae, settings.eta), settings, result, work)
        finally:
            send_event("d3po.taught", taste=run.run_id, lora=loras.listed(run))
    return result, losses


def _taught(model: Any, run: Run, lesson: TrainRequest, work: Working) -> tuple[Result, list[float]]:
    check_trainable(model)
    host = HostModel(model)
    trainer = Trainer(run, host.denoiser, lesson.settings, lesson.lora, attachment="hooks")
    judged = [group for group in run.groups.select(freed=False) if group.judged or group.flagged]
    by_id = {group.prompt_id: group.prompt for group in judged if run.prompts.has_conditioning(group.prompt_id)}
    prompts = [run.prompts.conditioning(prompt_id) for prompt_id in sorted(by_id)]  # what was imported may have none
    work.say(_cost(run, judged, lesson.settings))
    losses: list[float] = []

    def steps() -> None:
        with checkpointed(host.denoiser.module, lesson.settings.checkpointing), closing(trainer.steps()) as reports:
            for report in reports:
                losses.append(report.training.loss)
                work.next("teaching" if report.phase == "teach" else "checking", report.total)
                guess = f", {report.hidden.accuracy:.0%} of hidden picks guessed" if report.hidden else ""
                work.at(report.update, report.total, PHASES[report.phase] + guess)

    host_sampling(host.denoiser, prompts, shape_of(run), steps)
    loras.publish(run, save_round(trainer))
    result = trainer.result()
    if trainer.resumed:
        result = replace(result, reason=f"{result.reason} {RESUMED}")
    return result, losses


def _cost(run: Run, judged: list[Group], settings: TrainSettings) -> str:
    """What teaching will take, in words; of finished pictures only how many there are."""
    if METHODS[settings.method].rows == "images":
        return f"{len(judged)} groups of pictures"
    drawn = [group for group in judged if group.recorded]
    steps = run.groups.trajectory(drawn[0].id)["cond"].shape[1] if drawn else 0
    seconds = seconds_per_image(run)
    each = None if seconds is None else seconds / sample_settings(run).steps
    return training_cost(len(drawn), sum(group.candidates for group in drawn) * steps, settings, each)


def show_round(run: Run, drawing: RunModel, settings: SampleSettings, result: Result, work: Working) -> None:
    """Pictures before and after, and a blind check, for the gallery."""
    work.next("blind")
    for done, total in draw_previews(run, drawing, result.round, result.weights, settings, attachment="hooks"):
        work.at(done, total, "Drawing before and after")


def sample_settings(run: Run) -> SampleSettings:
    """How a taste's newest pictures were drawn; before any were, how they would be."""
    known = SampleSettings.__dataclass_fields__
    drawn = run.groups.select(recorded=True)
    stored = drawn[-1].settings if drawn else run.settings["sample"]
    return SampleSettings(**{name: value for name, value in stored.items() if name in known})


def said(result: Result) -> str:
    """What came out, in a sentence."""
    if not result.guessed_of:
        return f"Taught. {result.reason}"
    return f"Taught: guessed {result.guessed:g} of {result.guessed_of} hidden picks. {result.reason}"


def _named(run: Run, lesson: TrainRequest, error: AnotherModel) -> D3POError:
    """The same error, naming what the graph shows to have changed."""
    then = run.groups.get(error.group_id).settings.get("graph", [])
    changed = graph.changed(then, lesson.carried)
    if not changed:
        return D3POError(
            f"This taste was sampled with a model that predicted otherwise (by {error.difference:.0%}), and the graph "
            "does not show why: perhaps a file was replaced.",
            "Bring the old one back, start a new taste, or choose 'reevaluate reference'.",
            error.safe,
        )
    return D3POError(
        f"This taste was sampled with {changed}.",
        "Set it back, start a new taste, or choose 'reevaluate reference'.",
        error.safe,
    )
