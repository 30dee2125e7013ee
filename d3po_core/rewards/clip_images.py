"""What a CLIP model's image processor does to a picture, with gradient: resize, centre crop, normalise."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import D3POError

FILES = ("preprocessor_config.json", "processor_config.json")
"""Where transformers keeps it; newer versions in the second, under "image_processor"."""
FILTERS = {2: "bilinear", 3: "bicubic"}
"""Pillow's numbers of filters, and torch's names of them."""


@dataclass(frozen=True)
class ImagePreparation:
    """How pictures are prepared.

    Attributes:
        size: of the shorter side, or (height, width), in pixels; None leaves pictures as they are.
        crop: (height, width) of the middle to keep, with black around it where there is less; None keeps all.
        mode: filter of `torch.nn.functional.interpolate`.
        mean, std: of red, green and blue; their difference and quotient is what the model sees.
    """

    size: int | tuple[int, int] | None
    crop: tuple[int, int] | None
    mode: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, images: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) in [0, 1] to what the network takes, (B, 3, height, width)."""
        if self.size is not None:
            # With antialias the filter is Pillow's, for enlarging too; without it torch's bicubic has another
            # constant. Where bicubic overshoots, Pillow clips.
            size = _sides(self.size, images.shape[-2], images.shape[-1])
            images = F.interpolate(images, size, mode=self.mode, antialias=True, align_corners=False).clamp(0, 1)
        if self.crop is not None:
            more = [keep - have for keep, have in zip(self.crop, images.shape[-2:], strict=True)]  # negative crops
            before = [-(-each // 2) for each in more]
            images = F.pad(images, (before[1], more[1] - before[1], before[0], more[0] - before[0]))
        mean, std = (torch.tensor(values).to(images)[:, None, None] for values in (self.mean, self.std))
        return (images - mean) / std

    @classmethod
    def read(cls, folder: Path) -> ImagePreparation:
        """From a model's folder.

        Raises:
            D3POError: nothing there says how pictures are prepared, or in a way that is not known.
        """
        for name in FILES:
            if (folder / name).is_file():
                try:
                    found = json.loads((folder / name).read_text(encoding="utf-8"))
                    return cls.of(found.get("image_processor", found))
                except (ValueError, KeyError, TypeError, AttributeError) as error:
                    raise D3POError(
                        f"{folder / name} says how pictures are prepared in a way that is not understood ({error!r}).",
                        "Use that file of the CLIP that the model was made from.",
                    ) from error
        raise D3POError(
            f"{folder} does not say how pictures are prepared: it has no {FILES[0]}.",
            "Copy that file from the CLIP that the model was made from.",
        )

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> ImagePreparation:
        """From an image processor's settings."""
        return cls(
            size=_size(config["size"]) if config.get("do_resize", True) else None,
            crop=_pair(config["crop_size"]) if config.get("do_center_crop", True) else None,
            mode=FILTERS[config.get("resample", 3)],
            mean=tuple(config["image_mean"]) if config.get("do_normalize", True) else (0.0,) * 3,
            std=tuple(config["image_std"]) if config.get("do_normalize", True) else (1.0,) * 3,
        )


def _size(value: int | Mapping[str, int]) -> int | tuple[int, int]:
    if isinstance(value, int):
        return value
    return value["shortest_edge"] if "shortest_edge" in value else (value["height"], value["width"])


def _pair(value: int | Mapping[str, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value["height"], value["width"])


def _sides(size: int | tuple[int, int], height: int, width: int) -> tuple[int, int]:
    """Height and width after resizing; with one number for the shorter side the other keeps the shape, rounded down."""
    if isinstance(size, tuple):
        return size
    return (size, size * width // height) if height <= width else (size * height // width, size)
