"""The prompts of an image file: from a .txt of the same stem beside it (kohya's caption files, A1111's text files), or
else from what AUTOMATIC1111's web UI, Forge or ComfyUI wrote into the file.

A1111 and Forge write text of this form:

    a red fox, <lora:ink:0.8>
    in the snow
    Negative prompt: blurry
    Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512

Both prompts may span lines, and either may be missing. The order is that of the web UI's `create_infotext`, and of what
it reads back in `parse_generation_parameters`.

ComfyUI writes its graph, in the form of its API:

    {"3": {"class_type": "KSampler", "inputs": {"positive": ["6", 0], ...}}, "6": {...}, ...}

An input is a value, or a link [node, output]. The positive and the negative input of the sampler nearest to the node
that saves the image are followed upstream until a node has a text. Nodes are recognised by the names of their inputs,
because node packs have thousands of kinds. What a node computes (a language model, a wildcard) is not known unless the
graph has the result too.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, TypeGuard

from PIL import Image, ImageOps

from ..errors import D3POError

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


Inputs = dict[str, object]


class Node(TypedDict, total=False):
    """A node of a graph; `inputs` is always there."""

    class_type: object
    inputs: Inputs


Graph = dict[str, Node]

TEXTS = (
    *("populated_text", "text", "t5xxl", "text_g", "text_l", "clip_g", "clip_l", "prompt", "user_prompt"),
    *("bert", "mt5xl", "string", "value"),
)
"""Inputs that hold a complete text. If a node has several (SDXL's and Flux's encoders), the longest is taken."""
PIECE = re.compile(r"(?:text|string|prompt)_?(?:[a-z]|\d+)")
"""Inputs of nodes that join texts."""
ZERO_OUT = "ConditioningZeroOut"
MAX_DEPTH = 100
"""Nodes between a sampler and its text, at most: a damaged graph may have cycles."""


def parse_graph(text: str) -> tuple[str, str]:
    """Return the prompt and the negative prompt of a graph, as JSON; empty if none is found."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return "", ""
    graph: Graph = {name: node for name, node in data.items() if _is_node(node)} if isinstance(data, dict) else {}
    sampler = _nearest_sampler(graph)
    if sampler is None:
        return "", ""
    guider = _linked(graph, sampler.get("guider"))
    inputs = {**(guider["inputs"] if guider else {}), **sampler}
    positive = next((inputs[name] for name in ("positive", "conditioning", "cond1") if name in inputs), None)
    return _text(graph, positive, "positive").strip(), _text(graph, inputs.get("negative"), "negative").strip()


def _is_node(node: object) -> TypeGuard[Node]:
    return isinstance(node, dict) and isinstance(node.get("inputs"), dict)


def _linked(graph: Graph, value: object) -> Node | None:
    """Return the node that a link leads to; None for any other value."""
    if isinstance(value, list) and len(value) == 2 and isinstance(value[0], str | int) and isinstance(value[1], int):
        return graph.get(str(value[0]))
    return None


def _nearest_sampler(graph: Graph) -> Inputs | None:
    """Return the inputs of the first node upstream of one that saves images that has a positive input or a guider."""
    for ends in (_named(graph, "Save"), _named(graph, "Preview"), list(graph.values())):
        queue, seen = deque(reversed(ends)), set[int]()
        while queue:
            node = queue.popleft()
            if id(node) in seen:
                continue
            seen.add(id(node))
            inputs = node["inputs"]
            if _linked(graph, inputs.get("positive")) or _linked(graph, inputs.get("guider")):
                return inputs
            queue.extend(upstream for value in inputs.values() if (upstream := _linked(graph, value)))
    return None


def _named(graph: Graph, part: str) -> list[Node]:
    return [node for node in graph.values() if part in str(node.get("class_type"))]


def _text(graph: Graph, value: object, role: str, depth: int = 0) -> str:
    """Return the text that an input holds or is linked to; empty if there is none.

    Args:
        graph: the nodes by id.
        value: of the input.
        role: "positive" or "negative", for nodes that pass on both.
        depth: number of nodes that were passed.
    """
    if isinstance(value, str):
        return value
    node = _linked(graph, value)
    if node is None or depth > MAX_DEPTH or node.get("class_type") == ZERO_OUT:
        return ""
    inputs = node["inputs"]

    def texts(names: Iterable[str]) -> list[str]:
        """Return the texts of these inputs without repetitions."""
        every = (_text(graph, inputs[name], role, depth + 1) for name in names if name in inputs)
        return list(dict.fromkeys(text for text in every if text.strip()))

    if str(node.get("class_type")).startswith("ShowText"):  # it has its link and the text that came through it
        shown = [kept for name, kept in inputs.items() if name.startswith("text") and isinstance(kept, str)]
        if shown:
            return shown[-1]
    if complete := texts((*TEXTS, role, f"text_{role}", f"{role}_prompt")):
        return max(complete, key=len)
    if pieces := texts(name for name in inputs if PIECE.fullmatch(name)):
        delimiter = inputs.get("delimiter", inputs.get("separator", ""))
        return (delimiter if isinstance(delimiter, str) else "").join(pieces)
    if joined := texts(name for name in inputs if name.startswith("cond")):
        return ", ".join(joined)
    links = [name for name, each in inputs.items() if _linked(graph, each)]
    return "".join(texts(links)) if len(links) == 1 else ""  # a node that passes on, such as Reroute


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
