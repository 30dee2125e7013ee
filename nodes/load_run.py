"""Load Preference Run: a taste without a sampler, to pick in, to teach from, or for its favourites."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

from ..d3po_core.run import Run
from ..d3po_core.run.images import read_image
from . import folders, upstream
from .inputs import ALIASES, taste_input
from .sampler import Trajectories

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
        return [(run.run_id, run.name, run.pick_revision) for run in folders.shelf().runs()]

    @classmethod
    def execute(cls, taste: str) -> Any:
        run = folders.known(taste)
        trajectories = {"run": run.run_id, "groups": [group.id for group in run.groups()], "pending": []}
        wanted = upstream.is_used(cls.hidden.prompt, cls.hidden.unique_id, FAVOURITES)
        return io.NodeOutput(trajectories, favourites(run) if wanted else None, run.counts("").picks)


def favourites(run: Run) -> Any:
    """The picked pictures of the newest one's size as the host's IMAGE (B, H, W, 3); blocked if there are none."""
    best = {stored.group_id: stored.pick.order[0] for stored in run.picks() if stored.pick.order}
    found = [read_image(run, name, candidate) for name, candidate in best.items()]
    if not found:
        return ExecutionBlocker(None)
    return torch.stack([image for image in found if image.shape == found[-1].shape]).movedim(1, -1)
