"""Images before and after a round, stored apart from picks and never trained on.

Previews are of fixed prompts and seeds, at a few strengths. A blind check is before/after pairs without labels; it
shows whether a person really prefers the trained model.
"""

from __future__ import annotations

import json
import random
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ..errors import D3POError
from . import files
from .database import Part

SIDES = ("before", "taught")


@dataclass(frozen=True)
class BlindPair:
    """A before/after pair of a check.

    Attributes:
        first: the side that is shown first, "before" or "taught".
        answer: the side that was preferred, or "neither"; None before it was answered.
    """

    index: int
    prompt: str
    first: str
    answer: str | None

    def side(self, number: int) -> str:
        """Return "before" or "taught": what is shown at place 0 or 1."""
        return self.first if number == 0 else SIDES[1 - SIDES.index(self.first)]


@dataclass(frozen=True)
class BlindCheck:
    """A blind check of one round.

    Attributes:
        decision: "keep", "gentler" or "back", as the person decided afterwards; None before they did.
    """

    id: str
    round: int
    pairs: tuple[BlindPair, ...]
    decision: str | None


class BlindChecks(Part):
    """Keeps blind checks."""

    def add(
        self, number: int, prompts: Sequence[str], before: Sequence[Image.Image], taught: Sequence[Image.Image]
    ) -> BlindCheck:
        """Save a check's pairs, each with its sides in random order.

        Args:
            number: of the round with the LoRA that is checked.
            prompts: one for each pair.
            before, taught: images of the same prompts and seeds.

        Raises:
            D3POError: the disk is full or the folder cannot be written to.
        """
        check_id = secrets.token_hex(16)
        folder = self._check_folder(number, check_id)
        for index, pair in enumerate(zip(before, taught, strict=True)):
            for side, image in zip(SIDES, pair, strict=True):
                files.replace(folder / f"{index}-{side}.png", files.png(image))
        firsts = [SIDES[index % 2] for index in range(len(prompts))]  # each is first as often as the other
        random.shuffle(firsts)
        with self._database.write() as connection:
            connection.execute(
                "INSERT INTO checks (id, round, created) VALUES (?, ?, ?)", (check_id, number, time.time())
            )
            connection.executemany(
                "INSERT INTO check_pairs (check_id, number, prompt, first) VALUES (?, ?, ?, ?)",
                [(check_id, index, *row) for index, row in enumerate(zip(prompts, firsts, strict=True))],
            )
        return self.get(check_id)

    def get(self, check_id: str) -> BlindCheck:
        """Return a check.

        Raises:
            D3POError: there is none with this id.
        """
        with self._database.read() as connection:
            row = connection.execute("SELECT * FROM checks WHERE id = ?", (check_id,)).fetchone()
            rows = connection.execute("SELECT * FROM check_pairs WHERE check_id = ? ORDER BY number", (check_id,))
            pairs = tuple(BlindPair(each["number"], each["prompt"], each["first"], each["answer"]) for each in rows)
        if row is None:
            raise D3POError(f"This run has no blind check with the id '{check_id}'.")
        return BlindCheck(row["id"], row["round"], pairs, row["decision"])

    def last(self) -> BlindCheck | None:
        """Return the newest check; None if there is none."""
        with self._database.read() as connection:
            row = connection.execute("SELECT id FROM checks ORDER BY created DESC LIMIT 1").fetchone()
        return row and self.get(row["id"])

    def is_outdated(self, check: BlindCheck) -> bool:
        """Return whether a later round is finished: a decision after this check would silently set that aside."""
        with self._database.read() as connection:
            later = "SELECT 1 FROM rounds WHERE finished IS NOT NULL AND number > ?"
            return connection.execute(later, (check.round,)).fetchone() is not None

    def answer(self, check_id: str, index: int, side: int | None, decision_ms: float | None = None) -> BlindCheck:
        """Save which side of a pair a person preferred; the first answer counts.

        Args:
            check_id: the check.
            index: the pair.
            side: 0 or 1 as shown; None for no difference.
            decision_ms: milliseconds between showing and answering, if known.

        Raises:
            D3POError: there is no such check or pair.
        """
        pairs = self.get(check_id).pairs
        if not 0 <= index < len(pairs):
            raise D3POError(f"This check has no pair {index}; it has {len(pairs)}.")
        answer = "neither" if side is None else pairs[index].side(side)
        with self._database.write() as connection:
            connection.execute(
                """UPDATE check_pairs SET answer = ?, ms = ?, answered = ?
                WHERE check_id = ? AND number = ? AND answer IS NULL""",
                (answer, decision_ms, time.time(), check_id, index),
            )
        return self.get(check_id)

    def take_back(self, check_id: str) -> BlindCheck:
        """Take the last answer back, as long as the check is not over: then the sides are known.

        Raises:
            D3POError: there is no such check, it has no answer, or it is over.
        """
        pairs = self.get(check_id).pairs
        if all(pair.answer for pair in pairs):
            raise D3POError("This check is over, and its result is known.", "Decide what to do with the round.")
        if not any(pair.answer for pair in pairs):
            raise D3POError("No pair of this check is answered yet.")
        with self._database.write() as connection:
            connection.execute(
                """UPDATE check_pairs SET answer = NULL, ms = NULL, answered = NULL WHERE check_id = ?1 AND number = (
                SELECT number FROM check_pairs WHERE check_id = ?1 AND answer IS NOT NULL
                ORDER BY answered DESC, number DESC LIMIT 1)""",
                (check_id,),
            )
        return self.get(check_id)

    def decide(self, check_id: str, decision: str) -> None:
        """Save what the person decided after a check.

        Raises:
            D3POError: there is no such check.
        """
        self.get(check_id)
        with self._database.write() as connection:
            connection.execute(
                "UPDATE checks SET decision = ?, decided = ? WHERE id = ?", (decision, time.time(), check_id)
            )

    def image(self, check_id: str, index: int, side: int) -> Path:
        """Return the path of a pair's PNG for side 0 or 1.

        Raises:
            D3POError: there is no such check, pair or side, or the file is missing.
        """
        check = self.get(check_id)
        if 0 <= index < len(check.pairs) and side in (0, 1):
            path = self._check_folder(check.round, check_id) / f"{index}-{check.pairs[index].side(side)}.png"
            if path.is_file():
                return path
        raise D3POError(f"This check has no picture {side} in pair {index}.")

    def _check_folder(self, number: int, check_id: str) -> Path:
        return self._round_folder(number) / f"check-{check_id}"


