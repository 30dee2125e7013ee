"""The nodes of rewards: choose one, fit one to picks, and train a LoRA by its gradient."""

from __future__ import annotations

import os
import re
from dataclasses import fields
from pathlib import Path

from comfy_api.latest import io

from ..d3po_core.app.sampling import add_prompts
from ..d3po_core.app.training import RewardRequest, reward_seed
from ..d3po_core.diffusion.rollout import make_plan
from ..d3po_core.errors import D3POError
from ..d3po_core.rewards import REWARDS, Reward, get_reward, require_differentiable, reward_of, weighted_sum
from ..d3po_core.rewards.features import STATISTICS
from ..d3po_core.rewards.judge import fit_judge, save_judge
from ..d3po_core.run import Run
from ..d3po_core.run.panel import Panel
from ..d3po_core.settings import LoraSettings, RewardSettings, SampleSettings, from_stored
from ..d3po_core.training.round_trainer import stopped_round
from . import folders, graph, host_round
from .drawing import begin_run, check_same_kind
from .host import memory
from .host.checks import check_trainable
from .host.clip_vision import HostClip
from .host.model import DifferentiableModel, HostModel, RunModel
from .host.process import within_host_memory
from .host.types import Clip, ClipVision, Cond, Latent, Patcher, Vae, Widgets
from .inputs import (
    ADVANCED,
    REWARD,
    TRAJECTORIES,
    Trajectories,
    inputs,
    memory_input,
    node_schema,
    prompts_input,
    sample_settings,
    schedule_input,
    settings,
    taste_input,
)
from .progress import write_into_node
from .prompts import encoder, label, listed, text_of
from .train import trained_with, trainer_outputs

# -- choosing ----------------------------------------------------------------------------------------------------------

REWARD_NAMES = [name for name in REWARDS if not name.startswith("garden")]
"""Those that need no file and are not about the core's own little model."""
FILE_NAME = re.compile(r":\s*(.+?)\s*(?: \+ |$)")
"""In a reward that is written: what it reads."""


class RewardNode(io.ComfyNode):
    """Choose what a program likes; see the help page."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            "D3PO_Reward",
            inputs=[
                io.Combo.Input("reward", options=REWARD_NAMES, default="warmth"),
                io.Float.Input("weight", default=1.0, min=-1000.0, max=1000.0, step=0.01),
                REWARD.Input("plus", optional=True),
                io.String.Input("written", default="", **ADVANCED),
            ],
            outputs=[REWARD.Output()],
            aliases=["scorer", "aesthetic", "pickscore", "hpsv2", "draft"],
            hidden=(),
        )

    @classmethod
    def fingerprint_inputs(cls, written: str = "", **values: object) -> object:
        """Return what changes when a file that is named does."""
        return changed_on_disk(written)

    @classmethod
    def execute(cls, reward: str, weight: float, plus: Reward | None = None, written: str = "") -> io.NodeOutput:
        if weight == 0:
            raise D3POError("The weight of this reward is 0, so it says nothing.", "Choose another weight.")
        own = (weight, get_reward(written.strip() or reward))
        return io.NodeOutput(weighted_sum([own] if plus is None else [(1.0, reward_of(plus)), own]))


def changed_on_disk(written: str) -> list[int]:
    """Return when what a text names was last changed; 0 for what is not there."""
    paths = [Path(os.path.expanduser(name)) for name in FILE_NAME.findall(written)]
    return [path.stat().st_mtime_ns if path.exists() else 0 for path in paths]


# -- fitting -----------------------------------------------------------------------------------------------------------

REWARD_FILE = "reward.safetensors"


class RewardFromPicks(io.ComfyNode):
    """Fit a reward to picks; see the help page."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            "D3PO_RewardFromPicks",
            inputs=[
                TRAJECTORIES.Input("trajectories", optional=True),
                taste_input(),
                io.String.Input("features", default=STATISTICS, **ADVANCED),
                io.ClipVision.Input("clip_vision", optional=True),
            ],
            outputs=[REWARD.Output(), io.String.Output()],
            aliases=["reward model", "bradley-terry", "draft"],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, features: str = "", **values: object) -> object:
        """Return what changes with every pick."""
        revisions = [(run.run_id, run.name, run.picks.revision) for run in folders.library().runs()]
        return revisions, changed_on_disk(features)

    @classmethod
    def execute(
        cls,
        taste: str,
        trajectories: Trajectories | None = None,
        features: str = STATISTICS,
        clip_vision: ClipVision | None = None,
    ) -> io.NodeOutput:
        run = folders.library().run(trajectories["run"]) if trajectories else folders.get(taste)
        write_into_node(f"Learning from the picks of '{run.name}'", str(cls.hidden.unique_id))
        panel = Panel.of(run, trained_with.get(run.run_id))
        if clip_vision is not None:
            judge = fit_judge(run, HostClip(clip_vision), panel)
            return io.NodeOutput(judge.reward(), "", ui={"text": [str(judge.facts)]})
        judge = fit_judge(run, features.strip() or STATISTICS, panel)
        file = save_judge(judge, run.folder / REWARD_FILE)  # refuses what knows no better than chance
        written = f"picks:{file}"
        return io.NodeOutput(get_reward(written), written, ui={"text": [str(judge.facts)]})


# -- training ----------------------------------------------------------------------------------------------------------

