"""Preference Collector: the gallery in a node. It never blocks and never adds anything twice."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from . import folders
from .sampler import Trajectories


class PreferenceCollector(io.ComfyNode):
    """See the help page."""

    @classmethod
    def define_schema(cls) -> Any:
        return io.Schema(
            node_id="D3PO_PreferenceCollector",
            display_name="Preference Collector (pick favourites)",
            category="D3PO",
            description="Pick the pictures you like, here or in the sidebar. Nothing waits for you.",
            search_aliases=["taste", "favourite", "favorite", "rlhf", "dpo", "preference", "gallery", "d3po"],
            inputs=[
                Trajectories.Input("trajectories", optional=True, tooltip="From the Paired Trajectory Sampler."),
                io.String.Input("taste", default=folders.AUTO, tooltip="Name of the taste, as at the sampler."),
            ],
            outputs=[Trajectories.Output(display_name="trajectories")],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, **values: Any) -> Any:
        return [(run.run_id, run.pick_revision) for run in folders.shelf().runs()]

    @classmethod
    def execute(cls, taste: str, trajectories: dict[str, Any] | None = None) -> Any:
        if trajectories:
            return io.NodeOutput(trajectories, ui={"d3po_taste": [trajectories["run"]]})
        named = (run.run_id for run in folders.shelf().runs() if taste in (folders.AUTO, run.name))
        return io.NodeOutput(None, ui={"d3po_taste": [next(named, "")]})
