"""The nodes that train a LoRA from picks, load it, and compare before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from comfy_api.latest import io
from torch import Tensor

from ..d3po_core.app.cost import training_cost
from ..d3po_core.app.few_steps import method_warning
from ..d3po_core.app.loras import lora_of, publish
from ..d3po_core.app.runs import newest_sample_settings
from ..d3po_core.app.sampling import BeforeAfter, draw_before_after
from ..d3po_core.app.training import PicksRequest, has_round_to_go_on_with, waiting_for_picks, why_not_train
from ..d3po_core.errors import D3POError
from ..d3po_core.lora import import_lora, load_lora
from ..d3po_core.lora.weights import scale_weights
from ..d3po_core.rewards.description import note_features
from ..d3po_core.run import Group, Run
from ..d3po_core.run.panel import Panel, check_people
from ..d3po_core.settings import LoraSettings, SampleSettings, TrainSettings, fill_in
from ..d3po_core.training.methods import METHODS
from ..d3po_core.training.preferences import AnotherModel, collect_preferences
from ..d3po_core.training.round_trainer import stopped_round
from . import folders, graph
from .host import memory
from .host.checks import check_trainable
from .host.clip_vision import SeenByClip
from .host.model import HostModel, RunModel, shape_of, with_lora
from .host.process import within_host_memory
from .host.types import ClipVision, Patcher, Vae, Widgets
from .host_round import HostRound
from .host_round import train as train_host_round
from .inputs import TRAJECTORIES, Trajectories, inputs, memory_input, node_schema, settings, taste_input
from .progress import Working, seconds_per_image, write_into_node

# -- training ----------------------------------------------------------------------------------------------------------

TRAIN_WHEN = ("when I press Teach", "each time queued")
LESS_MEMORY = "Choose a smaller memory preset at the trainer if there is one, or begin a taste with smaller pictures."
STRENGTHS = {"gentle": 0.5, "normal": 1.0, "strong": 2.0}
"""Of the learning rate."""
WIDGETS = (
    *("level", "beta", "clip", "guided_loss", "reference", "reevaluate_reference", "epochs", "learning_rate", "batch"),
    *("warmup", "grad_clip", "label_smoothing", "judge", "drift_limit", "trained_steps", "micro_batch"),
    *("checkpointing", "rank", "alpha", "targets", "method", "draws", "lowest_sigma"),
    *("keep_prompt", "decay", "credit", "people", "people_weight"),
)
"""Settings in the order of the trainer's widgets. Saved workflows know widgets by their places: new ones go to the end.
The seed has none."""

asked_to_train: set[str] = set()
"""Tastes for which Teach was pressed and that have not been trained since."""
trained_with: dict[str, TrainSettings] = {}
"""By taste, the settings of the trainer that was last queued for it."""


class LoraTrainer(io.ComfyNode):
    """Train a LoRA from picks; see the help page."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        trades = "; ".join(f"{name}: {preset.trade}" for name, preset in memory.PRESETS.items())
        return node_schema(
            "D3PO_LoraTrainer",
            inputs=[
                io.Model.Input("model"),
                TRAJECTORIES.Input("trajectories", optional=True, lazy=True),
                io.Vae.Input("vae", optional=True),
                taste_input(),
                io.Combo.Input("train", options=list(TRAIN_WHEN), default=TRAIN_WHEN[0]),
                io.Combo.Input("teaching", options=list(STRENGTHS), default="normal"),
                memory_input(f"What to save memory for: {trades}."),
                *inputs(WIDGETS, TrainSettings, LoraSettings),
                io.ClipVision.Input("clip_vision", optional=True),
            ],
            outputs=[io.Model.Output(), io.LoraModel.Output(), io.LossMap.Output(), io.String.Output()],
            aliases=["teach", "finetune"],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, taste: str = "", train: str = "", **values: object) -> object:
        """Return what changes when there is something new to train on, or Teach was pressed."""
        return [
            (run.run_id, run.picks.revision, run.run_id in asked_to_train, run.rounds.current_policy())
            for run in folders.library().runs()
        ]

    @classmethod
    def check_lazy_status(
        cls, model: Patcher, taste: str, train: str, trajectories: Trajectories | None = None, **values: object
    ) -> list[str]:
        """Ask for what is upstream of the picks only where training follows it, so that Teach draws nothing."""
        run = cls._run(model, taste)
        pressed = run is not None and run.run_id in asked_to_train
        linked = graph.has_link(cls.hidden.prompt, cls.hidden.unique_id, "trajectories")
        return ["trajectories"] if train == TRAIN_WHEN[1] and linked and not pressed and trajectories is None else []

    @classmethod
    def _run(cls, model: Patcher, taste: str) -> Run | None:
        """Return the taste that is meant: by name, else the one that is wired here, else the checkpoint's own."""
        prompt, node = cls.hidden.prompt, str(cls.hidden.unique_id)
        checkpoint = graph.checkpoint_of(model, graph.upstream(prompt, node))
        if not folders.is_auto(taste):
            return folders.find(taste)
        wired = graph.taste_of(prompt, node)
        if not folders.is_auto(wired):
            return folders.find(wired)
        pressed = [
            run for run in folders.library().runs() if run.run_id in asked_to_train and run.model["name"] == checkpoint
        ]
        return pressed[0] if len(pressed) == 1 else folders.find(folders.AUTO, checkpoint)

    @classmethod
    def execute(
        cls,
        model: Patcher,
        taste: str,
        train: str,
        teaching: str,
        trajectories: Trajectories | None = None,
        vae: Vae | None = None,
        clip_vision: ClipVision | None = None,
        memory: str = memory.AUTO,
        **values: object,
    ) -> io.NodeOutput:
        run = cls._run(model, taste)
        if run is None:
            return trainer_outputs(model, None, waiting_for_picks(0))
        how = trained_with[run.run_id] = train_settings(model, teaching, memory, values)
        node, upstream = str(cls.hidden.unique_id), graph.upstream(cls.hidden.prompt, str(cls.hidden.unique_id))
        names = graph.names_of(graph.checkpoint_of(model, upstream), upstream)
        warning = method_warning(how.method, names, newest_sample_settings(run))
        reason, stopped = why_not_train(run, how), has_round_to_go_on_with(run)
        if train == TRAIN_WHEN[0] and run.run_id not in asked_to_train:
            ready = "A round was stopped: press Teach to go on." if stopped else reason or "Ready: press Teach."
            return trainer_outputs(model, run, followed_by(ready, warning))
        asked_to_train.discard(run.run_id)
        if reason and not stopped:
            return trainer_outputs(model, run, reason)
        say_memory(model, memory, node)
        others = (SeenByClip(clip_vision),) if clip_vision is not None and how.judge else ()
        request = PicksRequest(how, settings(LoraSettings, values), others=others)

        def work() -> tuple[str, list[float]]:
            round = round_by_picks(run, request, HostModel(model), vae, warning)
            for features in others:
                with Working(run, node, "checking") as working:
                    working.say("The CLIP vision looks at the pictures")
                    note_features(run, features)
            return train_host_round(round, node)

        try:
            return trainer_outputs(model, run, *within_host_memory(work, LESS_MEMORY))
        except AnotherModel as error:
            raise named(error, run, upstream) from None


