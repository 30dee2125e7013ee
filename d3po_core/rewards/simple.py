"""Built-in rewards: colours, the embedded model's flowers, and the size of a JPEG.

Each takes images (B, 3, H, W) in [0, 1] and their B prompts, which none of them reads, and returns scores (B,).
"""

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
    """Return the mean of red minus the mean of blue, in [-1, 1]."""
    return (images[:, 0] - images[:, 2]).mean((1, 2))


def contrast(images: Tensor, prompts: list[str]) -> Tensor:
    """Return the RMS contrast: the standard deviation of an image's luma Y' (Peli 1990, eq. 1), in [0, 1/2].

    1e-8 is added to the variance, so that the gradient of an image of one brightness is 0 and not infinite.
    """
    return (brightness(images).var((1, 2), correction=0) + 1e-8).sqrt()


def brightness(images: Tensor) -> Tensor:
    """Return the luma Y' (B, H, W) of images (B, 3, H, W)."""
    return sum(weight * images[:, channel] for channel, weight in enumerate(LUMA))  # type: ignore[return-value]


@cache
def _load_classifier() -> GardenClassifier:
    from ..embedded.classifier import GardenClassifier

    return GardenClassifier.load()


@torch.inference_mode(False)  # tensors made inside it never allow gradients
def _classifier(device: torch.device) -> GardenClassifier:
    return _load_classifier().to(device)


def garden_size(images: Tensor, prompts: list[str]) -> Tensor:
    """Return how large the bloom is, in standard deviations of the renderings that the classifier was trained on."""
    return _classifier(images.device)(images)["size"]


def garden_lean(images: Tensor, prompts: list[str]) -> Tensor:
    """Return how far the flower leans to the right, in standard deviations of the same renderings."""
    return _classifier(images.device)(images)["lean"]


QUALITY = 95


def jpeg_size(images: Tensor) -> Tensor:
    """Return the size of each image (B, 3, H, W) as a JPEG of quality 95, in units of 1,000 bytes: (B,), on the CPU."""
    pixels = (images.float() * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()
    sizes = []
    for image in pixels:
        file = io.BytesIO()
        Image.fromarray(image).save(file, format="JPEG", quality=QUALITY)
        sizes.append(file.tell() / 1000)
    return torch.tensor(sizes)


def compressibility(images: Tensor, prompts: list[str]) -> Tensor:
    """Return minus the size of the JPEG, in units of 1,000 bytes."""
    return -jpeg_size(images)


def incompressibility(images: Tensor, prompts: list[str]) -> Tensor:
    """Return the size of the JPEG, in units of 1,000 bytes."""
    return jpeg_size(images)
