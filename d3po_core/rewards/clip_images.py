"""The preprocessing of a CLIP model's images, with gradient: resize, centre crop, normalise."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import D3POError
from ..run.records import JsonObject
from ..textfiles import decode

FILES = ("preprocessor_config.json", "processor_config.json")
"""Where transformers keeps the settings; newer versions keep them in the second, under "image_processor"."""
FILTERS = {2: "bilinear", 3: "bicubic"}
"""Torch's names of filters, by Pillow's numbers of them."""
Size = int | dict[str, int]
"""One number of pixels, or {"height": ..., "width": ...}, or {"shortest_edge": ...}."""


@dataclass(frozen=True)
class ImagePreparation:
    """How images are resized, cropped and normalised for a model.

    Attributes:
        size: the shorter side, or (height, width), in pixels; None leaves images as they are.
        crop: (height, width) of the centre that is kept, padded with black if the image is smaller; None keeps all.
        mode: the filter, as `torch.nn.functional.interpolate` names it.
        mean, std: of red, green and blue; the model sees (image - mean) / std.
    """

    size: int | tuple[int, int] | None
    crop: tuple[int, int] | None
    mode: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, images: Tensor) -> Tensor:
        """Prepare images (B, 3, H, W) in [0, 1] as the network takes them, (B, 3, height, width)."""
        if self.size is not None:
            # With antialias the filter equals Pillow's, for enlarging too; without it torch's bicubic has another
            # constant. Pillow clips where bicubic overshoots.
            size = _sides(self.size, images.shape[-2], images.shape[-1])
            images = F.interpolate(images, size, mode=self.mode, antialias=True, align_corners=False).clamp(0, 1)
        if self.crop is not None:
            padding = [keep - have for keep, have in zip(self.crop, images.shape[-2:], strict=True)]  # < 0: crop
            before = [-(-each // 2) for each in padding]
            images = F.pad(images, (before[1], padding[1] - before[1], before[0], padding[0] - before[0]))
        mean, std = (torch.tensor(values).to(images)[:, None, None] for values in (self.mean, self.std))
        return (images - mean) / std

    @classmethod
    def read(cls, folder: Path) -> ImagePreparation:
        """Read the settings of a model's folder.

        Raises:
            D3POError: the folder has no such settings, or ones that are not understood.
        """
        for name in FILES:
            if (folder / name).is_file():
                try:
                    config = json.loads(decode((folder / name).read_bytes()))
                    return cls.of(config.get("image_processor", config))
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
    def of(cls, config: JsonObject) -> ImagePreparation:
        """Make the preparation from a CLIPImageProcessor's settings; raises KeyError or TypeError if they are wrong."""
        return cls(
            size=_size(config["size"]) if config.get("do_resize", True) else None,
            crop=_pair(config["crop_size"]) if config.get("do_center_crop", True) else None,
            mode=FILTERS[config.get("resample", 3)],
            mean=tuple(config["image_mean"]) if config.get("do_normalize", True) else (0.0,) * 3,
            std=tuple(config["image_std"]) if config.get("do_normalize", True) else (1.0,) * 3,
        )


def _size(value: Size) -> int | tuple[int, int]:
    if isinstance(value, int):
        return value
    return value["shortest_edge"] if "shortest_edge" in value else (value["height"], value["width"])


def _pair(value: Size) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value["height"], value["width"])


def _sides(size: int | tuple[int, int], height: int, width: int) -> tuple[int, int]:
    """Return (height, width) after resizing. With one number, the longer side keeps the ratio and is rounded down."""
    if isinstance(size, tuple):
        return size
    return (size, size * width // height) if height <= width else (size * height // width, size)
