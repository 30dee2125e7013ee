"""Preference Collector: the gallery in a node. It adds what the sampler did not, never anything twice."""

from __future__ import annotations

import asyncio
from typing import Any

from comfy_api.latest import io

from ..d3po_core.app.sampling import DrawnGroup
from ..d3po_core.errors import D3POError
from ..d3po_core.run import Run
from . import folders
from .inputs import ALIASES, taste_input
from .process import check_interrupted
from .sampler import Trajectories
from .working import say, tell

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
        return [(run.run_id, run.pick_revision) for run in folders.shelf().runs()]

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
                "groups": trajectories["groups"] + added(run, trajectories, images),
            }
        await waited(run, wait_for, str(cls.hidden.unique_id))
        given = trajectories or {"run": run.run_id, "groups": [], "pending": []}
        return io.NodeOutput(given, ui={"d3po_taste": [run.run_id]})


def added(run: Run, trajectories: dict[str, Any], images: Any) -> list[str]:
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
    present = {group.number: group.id for group in run.groups()}
    found, at = [], 0
    for drawn in pending:
        part = images[at : at + len(drawn.latents)].movedim(-1, 1)[:, :3].float().cpu()
        at += len(drawn.latents)
        if drawn.about["number"] not in present:  # a cached sampler gives the same groups again
            present[drawn.about["number"]] = drawn.add_to(run, part)
            tell("d3po.group", taste=run.run_id, group=present[drawn.about["number"]])
        found.append(present[drawn.about["number"]])
    return found


async def waited(run: Run, picks: int, node: str) -> None:
    """Wait for new picks, or until nothing is left to pick in. Raises the host's interruption."""
    while run.untaught() < picks and any(group.showable for group in run.groups(picked=False)):
        check_interrupted()
        say(f"Waiting for picks: {run.untaught()} of {picks}", node)
        await asyncio.sleep(POLL_SECONDS)
