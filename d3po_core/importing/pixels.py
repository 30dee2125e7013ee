"""The pixels of an image file as people see them in a viewer, and the texts that PNG files carry.

PNG's text chunks are read here and kept from Pillow: it refuses a whole image if one of them is long (ComfyUI's
workflows are), and takes UTF-8 in tEXt, which several programs write against the specification, for Latin-1.
"""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps

from ..errors import D3POError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
PNG = b"\x89PNG\r\n\x1a\n"
TEXT_CHUNKS = (b"tEXt", b"zTXt", b"iTXt")
PROFILE = b"Raw profile type"
"""Begins the names of text chunks that hold EXIF, which Pillow decodes."""
MAX_TEXT = 32 * 2**20
"""Bytes of a file's texts together, decompressed, at most; what is longer is left out."""
WHITE = (255, 255, 255, 255)


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
    """Open an image file without decoding it yet; of a PNG, `info` has the texts of all text chunks by name.

    Raises:
        D3POError: it is missing, or cannot be read or decoded, also inside the `with` block.
    """
    try:
        texts, file = _without_texts(path.read_bytes())
        with Image.open(io.BytesIO(file)) as image:
            image.info.update(texts)
            yield image
    except FileNotFoundError as error:
        raise D3POError(f"There is no file {path}.", "Check the path; paths are relative to the file.") from error
    # Pillow's decoders raise these for files that are cut, damaged, not images, or absurdly large.
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise D3POError(f"{path.name} is not a picture that can be read.", "Use PNG, JPEG or WebP.") from error


def _without_texts(data: bytes) -> tuple[dict[str, str], bytes]:
    """Split a PNG file into its texts by name and a file without them; other files stay as they are."""
    if not data.startswith(PNG):
        return {}, data
    texts: dict[str, str] = {}
    kept, place, room = [PNG], len(PNG), MAX_TEXT
    while place + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        chunk, end = data[place + 8 : place + 8 + length], place + 12 + length
        if kind in TEXT_CHUNKS and not chunk.startswith(PROFILE):
            with suppress(ValueError, IndexError, zlib.error):
                name, text = _text_of(kind, chunk, room)
                texts.setdefault(name, text)
                room -= len(text)
        else:
            kept.append(data[place:end])
        place = end
    return texts, b"".join(kept)


def _text_of(kind: bytes, chunk: bytes, room: int) -> tuple[str, str]:
    """Return the name and the text of a chunk.

    Args:
        kind: one of `TEXT_CHUNKS`.
        chunk: its data.
        room: bytes that the decompressed text may take.

    Raises:
        ValueError, IndexError, zlib.error: it is damaged, or too long.
    """
    name, text = chunk.split(b"\0", 1)
    if kind == b"zTXt":
        text = _inflate(text[1:], room)
    elif kind == b"iTXt":
        compressed, text = text[0], text[2:]
        *_, text = text.split(b"\0", 2)  # after a language and a translated name
        return name.decode("latin-1"), (_inflate(text, room) if compressed else text).decode("utf-8", "replace")
    try:
        return name.decode("latin-1"), text.decode("utf-8")  # what is valid UTF-8 is hardly ever Latin-1
    except UnicodeDecodeError:
        return name.decode("latin-1"), text.decode("latin-1")


def _inflate(data: bytes, room: int) -> bytes:
    stream = zlib.decompressobj()
    text = stream.decompress(data, max(1, room))
    if not stream.eof:
        raise ValueError("The text is too long, or cut.")
    return text


def read_rgb(path: Path) -> Image.Image:
    """Return an image as RGB as a viewer shows it; of an animation the first frame.

    It is turned upright, what is transparent lies on white, colours are those of sRGB where the file has a profile, and
    16 bits are scaled to 8. Raises as `open_image`.
    """
    with open_image(path) as image:
        profile = image.info.get("icc_profile")
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I"):
            image = _eight_bits(image)
        if not ("A" in image.getbands() or "transparency" in image.info):
            return _to_srgb(image.convert("RGB") if image.mode == "P" else image, profile)
        image = image.convert("RGBA")
        shown = _to_srgb(image.convert("RGB"), profile).convert("RGBA")
        shown.putalpha(image.getchannel("A"))
        return Image.alpha_composite(Image.new("RGBA", image.size, WHITE), shown).convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale 16 bits of grey to 8, where Pillow would cut them off at 255; one level may be transparent."""
    levels = np.asarray(image)
    scaled = Image.fromarray((levels / 257).round().clip(0, 255).astype(np.uint8))
    hidden = image.info.get("transparency")
    if not isinstance(hidden, int):
        return scaled
    return Image.merge("LA", (scaled, Image.fromarray(np.where(levels == hidden, 0, 255).astype(np.uint8))))


def _to_srgb(image: Image.Image, profile: object) -> Image.Image:
    """Return an image as RGB, its colours those of sRGB; as it is where its profile is damaged or of another kind."""
    if isinstance(profile, bytes):
        with suppress(ImageCms.PyCMSError, OSError, ValueError):
            source, target = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
            if "srgb" not in ImageCms.getProfileDescription(source).lower():  # its colours are right, unrounded
                converted = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
                return converted or image.convert("RGB")
    return image.convert("RGB")


def fingerprint(path: Path) -> Fingerprint:
    """Return the fingerprint of an image file; raises as `open_image`."""
    image = read_rgb(path)
    return Fingerprint(image.size, hashlib.sha256(repr(image.size).encode() + image.tobytes()).hexdigest())
