"""D3PO LoRA Trainer: from picks to a LoRA, in place, on the host's own model."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import torch
from comfy_api.latest import io

from ..d3po_core.gallery.actions import FEWEST_PICKS
from ..d3po_core.run import Run
from ..d3po_core.settings import LoraSettings, TrainSettings
from ..d3po_core.training.keep import keep
from ..d3po_core.training.trainer import Trainer
from . import folders, loras
from .host import HostModel, Progress, checkpoint, host_sampling, with_lora
from .inputs import inputs, settings

WHEN = ("when I press Teach", "each time queued")
STRENGTHS = {"gentle": 0.5, "normal": 1.0, "strong": 2.0}
"""Of the learning rate."""

asked: set[str] = set()
"""Tastes for which Teach was pressed and that have not been taught since."""


class LoraTrainer(io.ComfyNode):
    """See the help page."""

    @classmethod
    def define_schema(cls) -> Any:
        return io.Schema(
            node_id="D3PO_LoraTrainer",
            display_name="D3PO LoRA Trainer",
            category="D3PO",
            description="Teaches the model what you picked, and saves it as a LoRA.",
            search_aliases=["taste", "favourite", "favorite", "rlhf", "dpo", "preference", "train lora", "d3po"],
            inputs=[
                io.Model.Input("model", tooltip="The model that the pictures were drawn with."),
                io.String.Input("taste", default=folders.AUTO, tooltip="Name of the taste, as at the sampler."),
                io.Combo.Input("train", options=list(WHEN), default=WHEN[0], tooltip="When to teach."),
                io.Combo.Input(
                    "teaching",
                    options=list(STRENGTHS),
                    default="normal",
                    tooltip="How strongly each pick is taken to heart.",
                ),
                *inputs(TrainSettings, (), ("seed",)),
                *inputs(LoraSettings, ()),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The model with what was taught."),
                io.LoraModel.Output(display_name="lora"),
                io.LossMap.Output(display_name="loss map"),
                io.String.Output(display_name="lora name", tooltip="As the host's LoRA lists call it."),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, taste: str = "", train: str = "", **values: Any) -> Any:
        """Changes when there is something new to teach, or Teach was pressed."""
        return [
            (run.run_id, run.pick_revision, run.run_id in asked, len(run.rounds())) for run in folders.shelf().runs()
        ]

    @classmethod
    def execute(cls, model: Any, taste: str, train: str, teaching: str, **values: Any) -> Any:
        run = folders.find(taste, checkpoint(model))
        if run is None:
            return passed(model, None, "Nothing was drawn for this taste yet.")
        if train == WHEN[0] and run.run_id not in asked:
            return passed(model, run, waiting(run) or "Ready: press Teach.")
        asked.discard(run.run_id)
        if run.open_round() is None and (said := waiting(run)):
            return passed(model, run, said)
        chosen = settings(TrainSettings, values, ("seed",))
        rate = chosen.learning_rate * STRENGTHS[teaching]
        chosen = settings(TrainSettings, {**values, "learning_rate": rate}, ("seed",))
        losses = teach(model, run, chosen, settings(LoraSettings, values))
        return passed(model, run, "Taught.", losses)


def waiting(run: Run) -> str:
    """Why there is nothing to teach; "" if there is."""
    usable = run.counts("").usable
    if usable < FEWEST_PICKS:
        return f"Waiting for picks: {usable} of {FEWEST_PICKS}"
    return "" if run.untaught() else "Nothing new to teach: pick some more."


def teach(model: Any, run: Run, chosen: TrainSettings, lora: LoraSettings) -> list[float]:
    """One round; the losses of its updates. Interrupted, it keeps its state, and teaching again goes on from there."""
    host = HostModel(model)
    trainer = Trainer(run, host.denoiser, chosen, lora, attachment="hooks")
    picked = run.groups(picked=True)
    prompts = [run.conditioning(prompt_id) for prompt_id in sorted({group.prompt_id for group in picked})]
    shape = run.trajectory(next(group.id for group in picked if not group.freed))["latents"].shape[1:]
    losses: list[float] = []

    def work() -> None:
        progress = Progress()
        with closing(trainer.steps()) as reports:
            for report in reports:
                losses.append(report.training.loss)
                progress.at(report.update, report.total)

    host_sampling(host.denoiser, prompts, shape, work)
    loras.publish(run, keep(trainer))
    return losses


def passed(model: Any, run: Run | None, text: str, losses: list[float] | None = None) -> Any:
    """The node's outputs: the model as taught so far, and a sentence under the node."""
    file = run and run.lora(run.current_policy())
    tensors = loras.read(file) if file else {}
    values = torch.tensor(losses or [0.0])
    name = loras.listed(run) if run else ""
    return io.NodeOutput(
        with_lora(model, tensors) if tensors else model,
        tensors,
        {"loss": list(values)},
        name,
        ui={"text": [text]},
    )
