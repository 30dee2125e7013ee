"""A small network that says what an image of the embedded model shows.

It was trained on renderings alone (tools/garden/train_classifier.py), never on samples or on the autoencoder's output,
so that it can measure both. Kind, colour and sky are classes. Size and lean are numbers, scaled so that those of
renderings have mean 0 and standard deviation 1.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from . import ATTRIBUTES, CLASSIFIER_FOLDER, parse

WIDTHS = (24, 48, 96, 128)
WEIGHTS = "model.safetensors"
SIDE = 64


class GardenClassifier(nn.Module):
    """Strided convolutions of these widths, then a layer over all places, because size and lean depend on places."""

    def __init__(self, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        self.widths = tuple(widths)
        layers: list[nn.Module] = []
        channels = 3
        for width in widths:
            layers += [nn.Conv2d(channels, width, 3, stride=2, padding=1), nn.GroupNorm(8, width), nn.SiLU()]
            channels = width
        self.features = nn.Sequential(*layers, nn.Conv2d(channels, 48, 1), nn.SiLU(), nn.Flatten())
        self.hidden = nn.Sequential(nn.Linear(48 * (SIDE // 2 ** len(self.widths)) ** 2, 128), nn.SiLU())
        self.heads = nn.ModuleDict({name: nn.Linear(128, len(values)) for name, values in ATTRIBUTES.items()})
        self.heads["size"], self.heads["lean"] = nn.Linear(128, 1), nn.Linear(128, 1)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Classify images (B, 3, H, W) in [0, 1].

        Returns:
            "kind", "colour" and "sky": logits (B, classes); "size" and "lean": (B,).
        """
        images = images.to(next(self.parameters()).dtype)
        if images.shape[-2:] != (SIDE, SIDE):
            images = F.interpolate(images, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)
        hidden = self.hidden(self.features(images * 2 - 1))
        outputs = {name: head(hidden) for name, head in self.heads.items()}
        return {name: value if name in ATTRIBUTES else value[:, 0] for name, value in outputs.items()}

    @torch.no_grad()
    def attribute_correct(self, images: torch.Tensor, prompts: Sequence[str]) -> dict[str, torch.Tensor]:
        """Return for each attribute whether images show what their prompts name: bools (B,), true if one names nothing.

        Args:
            images: (B, 3, H, W) in [0, 1].
            prompts: B.
        """
        outputs, attributes = self(images), [parse(prompt) for prompt in prompts]
        right = {}
        for name, values in ATTRIBUTES.items():
            shown = [values[best] for best in outputs[name].argmax(1).tolist()]
            right[name] = torch.tensor(
                [of.get(name, value) == value for of, value in zip(attributes, shown, strict=True)]
            )
        return right

    def fidelity(self, images: torch.Tensor, prompts: Sequence[str]) -> dict[str, float]:
        """Return for each attribute the share of images that show what their prompts name."""
        return {name: hits.float().mean().item() for name, hits in self.attribute_correct(images, prompts).items()}

    def save(self, folder: Path) -> None:
        """Write the weights in half precision, and the settings of the network."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file({k: v.detach().cpu().half().contiguous() for k, v in self.state_dict().items()}, folder / WEIGHTS)
        (folder / "config.json").write_text(json.dumps({"widths": list(self.widths)}) + "\n")

    @classmethod
    def load(cls, folder: Path | str | None = None) -> GardenClassifier:
        """Load a frozen classifier in float32 from a folder, by default from the one in this package."""
        folder = Path(folder or CLASSIFIER_FOLDER)
        classifier = cls(json.loads((folder / "config.json").read_text())["widths"])
        classifier.load_state_dict({k: v.float() for k, v in load_file(folder / WEIGHTS).items()})
        return classifier.eval().requires_grad_(False)
