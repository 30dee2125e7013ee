"""Reward: what a program likes, as a value that other nodes take."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from comfy_api.latest import io

from ..d3po_core.errors import D3POError
from ..d3po_core.rewards import REWARDS, get_reward, weighted_sum
from .inputs import ALIASES

RewardType = io.Custom("D3PO_REWARD")
NAMES = [name for name in REWARDS if not name.startswith("garden")]
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
        likes = "; ".join(f"{name}: {REWARDS[name].likes}" for name in NAMES)
        return io.Schema(
            node_id="D3PO_Reward",
            display_name="Reward",
            category="D3PO",
            description="What a program likes: to teach a model by it (DRaFT), or to pick by it.",
            search_aliases=[*ALIASES, "scorer", "aesthetic", "pickscore", "hpsv2", "draft"],
            inputs=[
                io.Combo.Input("reward", options=NAMES, default="warmth", tooltip=f"What it likes: {likes}."),
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
