"""The pixels of an image file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps

from ..errors import D3POError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


@dataclass(frozen=True)
class Fingerprint:
    """What tells images apart.

    Attributes:
        size: width and height, in pixels.
        pixels: a hash of the decoded image, the same for a copy under another name or in another lossless format.
    """

    size: tuple[int, int]
    pixels: str


@contextmanager
def open_image(path: Path) -> Iterator[Image.Image]:
    """Open an image file without decoding it yet.

    Raises:
        D3POError: it is missing, or cannot be read or decoded, also inside the `with` block.
    """
    try:
        with Image.open(path) as image:
            yield image
    except FileNotFoundError as error:
        raise D3POError(f"There is no file {path}.", "Check the path; paths are relative to the file.") from error
    # Pillow's decoders raise these for files that are cut, damaged, not images, or absurdly large.
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise D3POError(f"{path.name} is not a picture that can be read.", "Use PNG, JPEG or WebP.") from error


def read_rgb(path: Path) -> Image.Image:
    """Return an image as RGB, turned upright; of an animation the first frame. Raises as `open_image`."""
    with open_image(path) as image:
        return ImageOps.exif_transpose(image).convert("RGB")


def fingerprint(path: Path) -> Fingerprint:
    """Return the fingerprint of an image file; raises as `open_image`."""
    image = read_rgb(path)
    return Fingerprint(image.size, hashlib.sha256(repr(image.size).encode() + image.tobytes()).hexdigest())
