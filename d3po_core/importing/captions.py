"""What a picture was drawn for: read from a .txt of the same stem beside it (kohya's caption files, A1111's text
files), else from what A1111, Forge or ComfyUI wrote into the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image

from ..errors import D3POError
from .a1111 import parse_parameters
from .comfyui import parse_graph
from .images import open_image

EXIF, USER_COMMENT = 0x8769, 0x9286


def read_caption(path: Path) -> tuple[str, str]:
    """Prompt and negative prompt of a picture; empty where nobody says.

    Raises:
        D3POError: the picture is missing or cannot be read, or its .txt is not text.
    """
    beside = path.with_suffix(".txt")
    if beside.is_file():
        try:
            return parse_parameters(beside.read_text(encoding="utf-8-sig"))
        except (OSError, UnicodeDecodeError) as error:
            raise D3POError(f"{beside.name} cannot be read as text.", "Save it as UTF-8.") from error
    with open_image(path) as image:
        parameters, graph = _written(image)
    told = parse_parameters(parameters) if parameters else ("", "")
    return told if told[0] else parse_graph(graph)


def _written(image: Image.Image) -> tuple[str, str]:
    """A1111's parameters and ComfyUI's graph; empty where there is none. PNGs have text chunks, others EXIF."""
    exif = image.getexif()
    parameters = image.info.get("parameters") or _comment(exif.get_ifd(EXIF).get(USER_COMMENT))
    graph = image.info.get("prompt") or _graph_in(exif)
    return _if_text(parameters), _if_text(graph)


def _if_text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _graph_in(exif: Image.Exif) -> str:
    """ComfyUI's WebP files have the graph in a tag that is meant for the camera's name."""
    found = (value.partition(":") for value in exif.values() if isinstance(value, str))
    return next((rest for name, _, rest in found if name.lower() == "prompt"), "")


def _comment(value: Any) -> str:
    """EXIF's UserComment: eight bytes that name the encoding, then the text. UTF-16 comes in either order of bytes
    (A1111 writes the large end first, others the small one); most letters of a prompt have one byte that is 0."""
    if not isinstance(value, bytes):
        return _if_text(value)
    name, text = value[:8], value[8:]
    if name.startswith(b"UNICODE"):
        return text.decode("utf-16-be" if text[::2].count(0) >= text[1::2].count(0) else "utf-16-le", "replace")
    return text.decode("utf-8", "replace").strip("\0")
