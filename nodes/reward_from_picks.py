"""Reward From Picks: a taste's picks as a reward, if they tell enough."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..d3po_core.rewards import get_reward
from ..d3po_core.rewards.features import STATISTICS
from ..d3po_core.rewards.file import save_judge
from ..d3po_core.rewards.judge import fit_judge
from . import folders
from .clip_vision import HostClip
from .inputs import ALIASES, taste_input
from .rewards import RewardType, changed_on_disk
from .sampler import Trajectories
from .working import say

FILE = "reward.safetensors"


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
        return [(run.run_id, run.name, run.pick_revision) for run in folders.shelf().runs()], changed_on_disk(features)

    @classmethod
    def execute(
        cls,
        taste: str,
        trajectories: dict[str, Any] | None = None,
        features: str = STATISTICS,
        clip_vision: Any = None,
    ) -> Any:
        run = folders.shelf().run(trajectories["run"]) if trajectories else folders.known(taste)
        say(f"Learning from the picks of '{run.name}'", str(cls.hidden.unique_id))
        if clip_vision is not None:
            seen = fit_judge(run, HostClip(clip_vision))
            return io.NodeOutput(seen.reward(), "", ui={"text": [str(seen.facts)]})
        fitted = fit_judge(run, features.strip() or STATISTICS)
        file = save_judge(fitted, run.folder / FILE)  # refuses what knows no better than chance
        written = f"picks:{file}"
        return io.NodeOutput(get_reward(written), written, ui={"text": [str(fitted.facts)]})
