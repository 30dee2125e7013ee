"""The prompts that programs write into the images that they draw.

| program | where |
|---|---|
| A1111, Forge, SD.Next, Civitai, ... | text under `parameters`, or in EXIF's user comment; see `parse_parameters` |
| ComfyUI | its graph under `prompt`, or in EXIF (WebP); see graphs.py |
| SwarmUI, Fooocus | JSON in place of A1111's text |
| InvokeAI | JSON under `invokeai_metadata`, before version 3 under `sd-metadata` |
| NovelAI | JSON under `Comment` |
| Draw Things | JSON in the user comment of EXIF or of XMP |
| Easy Diffusion | `prompt` and `negative_prompt`, each as text |

A1111's text is of this form:

    a red fox, <lora:ink:0.8>
    in the snow
    Negative prompt: blurry
    Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512, TI hashes: "easynegative: c74b4e810b03"

Both prompts may span lines, and either may be missing. The order is that of the web UI's `create_infotext`, and of what
it reads back in `parse_generation_parameters`. JSON of any other form is never taken for a prompt.
"""

from __future__ import annotations

import codecs
import html
import json
import re
from collections.abc import Mapping

from PIL import Image

from .graphs import EXTRA_NETWORK, Texts, parse_graph

EXIF, USER_COMMENT = 0x8769, 0x9286
"""Numbers of EXIF's block of tags, and of the tag in it that holds A1111's text."""
NEGATIVE = re.compile(r"^[ \t]*Negative prompt:", re.M)
SETTINGS = re.compile(r"^Steps: \d+, \w", re.M)
JSON_BEGINS = re.compile(r"\s*\[?\s*\{\s*(?:[\"']?\w+[\"']?\s*:|//|\"|\})|\s*\[\s*(?:\"|\d+\s*(?:,|\]))")
XMP = "XML:com.adobe.xmp"
PAIRS = re.compile(r"\w[\w /-]{0,40}:[^:,]{1,200}(?:,|$)")
"""A setting of A1111's last line."""
REGIONS = re.compile(r"<(?:segment|refiner|object|region|base|video|extend|clear)\b")
"""SwarmUI's marks, after which a text is for a part of the image or another step of it."""
POSITIVE_NAMES = ("positive_prompt", "prompt", "Prompt", "caption", "text", "c")
NEGATIVE_NAMES = ("negative_prompt", "negativeprompt", "Negative Prompt", "negative", "uc")
EMBEDDINGS = re.compile(r"\bTI(?: hashes)?: *(\"(?:[^\"\\]|\\.)*\"|[^,\n]*)")
"""Embeddings in A1111's last line: `TI hashes: "name: hash, name: hash"`; in Forge's `TI: "name, name"` or `TI: name`.
Their names are words of the prompt."""
Embeddings = set[str]
WITHIN = ("sui_image_params", "image")
"""Names of the objects in which programs put them."""


