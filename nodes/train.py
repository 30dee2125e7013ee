"""Preference Compare: before and after on the same prompts and seeds, side by side."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from comfy_api.latest import io
from torch import Tensor

from ..d3po_core.errors import D3POError
from ..d3po_core.evaluation.images import deterministic, draw
from ..d3po_core.lora import import_lora
from ..d3po_core.lora.attach import applied
from ..d3po_core.lora.weights import scale_weights
from ..d3po_core.run import Run
from ..d3po_core.settings import LoraSettings, TrainSettings, fill_in
from . import folders, graph, loras
from .host import memory
from .host.model import RunModel, with_lora
from .inputs import ALIASES, inputs, memory_input, settings, taste_input
from .pick import Trajectories
from .progress import Working, write_into_node
from .training import TrainRequest, sample_settings, waiting, waiting_for

FIRST_SEED = 2_000_000
"""Seeds of comparisons begin here, far from those of strips and blind checks."""


class PreferenceCompare(io.ComfyNode):
    """See the help page."""

    @classmethod
    def define_schema(cls) -> Any:
        return io.Schema(
            node_id="D3PO_PreferenceCompare",
            display_name="Preference Compare",
            category="D3PO",
            description="Draws the taste's prompts before and after teaching, on the same seeds.",
            search_aliases=[*ALIASES, "before after", "xy", "grid"],
            inputs=[
                io.Model.Input(
                    "model", tooltip="The model that the pictures were drawn with, without the taste's LoRA."
                ),
                io.Vae.Input("vae", tooltip="Turns what is drawn into pictures."),
                taste_input(),
                io.Int.Input("round", default=0, min=0, max=10_000, tooltip="Which round; 0 is the latest."),
                io.Float.Input(
                    "strength", default=1.0, min=0.0, max=2.0, step=0.05, tooltip="Of the LoRA, for the pictures after."
                ),
                io.Int.Input("prompts", default=4, min=1, max=64, tooltip="How many of the taste's prompts, at most."),
                io.Int.Input("seeds", default=2, min=1, max=16, tooltip="Pictures for each prompt."),
                io.LoraModel.Input(
                    "lora",
                    optional=True,
                    tooltip="From the trainer: compare after it, in the same press of Queue.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="grid", tooltip="A row for each prompt: before left, after right."),
                io.Image.Output(display_name="before"),
                io.Image.Output(display_name="after"),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt],
        )

    @classmethod
    def fingerprint_inputs(cls, **values: Any) -> Any:
        """Changes when a round is taught."""
        return [(run.run_id, run.name, run.rounds.current_policy()) for run in folders.shelf().runs()]

    @classmethod
    def execute(
        cls, model: Any, vae: Any, taste: str, round: int, strength: float, prompts: int, seeds: int, lora: Any = None
    ) -> Any:
        carried = graph.carried(cls.hidden.prompt, str(cls.hidden.unique_id))
        run = folders.known(taste, graph.checkpoint_of(model, carried))
        file = lora_of_round(run, round)
        texts = sorted({prompt.text for prompt in run.prompts.to_show()})[:prompts]
        with Working(run, str(cls.hidden.unique_id), "blind") as work:
            before, after = draw_both(run, RunModel(model, run, vae), file, strength, texts, seeds, work)
        return io.NodeOutput(
            before_after_grid(before, after), *(side.flatten(0, 1).movedim(1, -1) for side in (before, after))
        )


def draw_both(
    run: Run, model: RunModel, file: Any, strength: float, texts: list[str], seeds: int, work: Working
) -> tuple[Tensor, Tensor]:
    """Pictures before and after, (prompts, seeds, 3, H, W) each."""
    settings = sample_settings(run)
    weights = scale_weights(import_lora(file, model.denoiser.module), strength)
    total = 2 * len(texts) * seeds
    sides: list[Tensor] = []
    for weight in (None, weights):
        parts: list[Tensor] = []
        plan = deterministic(model, settings)
        with applied(model.denoiser, weight, "hooks"):
            for at, images in draw(model, plan, texts, seeds, settings, first_seed=FIRST_SEED):
                parts.append(images)
                work.at(len(sides) * total // 2 + at + len(images), total, "Drawing before and after")
        sides.append(torch.cat(parts).unflatten(0, (len(texts), seeds)))
    return sides[0], sides[1]


def before_after_grid(before: Tensor, after: Tensor, gap: int = 8) -> Tensor:
    """The host's IMAGE (1, H, W, 3): a row for each prompt, before on the left, after on the right."""
    rows = []
    for prompt in range(len(before)):
        sides = [torch.cat(list(side[prompt]), -1) for side in (before, after)]
        bar = torch.ones(3, sides[0].shape[1], gap)
        rows.append(torch.cat([sides[0], bar, sides[1]], -1))
    return torch.cat(rows, 1).movedim(0, -1)[None]


