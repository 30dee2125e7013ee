"""Prompts and their conditioning, the output of the text encoder."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ..errors import D3POError
from . import files
from .database import CONDITIONING, Part


@dataclass(frozen=True)
class Prompt:
    """A prompt of the run, with its negative prompt.

    Attributes:
        asked: a person asked for images of it; False if it only came with imported images.
    """

    id: int
    text: str
    negative: str
    asked: bool


class Prompts(Part):
    """Keeps prompts and their conditioning."""

    def to_show(self) -> list[Prompt]:
        """Return the encoded prompts that a person asked for; if there is none, all encoded ones."""
        encoded = [prompt for prompt in self.all() if self.has_conditioning(prompt.id)]
        return [prompt for prompt in encoded if prompt.asked] or encoded

    def add(self, text: str, negative: str = "", asked: bool = True) -> int:
        """Add a prompt unless it is there, and return its id.

        Args:
            text: the prompt; with the same negative it always has the same id.
            negative: its negative prompt.
            asked: as in `Prompt`; once True it stays so.
        """
        with self._database.write() as connection:
            connection.execute(
                """INSERT INTO prompts (text, negative, asked) VALUES (?, ?, ?)
                ON CONFLICT (text, negative) DO UPDATE SET asked = MAX(asked, excluded.asked)""",
                (text, negative, asked),
            )
            row = connection.execute(
                "SELECT id FROM prompts WHERE text = ? AND negative = ?", (text, negative)
            ).fetchone()
        return int(row["id"])

    def all(self) -> list[Prompt]:
        """Return all prompts, in the order in which they were added."""
        with self._database.read() as connection:
            return [_prompt(row) for row in connection.execute("SELECT * FROM prompts ORDER BY id")]

    def save_conditioning(self, prompt_id: int, tensors: dict[str, Tensor]) -> None:
        """Save a prompt's conditioning; nothing is written if a readable one is there.

        Raises:
            D3POError: the prompt is unknown, the disk is full or the folder cannot be written to.
        """
        self._prompt(prompt_id)
        if not self.has_conditioning(prompt_id):
            files.replace(self._conditioning_path(prompt_id), files.pack(tensors))

    def has_conditioning(self, prompt_id: int) -> bool:
        """Return whether a prompt's conditioning is there and can be read."""
        try:
            self.conditioning(prompt_id)
        except D3POError:
            return False
        return True

    def conditioning(self, prompt_id: int) -> dict[str, Tensor]:
        """Return a prompt's conditioning, as it was saved.

        Raises:
            D3POError: the prompt is unknown, or its file is missing or damaged.
        """
        prompt = self._prompt(prompt_id)
        tensors, _ = files.read(
            self._conditioning_path(prompt_id),
            f"The encoded prompt '{prompt.text}'",
            "Load the model and encode the prompt again.",
            "Pictures, picks and other prompts can still be used.",
        )
        return tensors

    def _prompt(self, prompt_id: int) -> Prompt:
        with self._database.read() as connection:
            row = connection.execute("SELECT * FROM prompts WHERE id = ?", (prompt_id,)).fetchone()
        if row is None:
            raise D3POError(f"This run has no prompt with the id {prompt_id}.")
        return _prompt(row)

    def _conditioning_path(self, prompt_id: int) -> Path:
        return self.folder / CONDITIONING / f"{prompt_id:06}.safetensors"


def _prompt(row: sqlite3.Row) -> Prompt:
    return Prompt(row["id"], row["text"], row["negative"], bool(row["asked"]))
