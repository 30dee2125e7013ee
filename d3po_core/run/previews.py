"""Previews: a round's pictures of fixed prompts and seeds, before it was trained and after, at a few strengths."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from ..errors import D3POError
from . import files
from .part import ROUNDS, Part

SIDE = re.compile(r"before|after(-\d{1,2})?")
"""What a side of a strip may be called, and so its files: see `strip_side`."""


def strip_side(strength: float) -> str:
    """Which side of a strip shows what was taught at this strength: "after" (1), "after-70" and so on."""
    return "after" if strength == 1 else f"after-{strength * 100:.0f}"


class Previews(Part):
    """Keeps previews, by round."""

    def save(self, round: int, prompts: Sequence[str], sides: Mapping[str, Sequence[Image.Image]]) -> None:
        """Keep a round's pictures of fixed prompts and seeds.

        Args:
            round: its number.
            prompts: one for each picture of a side.
            sides: "before", "after" and, at smaller strengths, what `after` calls them.

        Raises:
            D3POError: the disk is full or the folder cannot be written to.
        """
        folder = self._strip_folder(round)
        for side, images in sides.items():
            for index, image in enumerate(images):
                files.replace(folder / f"{index}-{side}.png", files.png(image))
        files.replace(folder / "prompts.json", json.dumps(list(prompts)).encode())

    def prompts(self, round: int) -> list[str]:
        """The prompts of a round's before/after pictures; empty if there are none."""
        try:
            found = json.loads((self._strip_folder(round) / "prompts.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return []
        return [str(prompt) for prompt in found]

    def image(self, round: int, index: int, side: str) -> Path:
        """Where one of them lies.

        Args:
            round, index: which.
            side: as in `save`.

        Raises:
            D3POError: there is none.
        """
        path = self._strip_folder(round) / f"{index}-{side}.png"
        if not SIDE.fullmatch(side) or not path.is_file():
            raise D3POError(f"Round {round} has no picture {index} of {side}.")
        return path

    def has(self, round: int, side: str) -> bool:
        """Whether a round's strip has this side."""
        return (self._strip_folder(round) / f"0-{side}.png").is_file()

    def _strip_folder(self, round: int) -> Path:
        return self.folder / ROUNDS / f"{round:04}" / "strip"
