"""DRaFT LoRA Trainer: from a differentiable reward to a LoRA, in place, on the host's own model and VAE."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path
from typing import Any

from comfy_api.latest import io

from ..d3po_core.app.sampling import add_prompts
from ..d3po_core.diffusion.rollout import make_plan
from ..d3po_core.errors import D3POError
from ..d3po_core.rewards import REWARDS, get_reward, require_differentiable, weighted_sum
from ..d3po_core.rewards.features import STATISTICS
from ..d3po_core.rewards.judge import fit_judge, save_judge
from ..d3po_core.run import Run
from ..d3po_core.settings import LoraSettings, RewardSettings, SampleSettings
from . import folders, graph, prompts
from .drawing import begin_run, check_same_kind
from .host import memory
from .host.checks import check_trainable
from .host.clip_vision import HostClip
from .inputs import ALIASES, inputs, memory_input, sample_settings, schedule_input, settings, taste_input
from .pick import Trajectories
from .progress import write_into_node
from .reward_training import RewardModel, RewardTrainRequest, train_by_reward
from .train import passed

DRAFT_WHEN = ("each time queued", "finish a stopped round", "not now")
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
                    options=list(DRAFT_WHEN),
                    default=DRAFT_WHEN[0],
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
        node, prompt = str(cls.hidden.unique_id), cls.hidden.prompt
        if train != DRAFT_WHEN[1]:  # what was learnt is finished whatever is connected
            require_differentiable(reward)
        check_trainable(model, latent, positive)
        against, written = prompts.text_of(prompt, node, "negative"), values.pop("prompts", "")
        sample = sample_settings({**values, "negative": against}, tuple(set(NOT_OF_SAMPLING) - {"negative"}))
        host = RewardModel(model, latent, vae, eta=sample.eta)
        host.identity = graph.checkpoint_of(model, graph.carried(prompt, node))
        run = folders.find(taste, host.identity)
        stopped = run is not None and run.rounds.stopped() is not None
        if train == DRAFT_WHEN[2] or (train == DRAFT_WHEN[1] and not stopped):
            return passed(model, run, "Nothing to finish." if train == DRAFT_WHEN[1] else "Not taught now.")
        make_plan(host.denoiser, sample)  # what cannot be drawn is told before a taste is begun
        texts = prompts.listed(written) or [prompts.text_of(prompt, node, "positive")]
        encode = prompts.encoder(clip, positive) if written.strip() else lambda text: positive
        run = run or begin_run(taste, host, sample)
        _check_own(run, host)
        labels = [prompts.label(run, host, text, encode(text), negative, against) for text in texts]
        lesson = RewardTrainRequest(
            reward=reward,
            settings=_reward_settings(model, run, values),
            lora=settings(LoraSettings, values),
            sample=sample,
            prompts=add_prompts(run, host, labels, against),
            finish=train == DRAFT_WHEN[1],
            before_and_after=values.get("before_and_after", True),
            node=node,
        )
        said, losses = train_by_reward(host, run, lesson)
        return passed(model, run, said, losses)


def _reward_settings(model: Any, run: Run, values: dict[str, Any]) -> RewardSettings:
    """With other luck in every round, the same if it is done again."""
    fits = values.get("micro_batch") or memory.preset_for(model, values.get("memory", memory.AUTO)).micro_batch
    luck = (int(run.run_id[:8], 16) + len(run.rounds.all())) % 2**32
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


REWARD_FILE = "reward.safetensors"


class RewardFromPicks(io.ComfyNode):
    """See the help page."""

    @classmethod
    def define_schema(cls) -> Any:
        return io.Schema(
            node_id="D3PO_RewardFromPicks",
            display_name="Reward From Picks",
            category="D3PO",
            description="Learns from your picks, in seconds, what to like in any picture.",
            search_aliases=[*ALIASES, "reward model", "bradley-terry", "draft"],
            inputs=[
                Trajectories.Input(
                    "trajectories", optional=True, tooltip="A taste, from the Collector or Load Preference Run."
                ),
                taste_input("Name of the taste, where no trajectories are connected; auto is the newest."),
                io.String.Input(
                    "features",
                    default=STATISTICS,
                    optional=True,
                    advanced=True,
                    tooltip="What it sees of a picture: statistics (of colours and edges), or clip:FOLDER with a CLIP "
                    "in the form in which transformers saves it.",
                ),
                io.ClipVision.Input(
                    "clip_vision",
                    display_name="clip vision",
                    optional=True,
                    tooltip="Sees pictures instead of these features. What is learnt then lasts for this graph only: "
                    "no file is written.",
                ),
            ],
            outputs=[
                RewardType.Output(display_name="reward"),
                io.String.Output(
                    display_name="written",
                    tooltip="As a Reward node takes it: picks: and its file. Empty with a CLIP vision.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, features: str = "", **values: Any) -> Any:
        """Changes with every pick."""
        return [(run.run_id, run.name, run.picks.revision) for run in folders.shelf().runs()], changed_on_disk(features)

    @classmethod
    def execute(
        cls,
        taste: str,
        trajectories: dict[str, Any] | None = None,
        features: str = STATISTICS,
        clip_vision: Any = None,
    ) -> Any:
        run = folders.shelf().run(trajectories["run"]) if trajectories else folders.known(taste)
        write_into_node(f"Learning from the picks of '{run.name}'", str(cls.hidden.unique_id))
        if clip_vision is not None:
            seen = fit_judge(run, HostClip(clip_vision))
            return io.NodeOutput(seen.reward(), "", ui={"text": [str(seen.facts)]})
        fitted = fit_judge(run, features.strip() or STATISTICS)
        file = save_judge(fitted, run.folder / REWARD_FILE)  # refuses what knows no better than chance
        written = f"picks:{file}"
        return io.NodeOutput(get_reward(written), written, ui={"text": [str(fitted.facts)]})


RewardType = io.Custom("D3PO_REWARD")
REWARD_NAMES = [name for name in REWARDS if not name.startswith("garden")]
"""Those that need no file and are not about the core's own little model."""
WRITTEN = (
    "a sum such as 0.5*warmth + contrast, or a scorer from your disk: clip:FOLDER, pickscore:FOLDER, hpsv2:FOLDER, "
    "aesthetic:FOLDER, picks:FILE."
)
"""What may be written instead of a name."""
PATH = re.compile(r":\s*(.+?)\s*(?: \+ |$)")