def say_memory(model: Patcher, preset_name: str, node: str) -> None:
    """Write into the node what a memory preset that was chosen costs."""
    if preset_name != memory.AUTO:
        write_into_node(f"{preset_name}: {memory.preset_for(model, preset_name).trade}.", node)


def train_settings(model: Patcher, teaching: str, preset_name: str, values: Mapping[str, object]) -> TrainSettings:
    """Return the settings that the widgets, the strength and the memory preset add up to."""
    chosen: Widgets = memory.preset_for(model, preset_name).training(values)
    rate = fill_in(settings(TrainSettings, chosen, ("seed",))).learning_rate * STRENGTHS[teaching]
    return settings(TrainSettings, {**chosen, "learning_rate": rate}, ("seed",))


def trainer_outputs(model: Patcher, run: Run | None, text: str, losses: Sequence[float] | None = None) -> io.NodeOutput:
    """Return a trainer's outputs: the model as trained so far, and a sentence under the node."""
    file = run and run.rounds.lora(run.rounds.current_policy())
    if run and file and not folders.lora_name(run):  # it could not be copied when it was made
        publish(file, folders.lora_folder())
    tensors = load_lora(file)[0] if file else {}
    return io.NodeOutput(
        with_lora(model, tensors) if tensors else model,
        tensors,
        {"loss": list(torch.tensor(losses or [0.0]))},
        folders.lora_name(run) if run else "",
        ui={"text": [text]},
    )