class LoadTasteLora(io.ComfyNode):
    """See the help page."""

    @classmethod
    def define_schema(cls) -> Any:
        return io.Schema(
            node_id="D3PO_LoadTasteLora",
            display_name="Load Taste LoRA",
            category="D3PO",
            description="Puts what a taste has taught on a model: the newest round, or an earlier one.",
            search_aliases=[*ALIASES, "lora loader"],
            inputs=[
                io.Model.Input("model", tooltip="The model that was taught, or another of its family."),
                taste_input(),
                io.Int.Input("round", default=0, min=0, max=10_000, tooltip="Which round; 0 is the latest."),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-10.0,
                    max=10.0,
                    step=0.05,
                    tooltip="1 is as it was taught, 0 is the model without it.",
                ),
            ],
            outputs=[io.Model.Output(display_name="model"), io.LoraModel.Output(display_name="lora")],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt],
        )

    @classmethod
    def fingerprint_inputs(cls, **values: Any) -> Any:
        """Changes when a round is taught."""
        return [(run.run_id, run.name, run.rounds.current_policy()) for run in folders.shelf().runs()]

    @classmethod
    def execute(cls, model: Any, taste: str, round: int, strength: float) -> Any:
        carried = graph.carried(cls.hidden.prompt, str(cls.hidden.unique_id))
        run = folders.known(taste, graph.checkpoint_of(model, carried))
        tensors = loras.read(lora_of_round(run, round))
        return io.NodeOutput(with_lora(model, tensors, strength), tensors)


def lora_of_round(run: Run, round: int) -> Any:
    """The LoRA file of a round, or for 0 of the one that the taste stands at."""
    file = run.rounds.lora(str(round) if round else run.rounds.current_policy())
    if file is None:
        raise D3POError(f"The taste '{run.name}' was not taught yet.", "Pick favourites, then press Teach.")
    return file


TRAIN_WHEN = ("when I press Teach", "each time queued")
STRENGTHS = {"gentle": 0.5, "normal": 1.0, "strong": 2.0}
"""Of the learning rate."""

LATER = ("method", "draws", "lowest_sigma")
"""Settings that came later: after all others, because saved graphs know widgets by their places."""
EARLIER = tuple(item.name for item in dataclasses.fields(TrainSettings) if item.name not in LATER)

asked_to_train: set[str] = set()
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
                io.Combo.Input("train", options=list(TRAIN_WHEN), default=TRAIN_WHEN[0], tooltip="When to teach."),
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
            (run.run_id, run.picks.revision, run.run_id in asked_to_train, run.rounds.current_policy())
            for run in folders.shelf().runs()
        ]

    @classmethod
    def check_lazy_status(cls, model: Any, taste: str, train: str, trajectories: Any = None, **values: Any) -> Any:
        """What is upstream of the picks is asked for only where teaching follows it, so that Teach draws nothing."""
        run = cls._run(model, taste)
        pressed = run is not None and run.run_id in asked_to_train
        linked = graph.has_link(cls.hidden.prompt, cls.hidden.unique_id, "trajectories")
        return ["trajectories"] if train == TRAIN_WHEN[1] and linked and not pressed and trajectories is None else []

    @classmethod
    def _run(cls, model: Any, taste: str) -> Run | None:
        """The taste that is meant: by name, else the one that is wired here, else the checkpoint's own."""
        prompt, node = cls.hidden.prompt, str(cls.hidden.unique_id)
        checkpoint = graph.checkpoint_of(model, graph.carried(prompt, node))
        if taste.strip() not in ("", folders.AUTO):
            return folders.find(taste)
        wired = graph.taste_of(prompt, node)
        if wired.strip() not in ("", folders.AUTO):
            return folders.find(wired)
        pressed = [
            run for run in folders.shelf().runs() if run.run_id in asked_to_train and run.model["name"] == checkpoint
        ]
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
        if train == TRAIN_WHEN[0] and run.run_id not in asked_to_train:
            open_round = run.rounds.open() is not None
            ready = "A round was stopped: press Teach to go on." if open_round else wanting or "Ready: press Teach."
            return passed(model, run, ready)
        asked_to_train.discard(run.run_id)
        if run.rounds.open() is None and wanting:
            return passed(model, run, wanting)
        node = str(cls.hidden.unique_id)
        lesson = TrainRequest(
            settings=train_settings(model, teaching, memory, values, node),
            lora=settings(LoraSettings, values),
            carried=graph.carried(cls.hidden.prompt, node),
            vae=vae,
            node=node,
        )
        said, losses = train(model, run, lesson)
        return passed(model, run, said, losses)


def train_settings(model: Any, teaching: str, wanted: str, values: dict[str, Any], node: str) -> TrainSettings:
    """The settings that the widgets, the strength and the memory preset add up to."""
    preset = memory.preset_for(model, wanted)
    if wanted != memory.AUTO:
        write_into_node(f"{wanted}: {preset.trade}.", node)
    chosen = fill_in(settings(TrainSettings, preset.training(values), ("seed",)))
    rate = chosen.learning_rate * STRENGTHS[teaching]
    return settings(TrainSettings, {**preset.training(values), "learning_rate": rate}, ("seed",))


def passed(model: Any, run: Run | None, text: str, losses: list[float] | None = None) -> Any:
    """The node's outputs: the model as taught so far, and a sentence under the node."""
    file = run and run.rounds.lora(run.rounds.current_policy())
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
