"""Decoding with gradient in overlapping tiles, in the memory of one tile.

The activations that a VAE's decoder keeps for the backward pass grow with the image, and soon exceed all other memory
that DRaFT takes. Here each tile keeps only its latents, and is decoded again in the backward pass.

Tiles overlap by a quarter. Over the middle half of an overlap one fades linearly into the next; the outer quarters are
context that is decoded and discarded. A decoder with a receptive field no larger than that context gives exactly the
image that it gives undivided. Real decoders see everything (group normalisation, attention): their tiles differ a
little in tone, which the fading hides.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

OVERLAP = 4
"""The overlap is a tile's side divided by this, which is also the smallest side of a tile, in latents."""
CORNER = 8
"""Side, in latents, of the corner that is decoded to measure how many pixels a latent becomes."""


def decode_in_tiles(decode: Callable[[Tensor], Tensor], latents: Tensor, tile: int) -> Tensor:
    """Decode latents, in tiles where the image is larger than one tile.

    Args:
        decode: latents (B, ..., h, w) to images (B, 3, f h, f w), for any h and w; deterministic.
        latents: (B, ..., h, w).
        tile: side of a tile in pixels; 0 decodes all at once.

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
            decoded = checkpoint(decode, part, use_reentrant=False, preserve_rng_state=False)
            if image is None:
                image = decoded.new_zeros(*decoded.shape[:2], factor * height, factor * width)
            y, x = factor * top, factor * left
            weight = (down[:, None] * across).to(decoded)
            image[..., y : y + len(down), x : x + len(across)] += weight * decoded
    assert image is not None
    return image


def _spans(length: int, side: int, factor: int) -> list[tuple[int, Tensor]]:
    """Place tiles along one direction: where each begins, in latents, and the weights of its pixels.

    The weights of all tiles add up to 1 at every pixel.

    Args:
        length: of the latents along this direction.
        side: of a tile, in latents; the last tile begins earlier, so that it is as large as the others.
        factor: pixels per latent.
    """
    if side >= length:
        return [(0, torch.ones(factor * length, dtype=torch.float64))]
    overlap, last = side // OVERLAP, length - side
    place = (torch.arange(factor * side, dtype=torch.float64) + 0.5) / factor
    tiles, total = [], torch.zeros(factor * length, dtype=torch.float64)
    for start in [*range(0, last, side - overlap), last]:
        weight = torch.ones_like(place)
        if start > 0:
            weight = weight * _fade(place, overlap)
        if start < last:
            weight = weight * _fade(side - place, overlap)
        tiles.append((start, weight))
        total[factor * start : factor * (start + side)] += weight
    return [(start, weight / total[factor * start : factor * (start + side)]) for start, weight in tiles]


def _fade(distance: Tensor, overlap: int) -> Tensor:
    """Compute weights in [0, 1] from the distance to a tile's cut edge, in latents."""
    return ((distance - overlap / 4) / (overlap / 2)).clamp(0, 1)
