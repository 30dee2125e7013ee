"""The nodes that draw groups and pick in them: by a person, by a scorer, or from an earlier taste."""

from __future__ import annotations

import asyncio
import dataclasses

import torch
from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker
from torch import Tensor

from ..d3po_core.app.few_steps import drawing_advice
from ..d3po_core.app.tournament import call_up, progress
from ..d3po_core.diffusion.image_model import check_finite
from ..d3po_core.diffusion.rollout import make_plan
from ..d3po_core.errors import D3POError
from ..d3po_core.rewards import REWARDS, Reward, auto_pick, get_reward, reward_of
from ..d3po_core.run import Run
from ..d3po_core.run.run import read_image
from ..d3po_core.settings import SampleSettings, names_in
from . import folders, graph, train
from .drawing import Press, begin_run, changed_since, check_same_kind, draw_into_gallery, draw_undecoded, next_prompts
from .host.checks import check_trainable
from .host.memory import preset_for
from .host.model import PRECISELY, HostModel
from .host.process import check_interrupted
from .host.types import Clip, Cond, Latent, Patcher, Vae, Widgets
from .inputs import (
    ADVANCED,
    REWARD,
    TRAJECTORIES,
    Trajectories,
    inputs,
    node_schema,
    prompts_input,
    sample_settings,
    schedule_input,
    taste_input,
)
from .progress import Working, send_event, write_into_node
from .prompts import encoder, label, listed, text_of

# -- drawing -----------------------------------------------------------------------------------------------------------

SHOWN = ("candidates", "groups", "steps", "guidance_scale")
WIDGETS = (
    *("candidates", "groups", "steps", "guidance_scale", "eta", "window", "window_sigma", "window_fraction"),
    *("noise", "start", "held_out", "batch"),
)
"""Settings in the order of the sampler's widgets. Saved workflows know widgets by their places, and others
follow these: a new one stands at the end of the node's inputs."""
IMAGES = 1
"""Number of that output."""


class PairedTrajectorySampler(io.ComfyNode):
    """Draw groups of images; see the help page."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            "D3PO_PairedTrajectorySampler",
            inputs=[
                io.Model.Input("model"),
                io.Conditioning.Input("positive"),
                io.Conditioning.Input("negative"),
                io.Latent.Input("latent"),
                io.Vae.Input("vae", optional=True),
                io.Clip.Input("clip", optional=True),
                taste_input(),
                *inputs(WIDGETS, SampleSettings, shown=SHOWN, defaults={"groups": 4}),
                schedule_input(),
                prompts_input(),
            ],
            outputs=[TRAJECTORIES.Output(), io.Image.Output(), io.Latent.Output()],
            is_output_node=True,
            not_idempotent=True,
        )

    @classmethod
    def fingerprint_inputs(cls, **values: object) -> float:
        """Return what is never equal: every press draws new groups."""
        return float("nan")

    @classmethod
    def execute(
        cls,
        model: Patcher,
        positive: Cond,
        negative: Cond,
        latent: Latent,
        taste: str,
        vae: Vae | None = None,
        clip: Clip | None = None,
        prompts: str = "",
        **values: object,
    ) -> io.NodeOutput:
        prompt, node = cls.hidden.prompt, str(cls.hidden.unique_id)
        check_trainable(model, latent, positive)
        upstream, negative_text = graph.upstream(prompt, node), text_of(prompt, node, "negative")
        widgets: Widgets = {**values, "negative": negative_text}
        widgets["batch"] = preset_for(model).images(widgets["candidates"], widgets.get("batch"))
        settings = sample_settings(widgets)
        host = HostModel(model, latent, vae, eta=settings.eta)
        host.identity = graph.checkpoint_of(model, upstream)
        trained_steps = make_plan(host.denoiser, settings).trained
        texts = listed(prompts) or [text_of(prompt, node, "positive")]
        encode = encoder(clip, positive) if prompts.strip() else lambda text: positive
        run = folders.find(taste, host.identity) or begin_run(taste, host, settings)
        check_same_kind(run, host)
        settings = dataclasses.replace(settings, seed=int(run.run_id[:8], 16))  # the same in every press
        texts = texts if len(texts) == 1 else next_prompts(run, texts, settings)
        labels = [label(run, host, text, encode(text), negative, negative_text) for text in texts]
        press = Press(run, host, settings, labels, upstream)
        with Working(run, node, "drawing", settings.groups) as work:
            few_steps = drawing_advice(graph.names_of(host.identity, upstream), settings)
            advice = few_steps and f" {few_steps}"
            advice += graph.sampler_advice(prompt) + changed_since(run, upstream)
            work.say(f"{press.cost()}; noise in the first {trained_steps} of {settings.steps} steps.{advice}")
            if vae is None:
                return undecoded(press, work)
            return decoded(press, work, graph.is_used(prompt, node, IMAGES))


def decoded(press: Press, work: Working, images_used: bool) -> io.NodeOutput:
    """Draw and decode, each group into the gallery as soon as it is decoded; return the node's outputs."""
    groups, latents, images = list[str](), list[Tensor](), list[Tensor]()
    for report in draw_into_gallery(press, work):
        groups.append(report.group_id)
        latents.append(report.latents)
        images += [report.images] if images_used else []  # they would fill the memory for nothing
    trajectories = Trajectories(run=press.run.run_id, groups=groups, pending=[])
    batch = torch.cat(images).movedim(1, -1) if images else None
    return io.NodeOutput(trajectories, batch, Latent(samples=torch.cat(latents)))


