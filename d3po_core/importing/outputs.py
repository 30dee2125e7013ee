"""A folder of pictures as ComfyUI and A1111's kind write them, which nobody has judged yet.

Those of one prompt and size are compared with each other in a tournament, so each becomes a group of one. Copies of
another picture, grids, and what cannot be read are left out.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import D3POError, check_stop
from .captions import read_prompts
from .judged import JudgedGroup, JudgedImages, LeftOut, abbreviate
from .pixels import SUFFIXES, read_rgb

NO_PROMPT = "Write each one's prompt into a .txt of the same name beside it."
GRIDS = "grid-"
"""Beginning of the names of A1111's pictures of several pictures."""
THUMB = 64
"""Side of the thumbnails that are compared."""
ALIKE = 0.06
"""Largest difference anywhere of two thumbnails in [0, 1] up to which pictures count as copies. Saved again as JPEG a
picture differs by less; a face that was drawn again, or a blurred copy, by more."""
MAX_ALIKE_PROMPT = 500
"""Pictures of one prompt and size that a folder can bring: who is best of more would take days of picking."""

Kind = tuple[str, str, tuple[int, int]]
"""Prompt, negative prompt, and size of a picture."""


def has_pictures(folder: Path) -> bool:
    """Return whether there is a picture in a folder, or in one below it."""
    return next(_files(folder, []), None) is not None


def read_outputs(folder: Path, called: str = "") -> JudgedImages:
    """Read the pictures in a folder and all below it, each as a group of its own without a pick.

    Args:
        folder: where they are.
        called: the folder's name, to be put before those of the files; empty if nobody knows it.

    Raises:
        Stopped: somebody wants it to end.
    """
    reading = _Reading(folder, called)
    closed: list[Path] = []
    for path in _files(folder, closed):
        check_stop()
        reading.take(path)
    for path in closed:
        reading.judged.leave_out(reading.name(path), D3POError("This folder cannot be opened."))
    return reading.result()


@dataclass
class _Reading:
    """What has been read of a folder so far."""

    folder: Path
    called: str
    judged: JudgedImages = field(default_factory=JudgedImages)
    pools: dict[Kind, list[tuple[Path, np.ndarray]]] = field(default_factory=dict)
    nameless: list[str] = field(default_factory=list)
    copies: list[str] = field(default_factory=list)
    too_many: list[str] = field(default_factory=list)
    grids: int = 0

    def name(self, path: Path) -> str:
        """Return a file's path from its source's folder on, in letters that can be written down."""
        name = (Path(self.called) / path.relative_to(self.folder)).as_posix()
        return name.encode("utf-8", "replace").decode()

    def take(self, path: Path) -> None:
        """Read one picture, and see whether it is like another one."""
        name = self.name(path)
        if path.name.startswith(GRIDS) or path.parent.name.endswith("-grids"):
            self.grids += 1
            return
        try:
            prompt, negative = read_prompts(path, self.judged.noticed)
            if not prompt:
                self.nameless.append(name)
                return
            image = read_rgb(path)
        except D3POError as error:
            self.judged.leave_out(name, error)
            return
        except OSError as error:
            self.judged.leave_out(name, D3POError(f"It cannot be read ({error.strerror})."))
            return
        pool = self.pools.setdefault((prompt, negative, image.size), [])
        thumb = _thumb(image)
        if any(np.abs(thumb - other).max() <= ALIKE for _, other in pool):
            self.copies.append(name)
        elif len(pool) >= MAX_ALIKE_PROMPT:
            self.too_many.append(name)
        else:
            pool.append((path, thumb))

    def result(self) -> JudgedImages:
        """Return what was read, with a sentence for each thing that was left out."""
        judged = self.judged
        for (prompt, negative, size), pool in self.pools.items():
            judged.groups += [JudgedGroup(self.name(path), prompt, negative, (path,), (), size) for path, _ in pool]
        self._leave_out(self.nameless, "no prompt", NO_PROMPT)
        more = f"{MAX_ALIKE_PROMPT} others of the same prompt and size before it"
        self._leave_out(self.too_many, more, "Bring the best of them alone.")
        if self.copies:
            judged.notes.append(
                f"{_pictures(len(self.copies))} left out because another one looks the same: {abbreviate(self.copies)}."
            )
        if self.grids:
            judged.notes.append(f"{_pictures(self.grids)} left out because grids show several pictures in one.")
        lists = [path.name for path in sorted(self.folder.glob("*.jsonl"))]
        if lists:
            judged.notes.append(f"What {abbreviate(lists)} says was not read: name the file itself to import that.")
        return judged

    def _leave_out(self, names: Sequence[str], lacks: str, do: str) -> None:
        """Report all pictures with the same fault in one sentence, as there may be thousands."""
        if names:
            has = "It has" if len(names) == 1 else f"These {len(names)} pictures have"
            self.judged.left_out.append(LeftOut(abbreviate(names), str(D3POError(f"{has} {lacks}.", do)), len(names)))


def _files(folder: Path, closed: list[Path]) -> Iterator[Path]:
    """Yield the pictures in a folder and below it by name, without hidden ones.

    Args:
        folder: where to look.
        closed: gets the folders that cannot be opened.
    """
    for place, folders, names in os.walk(folder, onerror=lambda error: closed.append(Path(error.filename))):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if Path(name).suffix.lower() in SUFFIXES and not name.startswith("."):
                yield Path(place, name)


def _thumb(image: Image.Image) -> np.ndarray:
    small = image.resize((THUMB, THUMB), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32) / 255


def _pictures(count: int) -> str:
    return "1 picture was" if count == 1 else f"{count} pictures were"
