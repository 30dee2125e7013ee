"""Matches: pictures that exist already, shown two at a time.

A picture that takes part in a tournament, an entrant, is a group of one imported image, which is never shown by itself.
A match is a group of two entrants. It has no files: its images and tensors are theirs.
"""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import dataclass

from .database import IMPORTED, Part, count_up, insert
from .records import JsonObject

ENTRANT, ENTRANTS = "entrant", "entrants"
"""In a group's settings: the size of an entrant's image, by which it is compared, and the two entrants of a match."""

_IMPORTED = f"policy = '{IMPORTED}'"
"""Not as a parameter: SQLite uses the index of these groups only where it sees that they are meant."""


@dataclass(frozen=True)
class Entrant:
    """A picture that takes part.

    Attributes:
        group_id: of the group that holds it.
        source: the file that it was read from.
        prompt_id, prompt: of its prompt.
        size: width and height in pixels.
    """

    group_id: str
    source: str
    prompt_id: int
    prompt: str
    size: tuple[int, int]


@dataclass(frozen=True)
class Match:
    """A match that was made.

    Attributes:
        group_id: of the group that is shown.
        entrants: ids of the two entrants' groups, in the order of the candidates.
        over: whether somebody judged it, or passed it over.
    """

    group_id: str
    entrants: tuple[str, str]
    over: bool


class Matches(Part):
    """Keeps who takes part, and who was shown beside whom."""

    def entrants(self) -> list[Entrant]:
        """Return all pictures that take part, in the order in which they were imported."""
        with self._database.read() as connection:
            rows = connection.execute(
                f"""SELECT groups.id, groups.prompt_id, groups.settings, prompts.text FROM groups
                JOIN prompts ON prompts.id = groups.prompt_id
                WHERE {_IMPORTED} AND json_extract(settings, '$.{ENTRANT}') IS NOT NULL ORDER BY groups.number"""
            ).fetchall()
        entrants = []
        for row in rows:
            settings = json.loads(row["settings"])
            size = tuple(settings[ENTRANT])
            entrants.append(Entrant(row["id"], settings["from"], row["prompt_id"], row["text"], size))
        return entrants

    def count_groups(self) -> int:
        """Return how many groups there are of imported pictures, matches among them."""
        with self._database.read() as connection:
            (count,) = connection.execute(f"SELECT COUNT(*) FROM groups WHERE {_IMPORTED}").fetchone()
        return int(count)

    def all(self) -> list[Match]:
        """Return all matches, in the order in which they were made."""
        with self._database.read() as connection:
            rows = connection.execute(
                f"""SELECT id, json_extract(settings, '$.{ENTRANTS}') AS entrants, MAX(judged, flagged) > 0 AS over
                FROM groups WHERE {_IMPORTED} AND json_extract(settings, '$.{ENTRANTS}') IS NOT NULL ORDER BY number"""
            ).fetchall()
        return [Match(row["id"], tuple(json.loads(row["entrants"])), bool(row["over"])) for row in rows]

    def add(self, first: Entrant, second: Entrant, round: int, group_id: str = "") -> str | None:
        """Add a match of two entrants, and return its group's id; None if they have met, perhaps by another process.

        Args:
            first, second: the candidates, in this order.
            round: the round that it is judged for.
            group_id: as in a copy of the run where it was made; empty for a new one.
        """
        pair = [first.group_id, second.group_id]
        key = f"match {' '.join(sorted(pair))}"
        settings: JsonObject = {"key": key, "from": f"{first.source}, {second.source}", ENTRANTS: pair}
        with self._database.write() as connection:
            met = "SELECT 1 FROM groups WHERE policy = ? AND json_extract(settings, '$.key') = ?"
            if connection.execute(met, (IMPORTED, key)).fetchone():
                return None
            (highest,) = connection.execute("SELECT COALESCE(MAX(number), -1) FROM groups").fetchone()
            number = count_up(connection, "last_number", highest + 1)
            group_id = group_id or f"{number:06}-{secrets.token_hex(4)}"
            row = {
                **{"id": group_id, "number": number, "prompt_id": first.prompt_id, "seed": "0", "candidates": 2},
                **{"policy": IMPORTED, "round": round, "settings": json.dumps(settings), "held_out": False},
                **{"created": time.time(), "near": "[]", "showable": True},
            }
            insert(connection, "groups", row)
        return group_id
