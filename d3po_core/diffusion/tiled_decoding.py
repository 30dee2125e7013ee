"""Decoding in overlapping tiles that a gradient passes through, in the memory of one tile.

What a VAE's decoder keeps for the backward pass grows with the picture, and soon is more than all the rest of DRaFT
takes. Here each tile keeps its latents alone, and is decoded again when its turn in the backward pass comes.

Tiles overlap by a quarter. Over the middle half of an overlap one fades linearly into the next; the outer quarters are
context that is decoded and thrown away. So a decoder that looks no further than that gives the very picture that it
gives whole. Real ones look at everything (normalisation over groups of channels, attention in the middle): their tiles
differ a little in tone, which the fading hides.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

OVERLAP = 4
"""A tile overlaps the next by its side over this; no tile is smaller than this many latents a side."""
CORNER = 8
"""Latents a side of the corner by which one sees how many pixels a latent becomes."""


def decode_in_tiles(decode: Callable[[Tensor], Tensor], latents: Tensor, tile: int) -> Tensor:
    """Latents as a picture, decoded in tiles where it is larger than one.

    Args:
        decode: latents (B, ..., h, w) to images (B, 3, f h, f w), for any h and w; in evaluation mode, without chance.
        latents: (B, ..., h, w).
        tile: pixels a side; 0 decodes whole.

    Returns:
        (B, 3, f h, f w), with gradient where it is enabled.
    """
    height, width = latents.shape[-2:]
    if not tile:
        return decode(latents)
    with torch.no_grad():
        corner = latents[:1, ..., :CORNER, :CORNER]
        factor = decode(corner).shape[-1] // corner.shape[-1]
    side = max(OVERLAP, tile // factor)
    if side >= max(height, width):
        return decode(latents)
    rows, columns = (_spans(length, side, factor) for length in (height, width))
    image: Tensor | None = None
    for top, down in rows:
        for left, across in columns:
            part = latents[..., top : top + side, left : left + side]
            found = checkpoint(decode, part, use_reentrant=False, preserve_rng_state=False)
            if image is None:
                image = found.new_zeros(*found.shape[:2], factor * height, factor * width)
            y, x = factor * top, factor * left
            weight = (down[:, None] * across).to(found)
            image[..., y : y + len(down), x : x + len(across)] += weight * found
    assert image is not None
    return image


def _spans(length: int, side: int, factor: int) -> list[tuple[int, Tensor]]:
    """Where tiles begin along one direction, in latents, and the weight of each of their pixels; weights add up to 1.

    Args:
        length: latents of the whole.
        side: of a tile; the last one begins earlier, so that it is whole too.
        factor: pixels to a latent.
    """
    if side >= length:
        return [(0, torch.ones(factor * length, dtype=torch.float64))]
    overlap, last = side // OVERLAP, length - side
    place = (torch.arange(factor * side, dtype=torch.float64) + 0.5) / factor
    found, total = [], torch.zeros(factor * length, dtype=torch.float64)
    for start in [*range(0, last, side - overlap), last]:
        weight = torch.ones_like(place)
        if start > 0:
            weight = weight * _fade(place, overlap)
        if start < last:
            weight = weight * _fade(side - place, overlap)
        found.append((start, weight))
        total[factor * start : factor * (start + side)] += weight
    return [(start, weight / total[factor * start : factor * (start + side)]) for start, weight in found]


def _fade(distance: Tensor, overlap: int) -> Tensor:
    """Weight by the distance from where a tile was cut, in latents."""
    return ((distance - overlap / 4) / (overlap / 2)).clamp(0, 1)
