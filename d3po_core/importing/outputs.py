"""A folder of pictures as ComfyUI and A1111's kind write them, which nobody has judged yet.

Those of one prompt and size are compared with each other in a tournament, so each becomes a group of one without a
pick. What nobody could tell apart from another is left out, as are grids and pictures that have nothing to be compared
with.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import D3POError
from .captions import read_prompts
from .judged import JudgedGroup, JudgedImages, LeftOut, abbreviate
from .pixels import SUFFIXES, read_rgb

NO_PROMPT = "Write each one's prompt into a .txt of the same name beside it."
GRIDS = "grid-"
"""Beginning of the names of A1111's pictures of several pictures."""
THUMB = 16
"""Side of the thumbnails that are compared."""
ALIKE = 0.02
"""Root mean square difference of two thumbnails in [0, 1] below which pictures count as the same. Saved again as JPEG,
or with another watermark, a picture differs by less; two of one prompt and different seeds by some 0.2."""
MAX_ALIKE_PROMPT = 500
"""Pictures of one prompt and size that can take part."""

Kind = tuple[str, str, tuple[int, int]]
"""Prompt, negative prompt, and size of a picture."""


def has_pictures(folder: Path) -> bool:
    """Return whether there is a picture in a folder, or in one below it."""
    return next(_files(folder), None) is not None


def read_outputs(folder: Path) -> JudgedImages:
    """Read the pictures in a folder and all below it, each as a group of its own without a pick."""
    judged = JudgedImages()
    pools: dict[Kind, list[Path]] = {}
    thumbs: dict[Path, np.ndarray] = {}
    nameless, grids = [], 0
    for path in _files(folder):
        if path.name.startswith(GRIDS) or path.parent.name.endswith("-grids"):
            grids += 1
            continue
        try:
            prompt, negative = read_prompts(path, judged.noticed)
            if not prompt:
                nameless.append(_name(path, folder))
                continue
            image = read_rgb(path)
        except D3POError as error:
            judged.leave_out(_name(path, folder), error)
            continue
        thumbs[path] = _thumb(image)
        pools.setdefault((prompt, negative, image.size), []).append(path)
    same = _take_in(judged, pools, thumbs, folder)
    if nameless:
        _leave_out(judged, nameless, "no prompt", NO_PROMPT)
    if same:
        judged.notes.append(f"{_pictures(same)} left out because another one looks the same.")
    if grids:
        judged.notes.append(f"{_pictures(grids)} left out because they are grids of others.")
    return judged


def _take_in(judged: JudgedImages, pools: dict[Kind, list[Path]], thumbs: dict[Path, np.ndarray], folder: Path) -> int:
    """Add what can be compared, and say what cannot; return how many pictures look like another one."""
    alone, too_many, same = [], [], 0
    for (prompt, negative, _), paths in pools.items():
        distinct = _distinct(paths, thumbs)
        same += len(paths) - len(distinct)
        if len(distinct) < 2:
            alone += [_name(path, folder) for path in distinct]
            continue
        too_many += [_name(path, folder) for path in distinct[MAX_ALIKE_PROMPT:]]
        judged.groups += [
            JudgedGroup(_name(path, folder), prompt, negative, (path,), ()) for path in distinct[:MAX_ALIKE_PROMPT]
        ]
    if alone:
        _leave_out(judged, alone, "nothing of the same prompt and size to be compared with", "")
    if too_many:
        more = f"{MAX_ALIKE_PROMPT} others of the same prompt and size before it"
        _leave_out(judged, too_many, more, "Bring them from a folder of their own.")
    return same


def _leave_out(judged: JudgedImages, names: Sequence[str], lacks: str, do: str) -> None:
    """Report all pictures with the same fault in one sentence, as there may be thousands."""
    has = "It has" if len(names) == 1 else f"These {len(names)} pictures have"
    judged.left_out.append(LeftOut(abbreviate(names), str(D3POError(f"{has} {lacks}.", do)), len(names)))


def _files(folder: Path) -> Iterator[Path]:
    """Yield the pictures in a folder and below it by name, without hidden ones."""
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.suffix.lower() in SUFFIXES and not hidden and path.is_file():
            yield path


def _distinct(paths: Sequence[Path], thumbs: dict[Path, np.ndarray]) -> list[Path]:
    """Return the pictures that look like none before them."""
    kept: list[Path] = []
    for path in paths:
        if all(np.sqrt(np.mean((thumbs[path] - thumbs[other]) ** 2)) >= ALIKE for other in kept):
            kept.append(path)
    return kept


def _thumb(image: Image.Image) -> np.ndarray:
    small = image.resize((THUMB, THUMB), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32) / 255


def _name(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _pictures(count: int) -> str:
    return "1 picture was" if count == 1 else f"{count} pictures were"
