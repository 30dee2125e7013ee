"""Auto Pick: a scorer picks in place of a person, to try the whole loop out without a click."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import torch
from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

from ..d3po_core.app.sampling import DrawnGroup
from ..d3po_core.diffusion.rollout import make_plan
from ..d3po_core.errors import D3POError
from ..d3po_core.rewards import REWARDS, auto_pick, get_reward
from ..d3po_core.run import Run
from ..d3po_core.run.images import read_image
from ..d3po_core.settings import SampleSettings
from . import folders, graph, prompts
from .drawing import (
    Press,
    begin_run,
    changed_since,
    check_same_kind,
    following,
    into_gallery,
    press_cost,
    waiting_for_pictures,
)
from .host.checks import check_trainable
from .host.memory import preset_for
from .host.model import HostModel
from .host.process import check_interrupted
from .inputs import ALIASES, inputs, sample_settings, schedule_input, taste_input
from .progress import Working, send_event, write_into_node
from .reward import WRITTEN, RewardType

WHO = "auto pick"
SCORERS = [name for name in REWARDS if not name.startswith(("garden", "smooth"))]


class AutoPick(io.ComfyNode):
    """See the help page."""

    @classmethod
    def define_schema(cls) -> Any:
        return io.Schema(
            node_id="D3PO_AutoPick",
            display_name="Auto Pick",
            category="D3PO",
            description="Lets a simple scorer pick in every group that nobody has picked in, in place of a person.",
            search_aliases=[*ALIASES, "scorer", "reward"],
            inputs=[
                Trajectories.Input("trajectories", tooltip="From the sampler, the collector or a loaded run."),
                io.Combo.Input(
                    "scorer",
                    options=SCORERS,
                    default="warmth",
                    tooltip="What it likes: " + "; ".join(f"{name}: {REWARDS[name].likes}" for name in SCORERS) + ".",
                ),
                io.Combo.Input(
                    "kind",
                    options=["favourite", "ranking"],
                    default="favourite",
                    optional=True,
                    advanced=True,
                    tooltip="Pick the best, or rank all.",
                ),
                io.Float.Input(
                    "mistakes",
                    default=0.0,
                    min=0.0,
                    max=0.5,
                    step=0.01,
                    optional=True,
                    advanced=True,
                    tooltip="Share of picks that are wrong, as people's are now and then.",
                ),
                io.String.Input(
                    "reward",
                    default="",
                    optional=True,
                    advanced=True,
                    tooltip=f"Instead of the scorer: {WRITTEN}",
                ),
                RewardType.Input(
                    "judge",
                    optional=True,
                    tooltip="From a Reward node or Reward From Picks: instead of the scorer.",
                ),
            ],
            outputs=[Trajectories.Output(display_name="trajectories")],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, **values: Any) -> Any:
        """Changes when there are new groups."""
        return [(run.run_id, run.picks.counts("").drawn) for run in folders.shelf().runs()]

    @classmethod
    def execute(
        cls,
        trajectories: dict[str, Any],
        scorer: str,
        kind: str = "favourite",
        mistakes: float = 0.0,
        reward: str = "",
        judge: Any = None,
    ) -> Any:
        run = folders.shelf().run(trajectories["run"])
        likes = judge or get_reward(reward.strip() or scorer)
        count = sum(1 for _ in auto_pick.auto_pick(run, likes, WHO, kind, mistakes))
        return io.NodeOutput(trajectories, ui={"text": [f"Picked in {count} groups."]})


POLL_SECONDS = 0.5


class PreferenceCollector(io.ComfyNode):
    """See the help page."""

    @classmethod
    def define_schema(cls) -> Any:
        return io.Schema(
            node_id="D3PO_PreferenceCollector",
            display_name="Preference Collector (pick favourites)",
            category="D3PO",
            description="Pick the pictures you like, here or in the sidebar. Nothing waits for you.",
            search_aliases=[*ALIASES, "gallery", "pick"],
            inputs=[
                Trajectories.Input("trajectories", optional=True, tooltip="From the Paired Trajectory Sampler."),
                io.Image.Input(
                    "images",
                    optional=True,
                    tooltip="Only if the sampler has no VAE: its latents as pictures, in the same order.",
                ),
                taste_input(
                    "Name of the taste, as at the sampler; it does not matter where trajectories are connected."
                ),
                io.Int.Input(
                    "wait_for",
                    display_name="wait for N picks",
                    default=0,
                    min=0,
                    max=100_000,
                    optional=True,
                    advanced=True,
                    tooltip="Hold the queue until there are so many new picks, or nothing is left to pick in; 0 never "
                    "waits.",
                ),
            ],
            outputs=[Trajectories.Output(display_name="trajectories")],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, **values: Any) -> Any:
        """Changes with every pick."""
        return [(run.run_id, run.picks.revision) for run in folders.shelf().runs()]

    @classmethod
    async def execute(
        cls, taste: str, trajectories: dict[str, Any] | None = None, images: Any = None, wait_for: int = 0
    ) -> Any:
        run = folders.shelf().run(trajectories["run"]) if trajectories else folders.find(taste)
        if run is None:
            return io.NodeOutput(None, ui={"d3po_taste": [""]})
        if trajectories:
            trajectories = {
                **trajectories,
                "pending": [],
                "groups": trajectories["groups"] + add_pending(run, trajectories, images),
            }
        await wait_for_picks(run, wait_for, str(cls.hidden.unique_id))
        given = trajectories or {"run": run.run_id, "groups": [], "pending": []}
        return io.NodeOutput(given, ui={"d3po_taste": [run.run_id]})


def add_pending(run: Run, trajectories: dict[str, Any], images: Any) -> list[str]:
    """Put groups into the gallery that were drawn without a VAE; their ids.

    Args:
        images: the host's IMAGE (B, H, W, 3) of all of them, in their order.

    Raises:
        D3POError: the pictures are missing, or not as many.
    """
    pending: list[DrawnGroup] = trajectories["pending"]
    if not pending:
        return []
    wanted = sum(len(drawn.latents) for drawn in pending)
    if images is None:
        raise D3POError(
            "The sampler has no VAE, so there are no pictures to pick from.",
            "Connect a VAE to it, or decode its latents and connect the pictures here.",
        )
    if len(images) != wanted:
        raise D3POError(
            f"The sampler drew {wanted} pictures, and {len(images)} came here.",
            "Connect its latents through a VAE Decode, all of them and nothing else.",
        )
    present = {group.number: group.id for group in run.groups.select()}
    found, at = [], 0
    for drawn in pending:
        part = images[at : at + len(drawn.latents)].movedim(-1, 1)[:, :3].float().cpu()
        at += len(drawn.latents)
        if drawn.about["number"] not in present:  # a cached sampler gives the same groups again
            present[drawn.about["number"]] = drawn.add_to(run, part)
            send_event("d3po.group", taste=run.run_id, group=present[drawn.about["number"]])
        found.append(present[drawn.about["number"]])
    return found


async def wait_for_picks(run: Run, picks: int, node: str) -> None:
    """Wait for new picks, or until nothing is left to pick in. Raises the host's interruption."""
    while run.picks.untaught() < picks and any(group.showable for group in run.groups.select(picked=False)):
        check_interrupted()
        write_into_node(f"Waiting for picks: {run.picks.untaught()} of {picks}", node)
        await asyncio.sleep(POLL_SECONDS)


