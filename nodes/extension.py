"""What the host is given: the nodes, and the gallery's gallery."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import ComfyExtension

from . import gallery
from .import_images import PreferencePairsFromImages
from .pick import AutoPick, LoadPreferenceRun, PairedTrajectorySampler, PreferenceCollector
from .reward import DraftLoraTrainer, Reward, RewardFromPicks
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
    Reward,
    RewardFromPicks,
    PreferencePairsFromImages,
]


class D3POExtension(ComfyExtension):
    """The pack."""

    async def on_load(self) -> None:
        gallery.add()

    async def get_node_list(self) -> list[Any]:
        return NODES