def parse_parameters(text: str, embeddings: Embeddings | None = None) -> Texts:
    """Return the prompt and the negative prompt of A1111's text, without settings and extra networks.

    JSON is read as `texts_of_json` does. Text of any other form is a prompt as a whole.

    Args:
        text: A1111's.
        embeddings: gets the names of those that the settings name.
    """
    if (data := _json(text)) is not None:
        return texts_of_json(data)
    text = text.lstrip("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    settings = list(SETTINGS.finditer(text))
    before, _, last = text.rpartition("\n")
    written = text
    if settings:
        text = text[: settings[-1].start()]
    elif len(PAIRS.findall(last)) >= 3:  # so does the web UI tell them
        text = before
    if embeddings is not None:
        embeddings |= _embeddings(written[len(text) :])
    match = NEGATIVE.search(text)
    prompt, negative = (text[: match.start()], text[match.end() :]) if match else (text, "")
    return EXTRA_NETWORK.sub("", prompt).strip(), EXTRA_NETWORK.sub("", negative).strip()


def _embeddings(settings: str) -> Embeddings:
    """Return the names of embeddings in A1111's settings."""
    lists = [match.strip('"').split(",") for match in EMBEDDINGS.findall(settings)]
    return {name for names in lists for each in names if (name := each.partition(":")[0].strip())}


def _json(text: str) -> object | None:
    """Return what a text says as JSON; None if it is no JSON object or list. {} stands for what is damaged."""
    text = text.lstrip("\ufeff")
    if text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        return json.loads(text)
    except RecursionError:
        return {}
    except ValueError:  # "{a|b} fox" and "[[a:b:0.5]:c]" are prompts
        return {} if JSON_BEGINS.match(text) else None


def texts_of_json(data: object) -> Texts:
    """Return the prompts in an object of known names, or of the first of a list; empty for any other."""
    if isinstance(data, list):
        return texts_of_json(data[0]) if data else ("", "")
    if isinstance(data, str):
        return parse_parameters(data)
    if not isinstance(data, dict):
        return "", ""
    for name in WITHIN:
        if isinstance(data.get(name), dict):
            return texts_of_json(data[name])
    positive = next((text for name in POSITIVE_NAMES if (text := first_text(data.get(name)))), "")
    negative = next((text for name in NEGATIVE_NAMES if (text := first_text(data.get(name)))), "")
    positive, negative = (REGIONS.split(text)[0] if _json(text) is None else "" for text in (positive, negative))
    return EXTRA_NETWORK.sub("", positive).strip(), EXTRA_NETWORK.sub("", negative).strip()


def first_text(value: object) -> str:
    """Return a text, or the first one of a list (of texts, or of objects with a prompt); "" for anything else."""
    if isinstance(value, list) and value:
        return first_text(value[0])
    if isinstance(value, dict):
        return first_text(value.get("prompt"))
    return value if isinstance(value, str) else ""


def texts_of_image(image: Image.Image, saved_as: str = "", embeddings: Embeddings | None = None) -> Texts:
    """Return the prompt and the negative prompt that are written into an image; empty if none can be read.

    Args:
        image: open, see `open_image`.
        saved_as: its file name without the ending, see `parse_graph`.
        embeddings: gets the names of those that it was drawn with, see `parse_parameters`.
    """
    exif = image.getexif()
    of_exif = _written_by_a_program(_decode_comment(exif.get_ifd(EXIF).get(USER_COMMENT)))
    texts = {str(name): value for name, value in image.info.items() if isinstance(value, str)}
    graph = texts.get("prompt") or _graph_of_exif(exif)
    ways = (
        *(parse_parameters(texts.get("parameters") or of_exif, embeddings), parse_graph(graph, saved_as)),
        *(_of(texts, name) for name in ("invokeai_metadata", "sd-metadata")),
        _of(texts, "Comment") if texts.get("Software") == "NovelAI" else ("", ""),
        parse_parameters(_written_by_a_program(_comment_of_xmp(texts.get(XMP, "")))),
        _in_words(texts),
    )
    return next((found for found in ways if found[0]), ("", ""))


def _of(texts: Mapping[str, str], name: str) -> Texts:
    return texts_of_json(_json(texts.get(name, "")))


def _in_words(texts: Mapping[str, str]) -> Texts:
    """Return Easy Diffusion's prompts."""
    for positive, negative in (("prompt", "negative_prompt"), ("Prompt", "Negative Prompt")):
        if negative in texts and _json(texts.get(positive, "{}")) is None:
            return EXTRA_NETWORK.sub("", texts[positive]).strip(), EXTRA_NETWORK.sub("", texts[negative]).strip()
    return "", ""


def _comment_of_xmp(text: str) -> str:
    comment = text.partition("<exif:UserComment>")[2].partition("</exif:UserComment>")[0]
    return html.unescape(comment.partition("<rdf:li")[2].partition(">")[2].partition("</rdf:li>")[0]).strip()


def _written_by_a_program(comment: str) -> str:
    """Return a comment that has a prompt in a program's form; "" for any other, as cameras and people write them."""
    known = SETTINGS.search(comment) or NEGATIVE.search(comment) or _json(comment) is not None
    return comment if known or len(PAIRS.findall(comment.rpartition("\n")[2])) >= 3 else ""


def _graph_of_exif(exif: Image.Exif) -> str:
    """Return the graph in ComfyUI's WebP files, which have it as "prompt:..." in a tag meant for the camera's name."""
    parts = (value.partition(":") for value in exif.values() if isinstance(value, str))
    return next((graph for name, _, graph in parts if name.lower() == "prompt"), "")


def _decode_comment(value: object) -> str:
    """Decode EXIF's UserComment: eight bytes that name the encoding, then the text; some programs leave them out.

    UTF-16 comes in both byte orders: A1111 writes big-endian, others little-endian. The bytes that are 0 show which one
    it is, as most letters of a prompt have one; a byte order mark is above that.
    """
    if not isinstance(value, bytes):
        return value if isinstance(value, str) else ""
    encoding, text = value[:8], value[8:]
    if encoding.startswith(b"UNICODE"):
        if text.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return text.decode("utf-16", "replace").strip("\0")
        order = "utf-16-be" if text[::2].count(0) >= text[1::2].count(0) else "utf-16-le"
        return text.decode(order, "replace").strip("\0")
    coded = encoding.startswith((b"ASCII", b"JIS")) or encoding == bytes(8)
    return (text if coded else value).decode("utf-8", "replace").strip("\0")