DRAFT_WHEN = ("each time queued", "finish a stopped round", "not now")
LESS_MEMORY = "Choose a smaller memory preset, 'draft-lv' with fewer noises, a tile of 256 or so, or smaller pictures."
OF_SAMPLING = ("steps", "guidance_scale", "eta")
WIDGETS = (
    *("variant", "updates", "last", "noises", "batch", "learning_rate", "warmup", "grad_clip", "drift_limit", "watch"),
    *("micro_batch", "checkpointing", "tile", "rank", "alpha", "targets"),
)
"""Settings in the order of the trainer's widgets. Saved workflows know widgets by their places, and others
follow these: a new one is in `LAST_WIDGETS`."""
LAST_WIDGETS = ("keep_prompt",)
"""Settings whose widgets are the node's last."""
LEFT_OUT = tuple(item.name for item in fields(SampleSettings) if item.name not in (*OF_SAMPLING, "negative"))
"""Settings of sampling that keep their defaults."""


class DraftLoraTrainer(io.ComfyNode):
    """Train a LoRA by the gradient of a reward; see the help page."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            "D3PO_DraftLoraTrainer",
            inputs=[
                io.Model.Input("model"),
                io.Conditioning.Input("positive"),
                io.Conditioning.Input("negative"),
                io.Latent.Input("latent"),
                io.Vae.Input("vae"),
                REWARD.Input("reward"),
                io.Clip.Input("clip", optional=True),
                taste_input(),
                io.Combo.Input("train", options=list(DRAFT_WHEN), default=DRAFT_WHEN[0]),
                *inputs(OF_SAMPLING, SampleSettings, shown=("steps", "guidance_scale")),
                schedule_input(),
                *inputs(WIDGETS, RewardSettings, LoraSettings, shown=("variant", "updates")),
                memory_input(),
                io.Boolean.Input("before_and_after", default=True, **ADVANCED),
                prompts_input(),
                *inputs(LAST_WIDGETS, RewardSettings),
            ],
            outputs=[io.Model.Output(), io.LoraModel.Output(), io.LossMap.Output(), io.String.Output()],
            aliases=["draft", "reward", "refl", "aesthetic", "finetune"],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls,
        model: Patcher,
        positive: Cond,
        negative: Cond,
        latent: Latent,
        vae: Vae,
        reward: Reward,
        taste: str,
        train: str,
        clip: Clip | None = None,
        prompts: str = "",
        **values: object,
    ) -> io.NodeOutput:
        prompt, node, finish = cls.hidden.prompt, str(cls.hidden.unique_id), train == DRAFT_WHEN[1]
        if not finish:  # what was learnt is finished whatever is connected
            reward = require_differentiable(reward_of(reward))
        check_trainable(model, latent, positive)
        sample = sample_settings({**values, "negative": text_of(prompt, node, "negative")}, LEFT_OUT)
        host = DifferentiableModel(model, latent, vae, eta=sample.eta)
        host.identity = graph.checkpoint_of(model, graph.upstream(prompt, node))
        run = folders.find(taste, host.identity)
        if train == DRAFT_WHEN[2]:
            return trainer_outputs(model, run, "Not taught now.")
        if finish and (run is None or run.rounds.stopped() is None):
            return trainer_outputs(model, run, "Nothing to finish.")
        make_plan(host.denoiser, sample)  # refuses what cannot be drawn, before a taste is begun
        texts = listed(prompts) or [text_of(prompt, node, "positive")]
        encode = encoder(clip, positive) if prompts.strip() else lambda text: positive
        run = run or begin_run(taste, host, sample)
        check_own(run, host)
        labels = [label(run, host, text, encode(text), negative, sample.negative) for text in texts]
        ids = add_prompts(run, host, labels, sample.negative)
        how = (reward_settings(model, run, values), settings(LoraSettings, values), sample)
        request = RewardRequest(*how, None if finish else reward, ids)

        def work() -> tuple[str, list[float]]:
            return host_round.train(
                round_by_reward(run, request, host, bool(values.get("before_and_after", True))), node
            )

        return trainer_outputs(model, run, *within_host_memory(work, LESS_MEMORY))


def reward_settings(model: Patcher, run: Run, values: Widgets) -> RewardSettings:
    """Return how a round is trained, with another seed in every round, the same if it is done again."""
    micro_batch = values.get("micro_batch") or memory.preset_for(model, values.get("memory", memory.AUTO)).micro_batch
    return settings(RewardSettings, {**values, "micro_batch": micro_batch, "seed": reward_seed(run)})


def check_own(run: Run, host: HostModel) -> None:
    """Refuse a taste of another checkpoint: nothing that was recorded would show it.

    Raises:
        D3POError: it was begun with another.
    """
    check_same_kind(run, host)
    if run.model["name"] != host.identity:
        raise D3POError(
            f"The taste '{run.name}' was begun with {run.model['name']}, and this model is {host.identity}.",
            "Write another name for the taste of this one.",
            "What was learnt so far is saved.",
        )


def round_by_reward(
    run: Run, request: RewardRequest, host: DifferentiableModel, before_and_after: bool
) -> host_round.HostRound:
    """Return a round that learns from a reward.

    Args:
        run: the taste.
        request: how; a round that was stopped goes on with the prompts and sizes that it was begun with.
        host: the MODEL and its VAE, whose decoder passes gradients on.
        before_and_after: draw images of before and after for the gallery, and a blind check.

    Raises:
        D3POError: a round by picks was stopped in the middle.
    """
    stopped, prompts, shape = stopped_round(run, "reward"), run.prompts, host.latent_shape()
    ids = request.prompts if stopped is None else stopped.settings["prompts"]
    sample = request.sample if stopped is None else from_stored(SampleSettings, stopped.settings["sample"])
    return host_round.HostRound(
        run,
        request,
        host,
        prompts=[prompts.conditioning(prompt_id) for prompt_id in ids if prompts.has_conditioning(prompt_id)],
        shape=shape,
        previews=(lambda: (RunModel(host.patcher, run, host.vae, sample.eta, shape), sample))
        if before_and_after
        else None,
        notice=f"Measuring {request.reward.name} before" if request.reward else "Measuring drift",
    )
