"""Paired Trajectory Sampler: draws groups into a taste, each a little further than the last."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

from ..d3po_core.diffusion.rollout import make_plan
from ..d3po_core.settings import SampleSettings
from . import few_steps, folders, prompts, upstream
from .drawing import Press, begin, changed_since, check_same_kind, cost, following, into_gallery, waiting_for_pictures
from .host import HostModel
from .inputs import ALIASES, inputs, sample_settings, schedule_input, taste_input
from .memory import preset_for
from .support import check_teachable
from .working import Working

LEFT_OUT = ("seed", "negative", "width", "height", "sampler", "schedule")
IMAGES = 1
"""Number of that output."""
Trajectories = io.Custom("D3PO_TRAJECTORIES")


class PairedTrajectorySampler(io.ComfyNode):
    """See the help page."""

    @classmethod
    def define_schema(cls) -> Any:
        return io.Schema(
            node_id="D3PO_PairedTrajectorySampler",
            display_name="Paired Trajectory Sampler",
            category="D3PO",
            description="Draws groups of pictures to pick favourites from, and remembers how each came about.",
            search_aliases=ALIASES,
            inputs=[
                io.Model.Input("model", tooltip="The model that is to learn your taste, with whatever it carries."),
                io.Conditioning.Input("positive", tooltip="What to draw."),
                io.Conditioning.Input("negative", tooltip="What not to draw."),
                io.Latent.Input(
                    "latent",
                    tooltip="Size of the pictures; of a batch the first one is used. A picture in it is drawn over "
                    "entirely, except outside of its mask.",
                ),
                io.Vae.Input(
                    "vae",
                    optional=True,
                    tooltip="Turns what is drawn into pictures. Without it, decode the latents and give the pictures "
                    "to the Preference Collector.",
                ),
                io.Clip.Input("clip", optional=True, tooltip="Reads the prompt list; not needed without one."),
                taste_input(),
                *inputs(SampleSettings, ("candidates", "groups", "steps", "guidance_scale"), LEFT_OUT, groups=4),
                schedule_input(),
                io.String.Input(
                    "prompts",
                    default="",
                    multiline=True,
                    optional=True,
                    advanced=True,
                    tooltip="A list of prompts, one a line, instead of the positive one; {cat|dog} stands for both. "
                    "Each is drawn once before any is drawn again.",
                ),
            ],
            outputs=[
                Trajectories.Output(display_name="trajectories"),
                io.Image.Output(display_name="images", tooltip="All pictures of this press; needs the VAE."),
                io.Latent.Output(display_name="latents", tooltip="The same, not decoded."),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt],
            is_output_node=True,
            not_idempotent=True,
        )

    @classmethod
    def fingerprint_inputs(cls, **values: Any) -> float:
        """Every press draws new groups."""
        return float("nan")

    @classmethod
    def execute(
        cls,
        model: Any,
        positive: Any,
        negative: Any,
        latent: Any,
        taste: str,
        vae: Any = None,
        clip: Any = None,
        **values: Any,
    ) -> Any:
        node, carried = str(cls.hidden.unique_id), upstream.carried(cls.hidden.prompt, cls.hidden.unique_id)
        check_teachable(model, latent, positive)
        against, written = cls._text("negative"), values.pop("prompts", "")
        chosen = cls._settings(model, values, against)
        host = HostModel(model, latent, vae, eta=chosen.eta)
        host.identity = upstream.checkpoint_of(model, carried)
        plan = make_plan(host.denoiser, chosen)
        texts = prompts.listed(written) or [cls._text("positive")]
        encode = prompts.encoder(clip, positive) if written.strip() else lambda text: positive
        run = folders.find(taste, host.identity) or begin(taste, host, chosen)
        check_same_kind(run, host)
        chosen = dataclasses.replace(chosen, seed=int(run.run_id[:8], 16))  # the same in every press
        wanted = texts if len(texts) == 1 else following(run, texts, chosen)
        labels = [prompts.label(run, host, text, encode(text), negative, against) for text in wanted]
        press = Press(run, host, chosen, labels, {"graph": carried})
        with Working(run, node, "drawing", chosen.groups) as work:
            advice = few_steps.advice(host.identity, carried, chosen) + changed_since(run, carried)
            work.say(f"{cost(press)}; noise in the first {plan.trained} of {chosen.steps} steps.{advice}")
            if vae is None:
                return undecoded(press, work)
            return shown(press, work, upstream.is_used(cls.hidden.prompt, cls.hidden.unique_id, IMAGES))

    @classmethod
    def _text(cls, name: str) -> str:
        return prompts.text_of(cls.hidden.prompt, cls.hidden.unique_id, name)

    @classmethod
    def _settings(cls, model: Any, values: dict[str, Any], negative: str) -> SampleSettings:
        batch = preset_for(model).images(values["candidates"], values.get("batch"))
        return sample_settings({**values, "negative": negative, "batch": batch})


def shown(press: Press, work: Working, images_used: bool) -> Any:
    """Draw and decode, each group into the gallery as soon as it is decoded; the node's outputs."""
    groups, latents, images = [], [], []
    for report in into_gallery(press, work):
        groups.append(report.group_id)
        latents.append(report.latents)
        images += [report.images] if images_used else []  # they would fill the memory for nothing
    trajectories = {"run": press.run.run_id, "groups": groups, "pending": []}
    batch = torch.cat(images).movedim(1, -1) if images else None
    return io.NodeOutput(trajectories, batch, {"samples": torch.cat(latents)})


def undecoded(press: Press, work: Working) -> Any:
    """Draw without decoding: the Collector adds the groups once it is given their pictures."""
    drawn = list(waiting_for_pictures(press, work))
    trajectories = {"run": press.run.run_id, "groups": [], "pending": drawn}
    return io.NodeOutput(trajectories, ExecutionBlocker(None), {"samples": torch.cat([d.latents for d in drawn])})
