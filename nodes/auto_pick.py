"""Auto Pick: a scorer picks in place of a person, to try the whole loop out without a click."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..d3po_core.rewards import REWARDS, get_reward
from ..d3po_core.rewards import auto_pick as judging
from . import folders
from .inputs import ALIASES
from .rewards import WRITTEN, RewardType
from .sampler import Trajectories

WHO = "auto pick"
NAMES = [name for name in REWARDS if not name.startswith(("garden", "smooth"))]


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
                    options=NAMES,
                    default="warmth",
                    tooltip="What it likes: " + "; ".join(f"{name}: {REWARDS[name].likes}" for name in NAMES) + ".",
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
        return [(run.run_id, run.counts("").drawn) for run in folders.shelf().runs()]

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
        count = sum(1 for _ in judging.auto_pick(run, likes, WHO, kind, mistakes))
        return io.NodeOutput(trajectories, ui={"text": [f"Picked in {count} groups."]})
