"""Paired Trajectory Sampler: draws groups into a taste, each a little further than the last."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import torch
from comfy_api.latest import io

from ..d3po_core.cost import drawing
from ..d3po_core.policies import applied
from ..d3po_core.run import Run
from ..d3po_core.sampling import Drawn, Sampled, check_drawable, draw_groups, prompt_of, sample_groups
from ..d3po_core.settings import SampleSettings
from . import folders, prompts, upstream
from .host import HostModel, checkpoint
from .inputs import ALIASES, inputs, settings, taste_input
from .memory import preset_for
from .working import Working, seconds_per_image, tell

LEFT_OUT = ("seed", "negative", "width", "height", "sampler")
PIXELS_PER_LATENT = 64
"""Of most VAEs; for an estimate."""
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
                io.Latent.Input("latent", tooltip="Size of the pictures; of a batch the first one is used."),
                io.Vae.Input(
                    "vae",
                    optional=True,
                    tooltip="Turns what is drawn into pictures. Without it, decode the latents and give the pictures "
                    "to the Preference Collector.",
                ),
                io.Clip.Input("clip", optional=True, tooltip="Reads the prompt list; not needed without one."),
                taste_input(),
                *inputs(SampleSettings, ("candidates", "groups", "steps", "guidance_scale"), LEFT_OUT, groups=4),
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
        graph, node = cls.hidden.prompt, str(cls.hidden.unique_id)
        against = prompts.text_of(graph, node, "negative")
        written = values.pop("prompts", "")
        values["batch"] = preset_for(model).images(values.get("batch"))
        chosen = settings(SampleSettings, {**values, "negative": against})
        host = HostModel(model, latent, vae, eta=chosen.eta)
        check_drawable(host, chosen)
        texts = prompts.listed(written) or [prompts.text_of(graph, node, "positive")]
        with_clip = prompts.encoder(clip, positive) if written.strip() else None
        run = folders.find(taste, checkpoint(model)) or begin(taste, host, chosen)
        chosen = dataclasses.replace(chosen, seed=int(run.run_id[:8], 16))  # the same in every press
        wanted = texts if len(texts) == 1 else following(run, texts, chosen)
        labels = [
            prompts.label(run, host, text, with_clip(text) if with_clip else positive, negative, against)
            for text in wanted
        ]
        notes = {"graph": upstream.carried(graph, node)}
        with Working(run, node, "drawing", chosen.groups) as work:
            work.say(drawing(chosen.groups, chosen, pixels(host), seconds_per_image(run)))
            return (shown if vae is not None else hidden)(run, host, chosen, labels, notes, work)


def begin(taste: str, host: HostModel, chosen: SampleSettings) -> Run:
    """A new taste."""
    name = host.identity if taste == folders.AUTO else taste
    about = {**dict.fromkeys(("identity", "name", "source"), host.identity), "family": host.denoiser.family}
    return Run.create(
        folders.shelf().unused(name), name=name, model=about, settings={"sample": dataclasses.asdict(chosen)}
    )


def following(run: Run, texts: list[str], chosen: SampleSettings) -> list[str]:
    """The prompts of the groups that come next."""
    drawn = run.counts("").drawn
    return [texts[prompt_of(drawn + i, len(texts), chosen.seed)] for i in range(chosen.groups)]


def pixels(host: HostModel) -> int:
    """Of one picture, roughly."""
    *_, height, width = host.latent_shape()
    return height * width * PIXELS_PER_LATENT


def pressed(chosen: SampleSettings, labels: list[str]) -> Iterator[tuple[SampleSettings, list[str]]]:
    """One press as calls of the core: all groups of one prompt at once, else group by group."""
    if len(labels) == 1:
        yield chosen, labels
        return
    for name in labels:
        yield dataclasses.replace(chosen, groups=1), [name]


def shown(
    run: Run, host: HostModel, chosen: SampleSettings, labels: list[str], notes: dict[str, Any], work: Working
) -> Any:
    """Draw and decode, each group into the gallery as soon as it is decoded; the node's outputs."""
    policy, round = run.current_policy(), coming_round(run)
    drawn: list[Sampled] = []
    with applied(host.denoiser, run.lora(policy), "hooks"):
        for part, names in pressed(chosen, labels):
            with closing(sample_groups(run, host, part, names, policy, round, notes)) as reports:
                for report in reports:
                    drawn.append(report)
                    tell("d3po.group", taste=run.run_id, group=report.group_id)
                    work.at(len(drawn), chosen.groups, f"{len(drawn)} of {chosen.groups} groups")
                    work.drew(chosen.candidates)
    images = torch.cat([report.images for report in drawn]).movedim(1, -1)
    latents = torch.cat([report.latents for report in drawn])
    trajectories = {"run": run.run_id, "groups": [report.group_id for report in drawn], "pending": []}
    return io.NodeOutput(trajectories, images, {"samples": latents})


def hidden(
    run: Run, host: HostModel, chosen: SampleSettings, labels: list[str], notes: dict[str, Any], work: Working
) -> Any:
    """Draw without decoding: the Collector adds the groups once it is given their pictures."""
    from comfy_execution.graph_utils import ExecutionBlocker

    policy, round = run.current_policy(), coming_round(run)
    drawn: list[Drawn] = []
    with applied(host.denoiser, run.lora(policy), "hooks"):
        for part, names in pressed(chosen, labels):
            for batch in draw_groups(run, host, part, names, policy, round, notes):
                drawn += batch
                work.at(len(drawn), chosen.groups, f"{len(drawn)} of {chosen.groups} groups")
    latents = torch.cat([each.latents for each in drawn])
    trajectories = {"run": run.run_id, "groups": [], "pending": drawn}
    return io.NodeOutput(trajectories, ExecutionBlocker(None), {"samples": latents})


def coming_round(run: Run) -> int:
    """The round that is drawn for."""
    return 1 + sum(each.finished is not None for each in run.rounds())