def round_by_picks(run: Run, request: PicksRequest, host: HostModel, vae: Vae | None, warning: str) -> HostRound:
    """Return a round that learns from picks, once it is sure that it can be trained.

    Args:
        run: with picks.
        request: how.
        host: the MODEL.
        vae: for images of before and after; without one nothing is shown.
        warning: of the method, "" for none.

    Raises:
        D3POError: the MODEL cannot be trained, another round was stopped in the middle, or there is nothing to learn
            from.
    """
    check_trainable(host.patcher)
    panel = Panel.of(run, request.settings)
    if stopped_round(run, "train") is None:
        check_people(run, request.settings)
        collect_preferences(run, request.settings.method, panel)
    groups = run.groups.select(freed=False)
    if not request.settings.judge:
        judged = {judgement.group_id for judgement in panel.judgements(run)}
        groups = [group for group in groups if group.id in judged]
    ids = sorted({group.prompt_id for group in groups})
    prompts = [run.prompts.conditioning(i) for i in ids if run.prompts.has_conditioning(i)]  # imported ones may not
    sample = newest_sample_settings(run)
    notice = followed_by(training_notice(run, groups, request.settings), warning)

    def previews() -> tuple[RunModel, SampleSettings]:
        return RunModel(host.patcher, run, vae, sample.eta), sample

    return HostRound(run, request, host, prompts, shape_of(run), previews, notice)


def followed_by(text: str, sentence: str) -> str:
    """Return a text with a sentence behind it, if there is one."""
    return f"{text.removesuffix('.')}. {sentence}" if sentence else text


def training_notice(run: Run, groups: Sequence[Group], settings: TrainSettings) -> str:
    """Return what teaching from these groups will take, in words."""
    if METHODS[settings.method].rows == "images":
        return f"{len(groups)} groups of pictures"
    drawn = [group for group in groups if group.recorded and not group.held_out]
    steps = run.groups.trajectory(drawn[0].id)["cond"].shape[1] if drawn else 0
    seconds = seconds_per_image(run)
    each = None if seconds is None else seconds / newest_sample_settings(run).steps
    return training_cost(len(drawn), sum(group.candidates for group in drawn), steps, settings, each)


def named(error: AnotherModel, run: Run, upstream: graph.Upstream) -> D3POError:
    """Return the same error, naming what the graph shows to have changed."""
    difference = graph.difference(run.groups.get(error.group_id).settings.get("graph", []), upstream)
    do = "Set it back, start a new taste, or choose 'reevaluate reference'."
    if difference:
        return D3POError(f"This taste was sampled with {difference}.", do, error.safe)
    return D3POError(
        f"This taste was sampled with a model that predicted otherwise (by {error.difference:.0%}), and the graph does "
        "not show why: perhaps a file was replaced.",
        do.replace("Set it", "Bring the old one"),
        error.safe,
    )