FAVOURITES = 1
"""Number of that output."""


class LoadPreferenceRun(io.ComfyNode):
    """See the help page."""

    @classmethod
    def define_schema(cls) -> Any:
        return io.Schema(
            node_id="D3PO_LoadPreferenceRun",
            display_name="Load Preference Run",
            category="D3PO",
            description="Opens a taste that was sampled before: its groups for the collector, and its favourites.",
            search_aliases=[*ALIASES, "open", "resume"],
            inputs=[taste_input("Name of the taste; auto is the newest.")],
            outputs=[
                Trajectories.Output(display_name="trajectories"),
                io.Image.Output(display_name="favourites", tooltip="Every picture that was picked as the best."),
                io.Int.Output(display_name="picks", tooltip="How many groups were judged."),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt],
        )

    @classmethod
    def fingerprint_inputs(cls, **values: Any) -> Any:
        """Changes with every pick."""
        return [(run.run_id, run.name, run.picks.revision) for run in folders.shelf().runs()]

    @classmethod
    def execute(cls, taste: str) -> Any:
        run = folders.known(taste)
        trajectories = {"run": run.run_id, "groups": [group.id for group in run.groups.select()], "pending": []}
        wanted = graph.is_used(cls.hidden.prompt, cls.hidden.unique_id, FAVOURITES)
        return io.NodeOutput(trajectories, favourites(run) if wanted else None, run.picks.counts("").picks)


def favourites(run: Run) -> Any:
    """The picked pictures of the newest one's size as the host's IMAGE (B, H, W, 3); blocked if there are none."""
    best = {stored.group_id: stored.pick.order[0] for stored in run.picks.standing() if stored.pick.order}
    found = [read_image(run, name, candidate) for name, candidate in best.items()]
    if not found:
        return ExecutionBlocker(None)
    return torch.stack([image for image in found if image.shape == found[-1].shape]).movedim(1, -1)


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
        node, carried = str(cls.hidden.unique_id), graph.carried(cls.hidden.prompt, cls.hidden.unique_id)
        check_trainable(model, latent, positive)
        against, written = cls._text("negative"), values.pop("prompts", "")
        chosen = cls._settings(model, values, against)
        host = HostModel(model, latent, vae, eta=chosen.eta)
        host.identity = graph.checkpoint_of(model, carried)
        plan = make_plan(host.denoiser, chosen)
        texts = prompts.listed(written) or [cls._text("positive")]
        encode = prompts.encoder(clip, positive) if written.strip() else lambda text: positive
        run = folders.find(taste, host.identity) or begin_run(taste, host, chosen)
        check_same_kind(run, host)
        chosen = dataclasses.replace(chosen, seed=int(run.run_id[:8], 16))  # the same in every press
        wanted = texts if len(texts) == 1 else following(run, texts, chosen)
        labels = [prompts.label(run, host, text, encode(text), negative, against) for text in wanted]
        press = Press(run, host, chosen, labels, {"graph": carried})
        with Working(run, node, "drawing", chosen.groups) as work:
            advice = graph.few_step_advice(host.identity, carried, chosen) + changed_since(run, carried)
            work.say(f"{press_cost(press)}; noise in the first {plan.trained} of {chosen.steps} steps.{advice}")
            if vae is None:
                return undecoded(press, work)
            return shown(press, work, graph.is_used(cls.hidden.prompt, cls.hidden.unique_id, IMAGES))

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
