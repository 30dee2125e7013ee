"""The prompts of an image file: from a .txt of the same stem beside it (kohya's caption files, A1111's text files), or
else from what AUTOMATIC1111's web UI, Forge or ComfyUI wrote into the file.

A1111 and Forge write text of this form:

    a red fox, <lora:ink:0.8>
    in the snow
    Negative prompt: blurry
    Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512

Both prompts may span lines, and either may be missing. The order is that of the web UI's `create_infotext`, and of what
it reads back in `parse_generation_parameters`.
"""

from __future__ import annotations

import re
from pathlib import Path

from PIL import Image

from ..errors import D3POError
from .comfyui import parse_graph
from .images import open_image

EXIF, USER_COMMENT = 0x8769, 0x9286
"""Numbers of EXIF's block of tags, and of the tag in it that holds A1111's text."""
NEGATIVE = re.compile(r"^[ \t]*Negative prompt:", re.M)
SETTINGS = re.compile(r"^Steps: \d+, \w", re.M)
EXTRA_NETWORK = re.compile(r"<\w+:[^>]+>")
"""`<lora:name:weight>` and the like choose networks; the web UI takes them out before the prompt is encoded."""


def read_prompts(path: Path) -> tuple[str, str]:
    """Return the prompt and the negative prompt of an image file; empty if none is written anywhere.

    Raises:
        D3POError: the image is missing or cannot be read, or its .txt is not text.
    """
    text_file = path.with_suffix(".txt")
    if text_file.is_file():
        try:
            return parse_parameters(text_file.read_text(encoding="utf-8-sig"))
        except (OSError, UnicodeDecodeError) as error:
            raise D3POError(f"{text_file.name} cannot be read as text.", "Save it as UTF-8.") from error
    with open_image(path) as image:
        parameters, graph = _metadata(image)
    prompt, negative = parse_parameters(parameters)
    return (prompt, negative) if prompt else parse_graph(graph)


def parse_parameters(text: str) -> tuple[str, str]:
    """Return the prompt and the negative prompt of A1111's text, without settings and extra networks.

    Text of any other form is a prompt as a whole.
    """
    text = text.replace("\r\n", "\n")
    settings = list(SETTINGS.finditer(text))
    if settings:
        text = text[: settings[-1].start()]
    match = NEGATIVE.search(text)
    prompt, negative = (text[: match.start()], text[match.end() :]) if match else (text, "")
    return EXTRA_NETWORK.sub("", prompt).strip(), EXTRA_NETWORK.sub("", negative).strip()


def _metadata(image: Image.Image) -> tuple[str, str]:
    """Return A1111's parameters and ComfyUI's graph, empty if missing. PNGs have text chunks, other files EXIF."""
    exif = image.getexif()
    parameters = image.info.get("parameters") or _decode_comment(exif.get_ifd(EXIF).get(USER_COMMENT))
    graph = image.info.get("prompt") or _graph_of_exif(exif)
    return _if_text(parameters), _if_text(graph)


def _if_text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _graph_of_exif(exif: Image.Exif) -> str:
    """Return the graph in ComfyUI's WebP files, which have it as "prompt:..." in a tag meant for the camera's name."""
    parts = (value.partition(":") for value in exif.values() if isinstance(value, str))
    return next((graph for name, _, graph in parts if name.lower() == "prompt"), "")


def _decode_comment(value: object) -> str:
    """Decode EXIF's UserComment: eight bytes that name the encoding, then the text.

    UTF-16 comes in both byte orders: A1111 writes big-endian, others little-endian. The bytes that are 0 show which one
    it is, as most letters of a prompt have one.
    """
    if not isinstance(value, bytes):
        return _if_text(value)
    encoding, text = value[:8], value[8:]
    if encoding.startswith(b"UNICODE"):
        return text.decode("utf-16-be" if text[::2].count(0) >= text[1::2].count(0) else "utf-16-le", "replace")
    return text.decode("utf-8", "replace").strip("\0")