# -- using what was trained --------------------------------------------------------------------------------------------


class LoadTasteLora(io.ComfyNode):
    """Put a taste's LoRA on a model; see the help page."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            "D3PO_LoadTasteLora",
            inputs=[
                io.Model.Input("model"),
                taste_input(),
                io.Int.Input("round", default=0, min=0, max=10_000),
                io.Float.Input("strength", default=1.0, min=-10.0, max=10.0, step=0.05),
            ],
            outputs=[io.Model.Output(), io.LoraModel.Output()],
            aliases=["lora loader"],
        )

    @classmethod
    def fingerprint_inputs(cls, **values: object) -> object:
        """Return what changes when a round is trained."""
        return trained_rounds()

    @classmethod
    def execute(cls, model: Patcher, taste: str, round: int, strength: float) -> io.NodeOutput:
        upstream = graph.upstream(cls.hidden.prompt, str(cls.hidden.unique_id))
        run = folders.get(taste, graph.checkpoint_of(model, upstream))
        tensors, _ = load_lora(lora_of(run, round))
        return io.NodeOutput(with_lora(model, tensors, strength), tensors)


FIRST_SEED = 2_000_000
"""Seeds of comparisons begin here, far from those of strips and blind checks."""


class PreferenceCompare(io.ComfyNode):
    """Draw before and after on the same prompts and seeds; see the help page."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            "D3PO_PreferenceCompare",
            inputs=[
                io.Model.Input("model"),
                io.Vae.Input("vae"),
                taste_input(),
                io.Int.Input("round", default=0, min=0, max=10_000),
                io.Float.Input("strength", default=1.0, min=0.0, max=2.0, step=0.05),
                io.Int.Input("prompts", default=4, min=1, max=64),
                io.Int.Input("seeds", default=2, min=1, max=16),
                io.LoraModel.Input("lora", optional=True),
            ],
            outputs=[io.Image.Output(), io.Image.Output(), io.Image.Output()],
            aliases=["before after", "xy", "grid"],
        )

    @classmethod
    def fingerprint_inputs(cls, **values: object) -> object:
        """Return what changes when a round is trained."""
        return trained_rounds()

    @classmethod
    def execute(
        cls,
        model: Patcher,
        vae: Vae,
        taste: str,
        round: int,
        strength: float,
        prompts: int,
        seeds: int,
        lora: Mapping[str, Tensor] | None = None,
    ) -> io.NodeOutput:
        upstream = graph.upstream(cls.hidden.prompt, str(cls.hidden.unique_id))
        run = folders.get(taste, graph.checkpoint_of(model, upstream))
        texts = sorted({prompt.text for prompt in run.prompts.to_show()})[:prompts]
        host, settings = RunModel(model, run, vae), newest_sample_settings(run)
        weights = scale_weights(import_lora(lora_of(run, round), host.denoiser.module), strength)
        with Working(run, str(cls.hidden.unique_id), "blind") as work:
            both = draw_before_after(host, weights, texts, seeds, settings, "hooks", work.drawn, FIRST_SEED)
        sides = (side.flatten(0, 1).movedim(1, -1) for side in (both.before, both.after))
        return io.NodeOutput(before_after_grid(both), *sides)


def trained_rounds() -> list[tuple[str, str, str]]:
    """Return which policy each taste stands at."""
    return [(run.run_id, run.name, run.rounds.current_policy()) for run in folders.library().runs()]


def before_after_grid(both: BeforeAfter, gap: int = 8) -> Tensor:
    """Return the host's IMAGE (1, H, W, 3): a row for each prompt, before on the left, after on the right."""
    before, after = (side.movedim(1, -2).flatten(-2) for side in (both.before, both.after))  # (P, 3, H, S * W)
    rows = torch.cat([before, torch.ones(*before.shape[:-1], gap), after], -1)
    return rows.movedim(1, -1).flatten(0, 1)[None]
