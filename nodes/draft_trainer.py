"""DRaFT LoRA Trainer: from a differentiable reward to a LoRA, in place, on the host's own model and VAE."""

from __future__ import annotations

import dataclasses
from typing import Any

from comfy_api.latest import io

from ..d3po_core.app.sampling import add_prompts
from ..d3po_core.diffusion.rollout import make_plan
from ..d3po_core.errors import D3POError
from ..d3po_core.rewards import require_differentiable
from ..d3po_core.run import Run
from ..d3po_core.settings import LoraSettings, RewardSettings, SampleSettings
from . import folders, memory, prompts, upstream
from .drawing import begin, check_same_kind
from .inputs import ALIASES, inputs, memory_input, sample_settings, schedule_input, settings, taste_input
from .reward_teaching import RewardLesson, RewardModel, teach_by_reward
from .rewards import RewardType
from .support import check_teachable
from .trainer import passed

WHEN = ("each time queued", "finish a stopped round", "not now")
OF_SAMPLING = ("steps", "guidance_scale", "eta")
NOT_OF_SAMPLING = tuple(item.name for item in dataclasses.fields(SampleSettings) if item.name not in OF_SAMPLING)


class DraftLoraTrainer(io.ComfyNode):
    """See the help page."""

    @classmethod
    def define_schema(cls) -> Any:
        return io.Schema(
            node_id="D3PO_DraftLoraTrainer",
            display_name="DRaFT LoRA Trainer",
            category="D3PO",
            description="Teaches the model what a reward likes, by the reward's gradient, and saves it as a LoRA.",
            search_aliases=[*ALIASES, "draft", "reward", "refl", "aesthetic", "finetune"],
            inputs=[
                io.Model.Input("model", tooltip="The model that is to learn, with whatever it carries."),
                io.Conditioning.Input("positive", tooltip="What to draw."),
                io.Conditioning.Input("negative", tooltip="What not to draw."),
                io.Latent.Input("latent", tooltip="Size of the pictures; of a batch the first one is used."),
                io.Vae.Input("vae", tooltip="Turns what is drawn into the pictures that the reward sees."),
                RewardType.Input("reward", tooltip="From a Reward node or Reward From Picks; differentiable."),
                io.Clip.Input("clip", optional=True, tooltip="Reads the prompt list; not needed without one."),
                taste_input("Name of the taste that keeps what is learnt; auto is one for each checkpoint."),
                io.Combo.Input(
                    "train",
                    options=list(WHEN),
                    default=WHEN[0],
                    tooltip="When to teach. A round that was stopped goes on, or is finished as it is; not now: the "
                    "model passes as taught so far.",
                ),
                *inputs(SampleSettings, OF_SAMPLING[:2], NOT_OF_SAMPLING),
                schedule_input(),
                *inputs(RewardSettings, ("variant", "updates"), ("seed",)),
                *inputs(LoraSettings, ()),
                memory_input("with 8 GB one picture at a time, else as many as fit"),
                io.Boolean.Input(
                    "before_and_after",
                    display_name="before and after",
                    default=True,
                    optional=True,
                    advanced=True,
                    tooltip="Draw pictures of before and after once it is taught, and a blind check, for the gallery.",
                ),
                io.String.Input(
                    "prompts",
                    default="",
                    multiline=True,
                    optional=True,
                    advanced=True,
                    tooltip="A list of prompts, one a line, instead of the positive one; {cat|dog} stands for both.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The model with what was taught."),
                io.LoraModel.Output(display_name="lora"),
                io.LossMap.Output(display_name="loss map", tooltip="Minus the reward of every update, for Plot Loss."),
                io.String.Output(display_name="lora name", tooltip="As the host's LoRA lists call it."),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        positive: Any,
        negative: Any,
        latent: Any,
        vae: Any,
        reward: Any,
        taste: str,
        train: str,
        clip: Any = None,
        **values: Any,
    ) -> Any:
        node, graph = str(cls.hidden.unique_id), cls.hidden.prompt
        if train != WHEN[1]:  # what was learnt is finished whatever is connected
            require_differentiable(reward)
        check_teachable(model, latent, positive)
        against, written = prompts.text_of(graph, node, "negative"), values.pop("prompts", "")
        sample = sample_settings({**values, "negative": against}, tuple(set(NOT_OF_SAMPLING) - {"negative"}))
        host = RewardModel(model, latent, vae, eta=sample.eta)
        host.identity = upstream.checkpoint_of(model, upstream.carried(graph, node))
        run = folders.find(taste, host.identity)
        stopped = run is not None and run.stopped_round() is not None
        if train == WHEN[2] or (train == WHEN[1] and not stopped):
            return passed(model, run, "Nothing to finish." if train == WHEN[1] else "Not taught now.")
        make_plan(host.denoiser, sample)  # what cannot be drawn is told before a taste is begun
        texts = prompts.listed(written) or [prompts.text_of(graph, node, "positive")]
        encode = prompts.encoder(clip, positive) if written.strip() else lambda text: positive
        run = run or begin(taste, host, sample)
        _check_own(run, host)
        labels = [prompts.label(run, host, text, encode(text), negative, against) for text in texts]
        lesson = RewardLesson(
            reward=reward,
            settings=_reward_settings(model, run, values),
            lora=settings(LoraSettings, values),
            sample=sample,
            prompts=add_prompts(run, host, labels, against),
            finish=train == WHEN[1],
            before_and_after=values.get("before_and_after", True),
            node=node,
        )
        said, losses = teach_by_reward(host, run, lesson)
        return passed(model, run, said, losses)


def _reward_settings(model: Any, run: Run, values: dict[str, Any]) -> RewardSettings:
    """With other luck in every round, the same if it is done again."""
    fits = values.get("micro_batch") or memory.preset_for(model, values.get("memory", memory.AUTO)).micro_batch
    luck = (int(run.run_id[:8], 16) + len(run.rounds())) % 2**32
    return settings(RewardSettings, {**values, "micro_batch": fits, "seed": luck})


def _check_own(run: Run, host: RewardModel) -> None:
    """See that a taste is this model's: nothing that was recorded would tell otherwise.

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
