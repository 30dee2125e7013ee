"""The prompts of an image file: from a caption beside it (kohya's .txt and .caption files, A1111's text files, .json),
or else from what the program that drew it wrote into the file (metadata.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..names import composed
from ..textfiles import decode, read_text
from .metadata import Embeddings, parse_parameters, texts_of_image, texts_of_json
from .pixels import open_image

CAPTIONS = (".txt", ".caption", ".json")
"""Endings of captions, in the order in which they are looked for."""


@dataclass
class Noticed:
    """What was noticed beside prompts.

    Attributes:
        damaged: names of .json files beside images that cannot be read as JSON. They are passed over: such a file may
            be another program's, and the image has a prompt of its own more often than not.
        embeddings: names of the textual-inversion embeddings with which A1111 or Forge drew the images.
    """

    damaged: list[str] = field(default_factory=list)
    embeddings: Embeddings = field(default_factory=set)
    _beside: dict[Path, dict[str, list[Path]]] = field(default_factory=dict)

    def captions_beside(self, image: Path) -> list[Path]:
        """Return the captions in an image's folder that have its name, however its letters are written.

        A folder is listed once: it may hold thousands of images.
        """
        if image.parent not in self._beside:
            by_name = self._beside[image.parent] = {}
            for each in image.parent.iterdir() if image.parent.is_dir() else ():
                if each.suffix.lower() in CAPTIONS and each.is_file():
                    by_name.setdefault(composed(each.stem), []).append(each)
        return self._beside[image.parent].get(composed(image.stem), [])


def read_prompts(path: Path, noticed: Noticed | None = None) -> tuple[str, str]:
    """Return the prompt and the negative prompt of an image file; empty if none is written anywhere.

    Args:
        path: of the image.
        noticed: gets what else was noticed.

    Raises:
        D3POError: the image is missing or cannot be read, or its caption is no text.
    """
    noticed = noticed or Noticed()
    for caption in _captions(path, noticed):
        try:
            found = _parse(caption, noticed.embeddings)
        except (OSError, ValueError, RecursionError):
            noticed.damaged.append(caption.name)
            continue
        if found[0]:
            return found
    with open_image(path) as image:
        return texts_of_image(image, path.stem, noticed.embeddings)


def _captions(path: Path, noticed: Noticed) -> Iterator[Path]:
    """Yield the captions beside an image, whatever the case of their endings and however their letters are written.

    Those of the usual spelling come first, and only where they tell nothing the whole folder is looked through.
    """
    usual = [each for suffix in CAPTIONS if _is_file(each := path.with_suffix(suffix))]
    yield from usual
    yield from sorted(
        (each for each in noticed.captions_beside(path) if not any(each.samefile(known) for known in usual)),
        key=lambda each: CAPTIONS.index(each.suffix.lower()),
    )


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # the longer ending makes a name that no file can have
        return False


def _parse(caption: Path, embeddings: Embeddings) -> tuple[str, str]:
    """Return what a caption says; raises OSError, ValueError or RecursionError for a .json that cannot be read."""
    if caption.suffix.lower() != ".json":
        return parse_parameters(read_text(caption), embeddings)
    return texts_of_json(json.loads(decode(caption.read_bytes())))