class Reward(io.ComfyNode):
    """See the help page."""

    @classmethod
    def define_schema(cls) -> Any:
        likes = "; ".join(f"{name}: {REWARDS[name].likes}" for name in REWARD_NAMES)
        return io.Schema(
            node_id="D3PO_Reward",
            display_name="Reward",
            category="D3PO",
            description="What a program likes: to teach a model by it (DRaFT), or to pick by it.",
            search_aliases=[*ALIASES, "scorer", "aesthetic", "pickscore", "hpsv2", "draft"],
            inputs=[
                io.Combo.Input("reward", options=REWARD_NAMES, default="warmth", tooltip=f"What it likes: {likes}."),
                io.Float.Input(
                    "weight",
                    default=1.0,
                    min=-1000.0,
                    max=1000.0,
                    step=0.01,
                    tooltip="How much it counts in a sum; below 0 it likes the opposite.",
                ),
                RewardType.Input("plus", optional=True, tooltip="Another reward, to add this one to."),
                io.String.Input(
                    "written", default="", optional=True, advanced=True, tooltip=f"Instead of the name: {WRITTEN}"
                ),
            ],
            outputs=[RewardType.Output(display_name="reward")],
        )

    @classmethod
    def fingerprint_inputs(cls, written: str = "", **values: Any) -> Any:
        """Changes when a file that is named does."""
        return changed_on_disk(written)

    @classmethod
    def execute(cls, reward: str, weight: float, plus: Any = None, written: str = "") -> Any:
        if weight == 0:
            raise D3POError("The weight of this reward is 0, so it says nothing.", "Choose another weight.")
        own = (weight, get_reward(written.strip() or reward))
        return io.NodeOutput(weighted_sum([own] if plus is None else [(1.0, plus), own]))


def changed_on_disk(written: str) -> list[int]:
    """When what a text names was last changed; 0 for what is not there."""
    paths = [Path(os.path.expanduser(found)) for found in PATH.findall(written)]
    return [path.stat().st_mtime_ns if path.exists() else 0 for path in paths]
