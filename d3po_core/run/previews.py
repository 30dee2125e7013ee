"""Previews: a round's images of fixed prompts and seeds, before it was trained and after, at a few strengths."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from ..errors import D3POError
from . import files
from .part import Part

SIDE = re.compile(r"before|after(-\d{1,2})?")
"""Names of the sides of a strip, which are in its files' names: see `strip_side`."""


def strip_side(strength: float) -> str:
    """Name the side of a strip that shows the LoRA at this strength: "after" for 1, "after-70" for 0.7."""
    return "after" if strength == 1 else f"after-{strength * 100:.0f}"


class Previews(Part):
    """Keeps previews, by round."""

    def save(self, round: int, prompts: Sequence[str], sides: Mapping[str, Sequence[Image.Image]]) -> None:
        """Save a round's images of fixed prompts and seeds.

        Args:
            round: its number.
            prompts: one for each image of a side.
            sides: images by side: "before", and at each strength the name from `strip_side`.

        Raises:
            D3POError: the disk is full or the folder cannot be written to.
        """
        folder = self._strip_folder(round)
        for side, images in sides.items():
            for index, image in enumerate(images):
                files.replace(folder / f"{index}-{side}.png", files.png(image))
        files.replace(folder / "prompts.json", json.dumps(list(prompts)).encode())

    def prompts(self, round: int) -> list[str]:
        """Return the prompts of a round's before/after images; empty if there are none."""
        try:
            prompts = json.loads((self._strip_folder(round) / "prompts.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return []
        return [str(prompt) for prompt in prompts]

    def image(self, round: int, index: int, side: str) -> Path:
        """Return the path of one image.

        Args:
            round: its number.
            index: of the prompt.
            side: as in `save`.

        Raises:
            D3POError: there is no such image.
        """
        path = self._strip_folder(round) / f"{index}-{side}.png"
        if not SIDE.fullmatch(side) or not path.is_file():
            raise D3POError(f"Round {round} has no picture {index} of {side}.")
        return path

    def has(self, round: int, side: str) -> bool:
        """Tell whether a round's strip has this side."""
        return (self._strip_folder(round) / f"0-{side}.png").is_file()

    def _strip_folder(self, round: int) -> Path:
        return self._round_folder(round) / "strip"