def undecoded(press: Press, work: Working) -> io.NodeOutput:
    """Draw without decoding: the Collector adds the groups once it has their images. Return the node's outputs."""
    pending = list(draw_undecoded(press, work))
    trajectories = Trajectories(run=press.run.run_id, groups=[], pending=pending)
    latents = torch.cat([group.latents for group in pending])
    return io.NodeOutput(trajectories, ExecutionBlocker(None), Latent(samples=latents))


# -- picking -----------------------------------------------------------------------------------------------------------

POLL_SECONDS = 0.5


class PreferenceCollector(io.ComfyNode):
    """Show groups to a person who picks; see the help page."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            "D3PO_PreferenceCollector",
            inputs=[
                TRAJECTORIES.Input("trajectories", optional=True),
                io.Image.Input("images", optional=True),
                taste_input(),
                io.Int.Input("wait_for", default=0, min=0, max=100_000, **ADVANCED),
            ],
            outputs=[TRAJECTORIES.Output()],
            aliases=["gallery", "pick"],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, **values: object) -> object:
        """Return what changes with every pick."""
        return [(run.run_id, run.picks.revision) for run in folders.library().runs()]

    @classmethod
    async def execute(
        cls, taste: str, trajectories: Trajectories | None = None, images: Tensor | None = None, wait_for: int = 0
    ) -> io.NodeOutput:
        run = folders.library().run(trajectories["run"]) if trajectories else folders.find(taste)
        if run is None:
            return io.NodeOutput(None, ui={"d3po_taste": [""]})
        groups: list[str] = []
        if trajectories:
            groups = trajectories["groups"] + add_pending(run, trajectories, images)
        await wait_for_picks(run, wait_for, str(cls.hidden.unique_id))
        outputs = Trajectories(run=run.run_id, groups=groups, pending=[])
        return io.NodeOutput(outputs, ui={"d3po_taste": [run.run_id]})


def add_pending(run: Run, trajectories: Trajectories, images: Tensor | None) -> list[str]:
    """Put groups into the gallery that were drawn without a VAE, and return their ids.

    Args:
        run: the taste.
        trajectories: with the groups.
        images: the host's IMAGE (B, H, W, 3) of all of them, in their order.

    Raises:
        D3POError: the images are missing, not as many, or no pictures because numbers overflowed.
    """
    pending = trajectories["pending"]
    if not pending:
        return []
    count = sum(len(group.latents) for group in pending)
    if images is None:
        raise D3POError(
            "The sampler has no VAE, so there are no pictures to pick from.",
            "Connect a VAE to it, or decode its latents and connect the pictures here.",
        )
    if len(images) != count:
        raise D3POError(
            f"The sampler drew {count} pictures, and {len(images)} came here.",
            "Connect its latents through a VAE Decode, all of them and nothing else.",
        )
    check_finite(images, "VAE", PRECISELY["VAE"])
    ids = {group.number: group.id for group in run.groups.select()}
    sizes = [len(group.latents) for group in pending]
    for group, part in zip(pending, images.split(sizes), strict=True):
        number = group.about["number"]
        if number not in ids:  # a cached sampler gives the same groups again
            ids[number] = group.add_to(run, part.movedim(-1, 1)[:, :3].float().cpu())
            send_event("d3po.group", taste=run.run_id, group=ids[number])
    return [ids[group.about["number"]] for group in pending]


async def wait_for_picks(run: Run, picks: int, node: str) -> None:
    """Wait for new picks, or until nothing is left to pick in. Raises the host's interruption."""
    how = train.trained_with.get(run.run_id)
    people = names_in(how.people) if how else None
    while (new := run.picks.untaught(people=people)) < picks and _unpicked(run):
        check_interrupted()
        write_into_node(f"Waiting for picks: {new} of {picks}", node)
        await asyncio.sleep(POLL_SECONDS)


