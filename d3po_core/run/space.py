"""How much room a run takes, and how to get some back."""

from __future__ import annotations

import shutil
import sqlite3
import time
from contextlib import suppress
from pathlib import Path

from ..errors import D3POError
from .database import Database
from .files import TEMPORARY
from .groups import ID
from .lock import hold
from .part import CONDITIONING, DATABASE, GROUPS, IMPORTED, LOCK, ROUNDS, STATE, TRAJECTORY, Part

KINDS = ("tensors", "images", "loras", "database", "other")


class Space(Part):
    """The part of a run that minds the disk."""

    def size(self) -> dict[str, int]:
        """Bytes by kind (tensors, images, loras, database, other) and their total."""
        sizes = dict.fromkeys(KINDS, 0)
        for path in self.folder.rglob("*"):
            if path.is_file():
                sizes[_kind(path.relative_to(self.folder))] += path.stat().st_size
        return {**sizes, "total": sum(sizes.values())}

    def free(self, keep_rounds: int = 0) -> str:
        """Delete the trajectories of groups that finished rounds were trained on, and those rounds' trainer states.

        Images, picks, LoRA files, held-out groups and the latents of imported pictures, which are small, stay.

        Args:
            keep_rounds: how many of the last finished rounds to spare.

        Returns:
            A sentence that says how many bytes that gave and what can no longer be retrained.

        Raises:
            D3POError: the run is being trained right now, or a half-trained round waits to be resumed.
        """
        with hold(self.folder / LOCK):
            with self._database.write() as connection:
                rounds = self._done_with(connection, keep_rounds)
                spent = _spent(connection, rounds)
                # The rows first: a kill in between leaves files that `sweep` removes, never a group without its file.
                connection.executemany("UPDATE groups SET freed = 1 WHERE id = ?", [(each,) for each in spent])
            states = [self.folder / ROUNDS / f"{number:04}" / STATE for number in rounds]
            removed = _delete([self.folder / GROUPS / each / TRAJECTORY for each in spent] + states)
        if not removed:
            return "There was nothing to free: no finished round holds tensors that are not needed any more."
        which = f"round {rounds[0]}" if len(rounds) == 1 else f"rounds {rounds[0]} to {rounds[-1]}"
        groups = "1 group" if len(spent) == 1 else f"{len(spent)} groups"
        return (
            f"Freed {readable(removed)}: {groups} trained in {which} can no longer be retrained. "
            "All images, picks and LoRA files are kept."
        )

    def _done_with(self, connection: sqlite3.Connection, keep_rounds: int) -> list[int]:
        """Numbers of the finished rounds, but for the last `keep_rounds`."""
        rows = connection.execute("SELECT number, finished FROM rounds ORDER BY number").fetchall()
        for row in rows:
            if row["finished"] is None:
                raise D3POError(
                    f"Round {row['number']} is not finished and still needs the recorded trajectories.",
                    "Train it to its end, then free space.",
                    "Nothing was deleted.",
                )
        finished = [row["number"] for row in rows if row["finished"] is not None]
        return finished[: max(0, len(finished) - keep_rounds)]


def _spent(connection: sqlite3.Connection, rounds: list[int]) -> list[str]:
    """Groups with tensors that these rounds, and no others, were trained on."""
    marks = ", ".join("?" * len(rounds))
    return [
        row["id"]
        for row in connection.execute(
            f"""SELECT id FROM groups WHERE NOT freed AND policy <> ?
            AND id IN (SELECT group_id FROM trained WHERE round IN ({marks}))
            AND id NOT IN (SELECT group_id FROM trained WHERE round NOT IN ({marks}))""",
            [IMPORTED, *rounds, *rounds],
        )
    ]


def readable(count: int) -> str:
    """A number of bytes as people read it, in powers of 1,000."""
    amount, unit = float(count), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if amount < 1000:
            break
        amount, unit = amount / 1000, larger
    return f"{amount:.0f} {unit}" if unit == "bytes" else f"{amount:.1f} {unit}"


def _delete(paths: list[Path]) -> int:
    """Delete the files that are there; bytes given back."""
    gone = 0
    for path in paths:
        if path.is_file():
            gone += path.stat().st_size
            path.unlink()
    return gone


def _kind(path: Path) -> str:
    if path.suffix in (".png", ".webp", ".jpg"):
        return "images"
    if path.name.startswith(DATABASE):
        return "database"
    if path.suffix != ".safetensors":
        return "other"
    return "tensors" if path.parts[0] in (GROUPS, CONDITIONING) or path.name == STATE else "loras"


ABANDONED_SECONDS = 600.0
"""Seconds after which a temporary file is taken for abandoned."""


def remove_leftovers(folder: Path, database: Database) -> None:
    """Remove abandoned temporary files, group folders without a row, and freed groups' tensors."""
    now = time.time()
    for path in _temporaries(folder):
        with suppress(OSError):
            if now - path.stat().st_mtime > ABANDONED_SECONDS:
                _remove(path)
    with database.read() as connection:
        freed = connection.execute("SELECT id FROM groups WHERE freed").fetchall()
    for row in freed:
        with suppress(OSError):
            (folder / GROUPS / row["id"] / TRAJECTORY).unlink(missing_ok=True)
    if _orphans(folder, database):
        with database.write():  # nobody stands between renaming a folder and adding its row now
            for path in _orphans(folder, database):
                _remove(path)


def _temporaries(folder: Path) -> list[Path]:
    places = [folder, folder / CONDITIONING, folder / GROUPS, *(folder / ROUNDS).glob("*")]
    return [path for place in places for path in place.glob(f"*{TEMPORARY}*")]


def _orphans(folder: Path, database: Database) -> list[Path]:
    found = [path for path in (folder / GROUPS).glob("*") if ID.fullmatch(path.name)]
    with database.read() as connection:  # after the listing: a group added in between is known
        known = {row["id"] for row in connection.execute("SELECT id FROM groups")}
    return [path for path in found if path.name not in known]


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