SIDE = re.compile(r"before|after(-\d{1,2})?")
"""Names of the sides of a strip, which are in its files' names: see `strip_side`."""


def strip_side(strength: float) -> str:
    """Name the side of a strip that shows the LoRA at this strength: "after" for 1, "after-70" for 0.7."""
    return "after" if strength == 1 else f"after-{strength * 100:.0f}"


class Previews(Part):
    """Keeps previews, by round."""

    def save(self, number: int, prompts: Sequence[str], sides: Mapping[str, Sequence[Image.Image]]) -> None:
        """Save a round's images of fixed prompts and seeds.

        Args:
            number: of the round.
            prompts: one for each image of a side.
            sides: images by side: "before", and at each strength the name from `strip_side`.

        Raises:
            D3POError: the disk is full or the folder cannot be written to.
        """
        folder = self._strip_folder(number)
        for side, images in sides.items():
            for index, image in enumerate(images):
                files.replace(folder / f"{index}-{side}.png", files.png(image))
        files.replace(folder / "prompts.json", json.dumps(list(prompts)).encode())

    def prompts(self, number: int) -> list[str]:
        """Return the prompts of a round's before/after images; empty if there are none."""
        try:
            prompts = json.loads((self._strip_folder(number) / "prompts.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return []
        return [str(prompt) for prompt in prompts]

    def image(self, number: int, index: int, side: str) -> Path:
        """Return the path of the image of a prompt, on a side as in `save`, of a round.

        Raises:
            D3POError: there is no such image.
        """
        path = self._strip_folder(number) / f"{index}-{side}.png"
        if not SIDE.fullmatch(side) or not path.is_file():
            raise D3POError(f"Round {number} has no picture {index} of {side}.")
        return path

    def has(self, number: int, side: str) -> bool:
        """Return whether a round's strip has this side."""
        return (self._strip_folder(number) / f"0-{side}.png").is_file()

    def _strip_folder(self, number: int) -> Path:
        return self._round_folder(number) / "strip"
