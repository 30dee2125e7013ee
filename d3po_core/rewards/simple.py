"""Rewards that look at colours alone."""

from __future__ import annotations

import io
from functools import cache
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor

if TYPE_CHECKING:
    from ..embedded.classifier import GardenClassifier

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in brightness (ITU-R BT.601)."""


def warmth(images: Tensor, prompts: list[str]) -> Tensor:
    """Mean of red minus mean of blue, in [-1, 1]."""
    return (images[:, 0] - images[:, 2]).mean((1, 2))


def contrast(images: Tensor, prompts: list[str]) -> Tensor:
    """RMS contrast: the standard deviation of a picture's luma Y' (Peli 1990, eq. 1), in [0, 1/2].

    The variance gets 1e-8 added, so that the gradient is finite (and 0) where a picture has one brightness all over.
    """
    return (brightness(images).var((1, 2), correction=0) + 1e-8).sqrt()


def brightness(images: Tensor) -> Tensor:
    """Luma Y' of pictures (B, 3, H, W), as (B, H, W)."""
    return sum(weight * images[:, channel] for channel, weight in enumerate(LUMA))  # type: ignore[return-value]


@cache
def _loaded() -> GardenClassifier:
    from ..embedded.classifier import GardenClassifier

    return GardenClassifier.load()


@torch.inference_mode(False)  # whose tensors could take no part in gradients later
def _judge(device: torch.device) -> GardenClassifier:
    return _loaded().to(device)


def garden_size(images: Tensor, prompts: list[str]) -> Tensor:
    """How large the bloom is, in standard deviations of the renderings that the judge learned from."""
    return _judge(images.device)(images)["size"]


def garden_lean(images: Tensor, prompts: list[str]) -> Tensor:
    """How far the flower leans to the right, in the same units."""
    return _judge(images.device)(images)["lean"]


QUALITY = 95


def jpeg_size(images: Tensor) -> Tensor:
    """Size of each picture (B, 3, H, W) as a JPEG of quality 95, in units of 1,000 bytes. (B,), on the CPU"""
    pixels = (images.float() * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()
    sizes = []
    for picture in pixels:
        file = io.BytesIO()
        Image.fromarray(picture).save(file, format="JPEG", quality=QUALITY)
        sizes.append(file.tell() / 1000)
    return torch.tensor(sizes)


def compressibility(images: Tensor, prompts: list[str]) -> Tensor:
    """Minus the size in units of 1,000 bytes."""
    return -jpeg_size(images)


def incompressibility(images: Tensor, prompts: list[str]) -> Tensor:
    """The size in units of 1,000 bytes."""
    return jpeg_size(images)
