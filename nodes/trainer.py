"""D3PO LoRA Trainer: from picks to a LoRA, in place, on the host's own model."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from comfy_api.latest import io

from ..d3po_core.run import Run
from ..d3po_core.settings import LoraSettings, TrainSettings, resolved
from . import folders, loras, memory, upstream
from .host import with_lora
from .inputs import ALIASES, inputs, memory_input, settings, taste_input
from .sampler import Trajectories
from .teaching import Lesson, teach, waiting, waiting_for
from .working import say

WHEN = ("when I press Teach", "each time queued")
STRENGTHS = {"gentle": 0.5, "normal": 1.0, "strong": 2.0}
"""Of the learning rate."""

LATER = ("method", "draws", "lowest_sigma")
"""Settings that came later: after all others, because saved graphs know widgets by their places."""
EARLIER = tuple(item.name for item in dataclasses.fields(TrainSettings) if item.name not in LATER)

asked: set[str] = set()
"""Tastes for which Teach was pressed and that have not been taught since."""
methods: dict[str, str] = {}
"""By taste, the method of the trainer that was last queued for it."""


class LoraTrainer(io.ComfyNode):
    """See the help page."""

    @classmethod
    def define_schema(cls) -> Any:
        return io.Schema(
            node_id="D3PO_LoraTrainer",
            display_name="D3PO LoRA Trainer",
            category="D3PO",
            description="Teaches the model what you picked, and saves it as a LoRA.",
            search_aliases=[*ALIASES, "teach", "finetune"],
            inputs=[
                io.Model.Input("model", tooltip="The model that the pictures were drawn with."),
                Trajectories.Input(
                    "trajectories",
                    optional=True,
                    lazy=True,
                    tooltip="From the Preference Collector: teach after it, in the same press of Queue. Teach itself "
                    "never draws anything.",
                ),
                io.Vae.Input(
                    "vae", optional=True, tooltip="Draws before and after once it is taught, and a blind check."
                ),
                taste_input("Name of the taste, as at the sampler."),
                io.Combo.Input("train", options=list(WHEN), default=WHEN[0], tooltip="When to teach."),
                io.Combo.Input(
                    "teaching",
                    options=list(STRENGTHS),
                    default="normal",
                    tooltip="How strongly each pick is taken to heart.",
                ),
                memory_input("; ".join(f"{name}: {preset.trade}" for name, preset in memory.PRESETS.items())),
                *inputs(TrainSettings, (), ("seed", *LATER)),
                *inputs(LoraSettings, ()),
                *inputs(TrainSettings, (), EARLIER),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The model with what was taught."),
                io.LoraModel.Output(display_name="lora"),
                io.LossMap.Output(display_name="loss map"),
                io.String.Output(display_name="lora name", tooltip="As the host's LoRA lists call it."),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, taste: str = "", train: str = "", **values: Any) -> Any:
        """Changes when there is something new to teach, or Teach was pressed."""
        return [
            (run.run_id, run.pick_revision, run.run_id in asked, run.current_policy()) for run in folders.shelf().runs()
        ]

    @classmethod
    def check_lazy_status(cls, model: Any, taste: str, train: str, trajectories: Any = None, **values: Any) -> Any:
        """What is upstream of the picks is asked for only where teaching follows it, so that Teach draws nothing."""
        run = cls._run(model, taste)
        pressed = run is not None and run.run_id in asked
        linked = upstream.has_link(cls.hidden.prompt, cls.hidden.unique_id, "trajectories")
        return ["trajectories"] if train == WHEN[1] and linked and not pressed and trajectories is None else []

    @classmethod
    def _run(cls, model: Any, taste: str) -> Run | None:
        """The taste that is meant: by name, else the one that is wired here, else the checkpoint's own."""
        graph, node = cls.hidden.prompt, str(cls.hidden.unique_id)
        checkpoint = upstream.checkpoint_of(model, upstream.carried(graph, node))
        if taste.strip() not in ("", folders.AUTO):
            return folders.find(taste)
        wired = upstream.taste_of(graph, node)
        if wired.strip() not in ("", folders.AUTO):
            return folders.find(wired)
        pressed = [run for run in folders.shelf().runs() if run.run_id in asked and run.model["name"] == checkpoint]
        return pressed[0] if len(pressed) == 1 else folders.find(folders.AUTO, checkpoint)

    @classmethod
    def execute(
        cls,
        model: Any,
        taste: str,
        train: str,
        teaching: str,
        trajectories: Any = None,
        vae: Any = None,
        memory: str = memory.AUTO,
        **values: Any,
    ) -> Any:
        run = cls._run(model, taste)
        if run is None:
            return passed(model, None, waiting_for(0))
        method = methods[run.run_id] = values.get("method", TrainSettings.method)
        wanting = waiting(run, method)
        if train == WHEN[0] and run.run_id not in asked:
            open_round = run.open_round() is not None
            ready = "A round was stopped: press Teach to go on." if open_round else wanting or "Ready: press Teach."
            return passed(model, run, ready)
        asked.discard(run.run_id)
        if run.open_round() is None and wanting:
            return passed(model, run, wanting)
        node = str(cls.hidden.unique_id)
        lesson = Lesson(
            settings=train_settings(model, teaching, memory, values, node),
            lora=settings(LoraSettings, values),
            carried=upstream.carried(cls.hidden.prompt, node),
            vae=vae,
            node=node,
        )
        said, losses = teach(model, run, lesson)
        return passed(model, run, said, losses)


def train_settings(model: Any, teaching: str, wanted: str, values: dict[str, Any], node: str) -> TrainSettings:
    """The settings that the widgets, the strength and the memory preset add up to."""
    preset = memory.preset_for(model, wanted)
    if wanted != memory.AUTO:
        say(f"{wanted}: {preset.trade}.", node)
    chosen = resolved(settings(TrainSettings, preset.training(values), ("seed",)))
    rate = chosen.learning_rate * STRENGTHS[teaching]
    return settings(TrainSettings, {**preset.training(values), "learning_rate": rate}, ("seed",))


def passed(model: Any, run: Run | None, text: str, losses: list[float] | None = None) -> Any:
    """The node's outputs: the model as taught so far, and a sentence under the node."""
    file = run and run.lora(run.current_policy())
    if run and file and not loras.listed(run):  # it could not be copied when it was made
        loras.publish(run, file)
    tensors = loras.read(file) if file else {}
    return io.NodeOutput(
        with_lora(model, tensors) if tensors else model,
        tensors,
        {"loss": list(torch.tensor(losses or [0.0]))},
        loras.listed(run) if run else "",
        ui={"text": [text]},
    )
