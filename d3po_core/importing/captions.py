"""The prompts of an image file: from a caption beside it (kohya's .txt and .caption files, A1111's text files, .json),
or else from what the program that drew it wrote into the file (metadata.py).
"""

from __future__ import annotations

import json
from pathlib import Path

from ..errors import D3POError
from ..names import composed
from ..textfiles import read_text
from .metadata import parse_parameters, texts_of_image, texts_of_json
from .pixels import open_image

CAPTIONS = (".txt", ".caption", ".json")
"""Endings of captions, in the order in which they are looked for."""


def read_prompts(path: Path) -> tuple[str, str]:
    """Return the prompt and the negative prompt of an image file; empty if none is written anywhere.

    Raises:
        D3POError: the image is missing or cannot be read, or its caption is no text.
    """
    for caption in _captions(path):
        found = _parse(caption)
        if found[0]:
            return found
    with open_image(path) as image:
        return texts_of_image(image, path.stem)


def _captions(path: Path) -> list[Path]:
    """Return the captions beside an image, whatever the case of their endings and however their letters are written."""
    usual = [path.with_suffix(suffix) for suffix in CAPTIONS]
    found = [each for each in usual if each.is_file()]
    if not found and path.parent.is_dir():
        beside = (each for each in path.parent.iterdir() if each.suffix.lower() in CAPTIONS)
        found = [each for each in beside if composed(each.stem) == composed(path.stem) and each.is_file()]
    return sorted(found, key=lambda each: CAPTIONS.index(each.suffix.lower()))


def _parse(caption: Path) -> tuple[str, str]:
    text = read_text(caption)
    if caption.suffix.lower() != ".json":
        return parse_parameters(text)
    try:
        return texts_of_json(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise D3POError(f"{caption.name} is not JSON.", "Correct it, or delete it.") from error
