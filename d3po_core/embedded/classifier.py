"""The judge: a small network that says what a garden picture shows.

It learned from renderings alone (see train_judge.py), never from samples or from the autoencoder's output,
so that it can measure both. Kind, colour and sky are classes; size and lean are numbers scaled so that
renderings spread by one, both with mean nought.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from . import CLASSIFIER_FOLDER
from .prompts import ATTRIBUTES, parse

WIDTHS = (24, 48, 96, 128)
WEIGHTS = "model.safetensors"
SIDE = 64


class GardenClassifier(nn.Module):
    """Strided convolutions, then a layer over all places (size and lean are about places)."""

    def __init__(self, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        self.widths = tuple(widths)
        layers: list[nn.Module] = []
        before = 3
        for wide in widths:
            layers += [nn.Conv2d(before, wide, 3, stride=2, padding=1), nn.GroupNorm(8, wide), nn.SiLU()]
            before = wide
        self.features = nn.Sequential(*layers, nn.Conv2d(before, 48, 1), nn.SiLU(), nn.Flatten())
        self.hidden = nn.Sequential(nn.Linear(48 * (SIDE // 2 ** len(self.widths)) ** 2, 128), nn.SiLU())
        self.heads = nn.ModuleDict({name: nn.Linear(128, len(values)) for name, values in ATTRIBUTES.items()})
        self.heads["size"], self.heads["lean"] = nn.Linear(128, 1), nn.Linear(128, 1)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Images (B, 3, H, W) in [0, 1] -> logits of kind, colour and sky, and size and lean (B,)."""
        images = images.to(next(self.parameters()).dtype)
        if images.shape[-2:] != (SIDE, SIDE):
            images = F.interpolate(images, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)
        hidden = self.hidden(self.features(images * 2 - 1))
        said = {name: head(hidden) for name, head in self.heads.items()}
        return {name: value if name in ATTRIBUTES else value[:, 0] for name, value in said.items()}

    @torch.no_grad()
    def attribute_correct(self, images: torch.Tensor, prompts: Sequence[str]) -> dict[str, torch.Tensor]:
        """For each attribute whether the picture shows what its prompt names (true where it names nothing)."""
        said, wanted = self(images), [parse(prompt) for prompt in prompts]
        right = {}
        for name, values in ATTRIBUTES.items():
            best = said[name].argmax(1).tolist()
            hits = [name not in want or values[b] == want[name] for b, want in zip(best, wanted, strict=True)]
            right[name] = torch.tensor(hits)
        return right

    def fidelity(self, images: torch.Tensor, prompts: Sequence[str]) -> dict[str, float]:
        """For each attribute the fraction of pictures that show what their prompt names."""
        return {name: hits.float().mean().item() for name, hits in self.attribute_correct(images, prompts).items()}

    def save(self, folder: Path) -> None:
        """Writes the weights in half precision, and what is needed to build the network again."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file({k: v.detach().cpu().half().contiguous() for k, v in self.state_dict().items()}, folder / WEIGHTS)
        (folder / "config.json").write_text(json.dumps({"widths": list(self.widths)}) + "\n")

    @classmethod
    def load(cls, folder: Path | str | None = None) -> GardenClassifier:
        """The judge from its folder (by default the one in this package), in float32, for measuring only."""
        folder = Path(folder or CLASSIFIER_FOLDER)
        judge = cls(json.loads((folder / "config.json").read_text())["widths"])
        judge.load_state_dict({k: v.float() for k, v in load_file(folder / WEIGHTS).items()})
        return judge.eval().requires_grad_(False)