def _unpicked(run: Run) -> bool:
    """Return whether there is a group to pick in, now or once a match of a tournament is over."""
    matches = progress(run)
    to_come = matches is not None and matches.to_come > 0
    return to_come or any(group.showable for group in run.groups.select(picked=False))


SCORERS = [name for name in REWARDS if not name.startswith(("garden", "smooth"))]
AUTO_PICKER = "auto pick"
"""Whose picks they are."""


class AutoPick(io.ComfyNode):
    """Let a scorer pick in place of a person, to try the loop out without a click; see the help page."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            "D3PO_AutoPick",
            inputs=[
                TRAJECTORIES.Input("trajectories"),
                io.Combo.Input("scorer", options=SCORERS, default="warmth"),
                io.Combo.Input("kind", options=["favourite", "ranking"], default="favourite", **ADVANCED),
                io.Float.Input("mistakes", default=0.0, min=0.0, max=0.5, step=0.01, **ADVANCED),
                io.String.Input("reward", default="", **ADVANCED),
                REWARD.Input("judge", optional=True),
            ],
            outputs=[TRAJECTORIES.Output()],
            aliases=["scorer", "reward"],
            hidden=(),
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, **values: object) -> object:
        """Return what changes when there are new groups."""
        return [(run.run_id, run.picks.counts("").drawn) for run in folders.library().runs()]

    @classmethod
    def execute(
        cls,
        trajectories: Trajectories,
        scorer: str,
        kind: str = "favourite",
        mistakes: float = 0.0,
        reward: str = "",
        judge: Reward | None = None,
    ) -> io.NodeOutput:
        run = folders.library().run(trajectories["run"])
        scores = reward_of(judge) if judge is not None else get_reward(reward.strip() or scorer)
        count = sum(1 for _ in auto_pick.auto_pick(run, scores, AUTO_PICKER, kind, mistakes, call_up=call_up))
        return io.NodeOutput(trajectories, ui={"text": [f"Picked in {count} groups."]})


# -- an earlier taste --------------------------------------------------------------------------------------------------

FAVOURITES = 1
"""Number of that output."""


class LoadPreferenceRun(io.ComfyNode):
    """Open a taste that was sampled before; see the help page."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            "D3PO_LoadPreferenceRun",
            inputs=[taste_input()],
            outputs=[TRAJECTORIES.Output(), io.Image.Output(), io.Int.Output()],
            aliases=["open", "resume"],
        )

    @classmethod
    def fingerprint_inputs(cls, **values: object) -> object:
        """Return what changes with every pick."""
        return [(run.run_id, run.name, run.picks.revision) for run in folders.library().runs()]

    @classmethod
    def execute(cls, taste: str) -> io.NodeOutput:
        run = folders.get(taste)
        groups = [group.id for group in run.groups.select()]
        used = graph.is_used(cls.hidden.prompt, cls.hidden.unique_id, FAVOURITES)
        trajectories = Trajectories(run=run.run_id, groups=groups, pending=[])
        return io.NodeOutput(trajectories, favourites(run) if used else None, run.picks.counts("").picks)


def favourites(run: Run) -> Tensor | ExecutionBlocker:
    """Return the picked images that have the newest one's size as the host's IMAGE (B, H, W, 3); if there are none,
    what blocks the nodes that take them."""
    best = {stored.group_id: stored.pick.order[0] for stored in run.picks.standing() if stored.pick.order}
    images = [read_image(run, group_id, candidate) for group_id, candidate in best.items()]
    if not images:
        return ExecutionBlocker(None)
    return torch.stack([image for image in images if image.shape == images[-1].shape]).movedim(1, -1)
