"""Built-in rewards: colours, the embedded model's flowers, and the size of a JPEG.

Each takes images (B, 3, H, W) in [0, 1] and their B prompts, which none of them reads, and returns scores (B,).

The size of a JPEG is there twice: as an encoder makes it, and with a gradient. Two parts of an encoder (ITU-T T.81)
that decide the size are not smooth: rounding, and the table of codes. Both are replaced by a smooth count of bits.
Making JPEG differentiable is the idea of Shin and Song (2017, "JPEG-resistant adversarial images"). DRaFT (Clark et al.
2023, arXiv 2309.17400, section on compressibility) uses it for a reward: the distance of an image from its decompressed
copy. Here the reward is the size, as in DDPO. On images of the embedded model the rank correlation with real sizes is
0.996; on blurred and faded noise 0.999.
"""

from __future__ import annotations

import io
import math
from functools import cache
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
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
"""Of the JPEG, 1 to 100, as libjpeg defines it."""


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


# Tables K.1 and K.2 of ITU-T T.81, Annex K: quantisation steps of luma and chroma, row by row.
LUMA_STEPS = (
    *(16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55),
    *(14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62),
    *(18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMA_STEPS = (
    *(17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99),
    *(24, 26, 56, 99, 99, 99, 99, 99, 47, 66, 99, 99, 99, 99, 99, 99),
    *(99,) * 32,
)
FILE_BITS = 2.0
"""Bits of a file for each bit counted here (a file also stores where the coefficients are that are not 0): the slope of
real sizes over counted ones, 2.0 on noise, 2.2 on the embedded model's images."""


def smooth_compressibility(images: Tensor, prompts: list[str]) -> Tensor:
    """Return minus the smooth size, roughly in units of 1,000 bytes: (B,). The prompts are not read."""
    return -smooth_jpeg_size(images)


def smooth_incompressibility(images: Tensor, prompts: list[str]) -> Tensor:
    """Return the smooth size, roughly in units of 1,000 bytes: (B,). The prompts are not read."""
    return smooth_jpeg_size(images)


def smooth_jpeg_size(images: Tensor) -> Tensor:
    """Return roughly the size of each image as a JPEG without its headers, in units of 1,000 bytes: (B,).

    Args:
        images: (B, 3, H, W) in [0, 1]. Where a side is not a multiple of 16, its last row or column is repeated.
    """
    luma, blue, red = ycbcr(images * 255)
    planes = [(luma, LUMA_STEPS), (halved(blue), CHROMA_STEPS), (halved(red), CHROMA_STEPS)]
    bits = [smooth_bits(coefficients(plane) / steps(table, QUALITY).to(plane)) for plane, table in planes]
    return sum(bits) * FILE_BITS / 8000  # type: ignore[return-value]


def ycbcr(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return luma - 128, blue and red chroma, (B, H, W) each, of images (B, 3, H, W) in [0, 255] (JFIF, BT.601)."""
    luma = brightness(images)
    return luma - 128, (images[:, 2] - luma) / 1.772, (images[:, 0] - luma) / 1.402


def halved(plane: Tensor) -> Tensor:
    """Average 2 x 2 pixels of a plane (B, H, W), as encoders do with chroma by default (4:2:0)."""
    return F.avg_pool2d(padded(plane, 2), 2)


def coefficients(plane: Tensor) -> Tensor:
    """Transform each 8 x 8 block of planes (B, H, W) by the discrete cosine transform (T.81, A.3.3).

    Returns:
        Coefficients (B, H / 8, W / 8, 8, 8), H and W rounded up to multiples of 8.
    """
    place = torch.arange(8, dtype=torch.float64)
    basis = torch.cos((2 * place + 1) * place[:, None] * math.pi / 16) / 2  # rows are frequencies
    basis[0] /= math.sqrt(2)
    basis = basis.to(plane)
    return basis @ padded(plane, 8).unfold(1, 8, 8).unfold(2, 8, 8) @ basis.T


def padded(plane: Tensor, multiple: int) -> Tensor:
    """Repeat the last row and column of a plane (B, H, W) until its sides are multiples of `multiple`."""
    height, width = plane.shape[-2:]
    return F.pad(plane[:, None], (0, -width % multiple, 0, -height % multiple), mode="replicate")[:, 0]


def steps(table: tuple[int, ...], quality: int) -> Tensor:
    """Return the quantisation steps (8, 8) of a quality, as libjpeg scales the tables of Annex K."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    return torch.tensor([min(255, max(1, (step * scale + 50) // 100)) for step in table]).reshape(8, 8)


def smooth_bits(quantised: Tensor) -> Tensor:
    """Count the bits of quantised coefficients smoothly: the sum of log2(1 + (2c)^2) / 2.

    The summand is 1/2 at c = 1/2, where rounding turns 0 into 1, is close to 1 + log2|c| for large c, and is smooth at
    0, unlike log2(1 + |c|). A block's mean is coded as its difference from the block before (T.81, F.1.2.1).

    Args:
        quantised: coefficients divided by the quantisation steps and not rounded, (B, rows, columns, 8, 8).

    Returns:
        Bits (B,).
    """
    mean = quantised[..., 0, 0].flatten(1)
    difference = mean.diff(dim=1, prepend=mean.new_zeros(len(mean), 1))
    detail = quantised.flatten(-2)[..., 1:].flatten(1)
    every = torch.cat([difference, detail], 1)
    return (1 + 4 * every.square()).log2().sum(1) / 2
