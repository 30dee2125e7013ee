"""What the host is given: the nodes, and the gallery's routes."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from . import gallery
from .import_images import PreferencePairsFromImages
from .pick import AutoPick, LoadPreferenceRun, PairedTrajectorySampler, PreferenceCollector
from .reward import DraftLoraTrainer, RewardFromPicks, RewardNode
from .train import LoadTasteLora, LoraTrainer, PreferenceCompare

NODES = [
    PairedTrajectorySampler,
    PreferenceCollector,
    LoraTrainer,
    LoadTasteLora,
    LoadPreferenceRun,
    PreferenceCompare,
    AutoPick,
    DraftLoraTrainer,
    RewardNode,
    RewardFromPicks,
    PreferencePairsFromImages,
]


class D3POExtension(ComfyExtension):
    """The pack."""

    async def on_load(self) -> None:
        gallery.add_routes()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODES
