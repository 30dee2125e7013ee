"""Scorers: programs that judge images, as a stand-in for a person while testing, and to measure before and after.

The JPEG scorers are those of DDPO (Black et al. 2023, arXiv 2305.13301, section 5.1) and D3PO (Yang et al. 2023,
arXiv 2311.13231): the size of a JPEG of quality 95 in units of 1,000 bytes. The "garden" scorers know the embedded
model's pictures only. Aesthetic and prompt-alignment scorers need downloads and are left out.
"""

from __future__ import annotations

import io
from functools import cache
from typing import TYPE_CHECKING, Protocol

import torch
from PIL import Image
from torch import Tensor

from .errors import D3POError

if TYPE_CHECKING:
    from .embedded.judge import Judge


class Scorer(Protocol):
    """Says how much it likes each image; only the order of scores means anything."""

    def __call__(self, images: Tensor, prompts: list[str]) -> Tensor:
        """Score images.

        Args:
            images: (B, 3, H, W) in [0, 1].
            prompts: what each image was drawn for, B.

        Returns:
            Scores (B,), float32 on the CPU; higher is better.
        """
        ...


def jpeg_size(images: Tensor) -> Tensor:
    """Size of each image (B, 3, H, W) as a JPEG of quality 95, in units of 1,000 bytes. (B,)"""
    pixels = (images.float() * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()
    sizes = []
    for picture in pixels:
        file = io.BytesIO()
        Image.fromarray(picture).save(file, format="JPEG", quality=95)
        sizes.append(file.tell() / 1000)
    return torch.tensor(sizes)


def compressibility(images: Tensor, prompts: list[str]) -> Tensor:
    """Likes images that make a small JPEG: smooth, empty, blurred."""
    return -jpeg_size(images)


def incompressibility(images: Tensor, prompts: list[str]) -> Tensor:
    """Likes images that make a large JPEG: busy, grainy."""
    return jpeg_size(images)


def warmth(images: Tensor, prompts: list[str]) -> Tensor:
    """Likes warm colours: mean of red minus mean of blue."""
    return (images[:, 0] - images[:, 2]).float().mean((1, 2)).cpu()


@cache
def _judge() -> Judge:
    from .embedded.judge import Judge

    return Judge.load()


@torch.no_grad()
def garden_size(images: Tensor, prompts: list[str]) -> Tensor:
    """Likes large blooms (embedded model only)."""
    return _judge()(images.float().cpu())["size"]


@torch.no_grad()
def garden_lean(images: Tensor, prompts: list[str]) -> Tensor:
    """Likes flowers that lean to the right (embedded model only)."""
    return _judge()(images.float().cpu())["lean"]


SCORERS: dict[str, Scorer] = {
    "compressibility": compressibility,
    "incompressibility": incompressibility,
    "warmth": warmth,
    "garden-size": garden_size,
    "garden-lean": garden_lean,
}
"""The name of every scorer; its docstring says what it likes."""


def get_scorer(name: str) -> Scorer:
    """A scorer by its name.

    Raises:
        D3POError: there is none of that name.
    """
    if name not in SCORERS:
        raise D3POError(f"There is no scorer called '{name}'.", f"Choose one of {', '.join(SCORERS)}.")
    return SCORERS[name]
