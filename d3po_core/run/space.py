"""Disk space: how many bytes a run takes, how to free some, and how leftovers of killed processes are removed."""

from __future__ import annotations

import shutil
import sqlite3
import time
from contextlib import suppress
from pathlib import Path

from ..errors import D3POError
from .database import (
    CONDITIONING,
    DATABASE,
    GROUPS,
    IMPORTED,
    LOCK,
    ROUNDS,
    STATE,
    TRAJECTORY,
    Database,
    Part,
    round_folder,
)
from .files import TEMPORARY, hold
from .groups import ID

KINDS = ("tensors", "images", "loras", "database", "other")
ABANDONED_SECONDS = 600.0
"""Age from which a temporary file counts as abandoned."""


class Space(Part):
    """Measures and frees disk space."""

    def size(self) -> dict[str, int]:
        """Return the run's bytes by kind (one of `KINDS`) and their "total"."""
        sizes = dict.fromkeys(KINDS, 0)
        for path in self.folder.rglob("*"):
            if path.is_file():
                sizes[_kind(path.relative_to(self.folder))] += path.stat().st_size
        return {**sizes, "total": sum(sizes.values())}

    def free(self, keep_rounds: int = 0) -> str:
        """Delete the trajectories of groups that finished rounds were trained on.

        Images, picks, LoRA files, held-out groups and the latents of imported images, which are small, stay.

        Args:
            keep_rounds: how many of the last finished rounds to spare.

        Returns:
            A sentence that says how many bytes were freed and which groups can no longer be retrained.

        Raises:
            D3POError: the run is being trained now, or has a round that is not finished.
        """
        with hold(self.folder / LOCK):
            with self._database.write() as connection:
                rounds = _rounds_to_free(connection, keep_rounds)
                group_ids = _groups_to_free(connection, rounds)
                # The rows first: a kill in between leaves files for `remove_leftovers`, never a group without its file.
                connection.executemany("UPDATE groups SET freed = 1 WHERE id = ?", [(each,) for each in group_ids])
            freed = _delete([self.folder / GROUPS / each / TRAJECTORY for each in group_ids])
        if not freed:
            return "There was nothing to free: no finished round holds tensors that are not needed any more."
        which = f"round {rounds[0]}" if len(rounds) == 1 else f"rounds {rounds[0]} to {rounds[-1]}"
        groups = "1 group" if len(group_ids) == 1 else f"{len(group_ids)} groups"
        return (
            f"Freed {readable(freed)}: {groups} trained in {which} can no longer be retrained. "
            "All images, picks and LoRA files are kept."
        )


def _rounds_to_free(connection: sqlite3.Connection, keep_rounds: int) -> list[int]:
    """Return the numbers of the finished rounds, except the last `keep_rounds`.

    Raises:
        D3POError: a round is not finished.
    """
    rows = connection.execute("SELECT number, finished FROM rounds ORDER BY number").fetchall()
    for row in rows:
        if row["finished"] is None:
            raise D3POError(
                f"Round {row['number']} is not finished and still needs the recorded trajectories.",
                "Train it to its end, then free space.",
                "Nothing was deleted.",
            )
    return [row["number"] for row in rows[: max(0, len(rows) - keep_rounds)]]


def _groups_to_free(connection: sqlite3.Connection, rounds: list[int]) -> list[str]:
    """Return ids of groups with tensors that these rounds, and no others, were trained on."""
    marks = ", ".join("?" * len(rounds))
    return [
        row["id"]
        for row in connection.execute(
            f"""SELECT id FROM groups WHERE NOT freed AND policy <> ? AND (judged > 0 OR flagged > 0)
            AND id IN (SELECT group_id FROM trained WHERE round IN ({marks}))
            AND id NOT IN (SELECT group_id FROM trained WHERE round NOT IN ({marks}))""",
            [IMPORTED, *rounds, *rounds],
        )
    ]


def readable(count: int) -> str:
    """Format a number of bytes for people, in powers of 1,000."""
    amount, unit = float(count), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if amount < 1000:
            break
        amount, unit = amount / 1000, larger
    return f"{amount:.0f} {unit}" if unit == "bytes" else f"{amount:.1f} {unit}"


def _delete(paths: list[Path]) -> int:
    """Delete those files that exist, and return how many bytes they had."""
    freed = 0
    for path in paths:
        if path.is_file():
            freed += path.stat().st_size
            path.unlink()
    return freed


def _kind(path: Path) -> str:
    if path.suffix in (".png", ".webp", ".jpg"):
        return "images"
    if path.name.startswith(DATABASE):
        return "database"
    if path.suffix != ".safetensors":
        return "other"
    return "tensors" if path.parts[0] in (GROUPS, CONDITIONING) or path.name == STATE else "loras"


def remove_leftovers(folder: Path, database: Database) -> None:
    """Remove abandoned temporary files, group folders without a row, freed groups' tensors, finished rounds' states."""
    now = time.time()
    for path in _temporaries(folder):
        with suppress(OSError):
            if now - path.stat().st_mtime > ABANDONED_SECONDS:
                _remove(path)
    with database.read() as connection:
        freed = connection.execute("SELECT id FROM groups WHERE freed").fetchall()
        finished = connection.execute("SELECT number FROM rounds WHERE finished IS NOT NULL").fetchall()
    unneeded = [folder / GROUPS / row["id"] / TRAJECTORY for row in freed]
    for path in unneeded + [round_folder(folder, row["number"]) / STATE for row in finished]:
        with suppress(OSError):
            path.unlink(missing_ok=True)
    if _orphans(folder, database):
        with database.write():  # now nobody is between renaming a folder and adding its row
            for path in _orphans(folder, database):
                _remove(path)


def _temporaries(folder: Path) -> list[Path]:
    places = [folder, folder / CONDITIONING, folder / GROUPS, *(folder / ROUNDS).glob("*")]
    return [path for place in places for path in place.glob(f"*{TEMPORARY}*")]


def _orphans(folder: Path, database: Database) -> list[Path]:
    """Return group folders without a row."""
    folders = [path for path in (folder / GROUPS).glob("*") if ID.fullmatch(path.name)]
    with database.read() as connection:  # after the listing: a group added in between is known
        known = {row["id"] for row in connection.execute("SELECT id FROM groups")}
    return [path for path in folders if path.name not in known]


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
