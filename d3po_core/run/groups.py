"""Groups: candidates drawn for one prompt, with their recorded trajectories and images.

A group's files are written into a temporary folder, and inside one transaction that folder is renamed and the row is
added. A killed process therefore leaves a complete group, or a folder without a row that `remove_leftovers` may delete:
nobody else is between rename and row while one holds the database's write lock.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
import sqlite3
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from ..errors import D3POError
from . import files
from .database import FEATURES, GROUPS, IMPORTED, TRAJECTORY, Part, count_up, insert
from .matches import ENTRANTS
from .records import JsonObject

ID = re.compile(r"\d{6,}-[0-9a-f]{8}")
"""Form of a group's id, which is also its folder's name: its number and 8 random digits."""

_SELECT = """SELECT groups.*, prompts.text AS prompt, prompts.negative AS negative
    FROM groups JOIN prompts ON prompts.id = groups.prompt_id"""


@dataclass(frozen=True)
class Group:
    """A group as the database knows it; its tensors and images are read on demand.

    Attributes:
        id: made by the run; safe in file names and addresses.
        number: counts the run's groups; a killed sampler may leave a gap.
        policy: "base", the hash of the LoRA that sampled it, or `IMPORTED`.
        held_out: never trained on; decided when the group was added.
        freed: its trajectory was deleted to save space.
        near: duplicates: candidates that look like another one.
        showable: at least two candidates differ.
        judged: by standing picks: 0 not at all, 1 skipped, 2 no candidate is better, 3 one is.
        flagged: by standing flags: 0 not at all, 2 all candidates are bad, 3 some are worse than others.
        judges: how many different people have a standing pick on it.
    """

    id: str
    number: int
    prompt_id: int
    prompt: str
    negative: str
    seed: int
    candidates: int
    policy: str
    round: int
    settings: JsonObject
    held_out: bool
    freed: bool
    created: float
    near: tuple[int, ...]
    showable: bool
    judged: int
    flagged: int
    judges: int

    @property
    def recorded(self) -> bool:
        """Return whether the candidates were drawn here, so that they have a trajectory until it is freed.

        Imported images have `latents` at most.
        """
        return self.policy != IMPORTED

    @property
    def entrants(self) -> tuple[str, ...]:
        """Return the ids of the groups whose one image each is shown here; () if the images are its own."""
        return tuple(self.settings.get(ENTRANTS, ()))

    @property
    def distinct(self) -> list[int]:
        """Return the candidates that are no duplicates."""
        return [candidate for candidate in range(self.candidates) if candidate not in self.near]


class Groups(Part):
    """Keeps groups."""

    def next_number(self) -> int:
        """Reserve a group number, 0 and up, that no other call in any process gets."""
        with self._database.write() as connection:
            (highest,) = connection.execute("SELECT COALESCE(MAX(number), -1) FROM groups").fetchone()
            return count_up(connection, "last_number", highest + 1)

    def add(
        self,
        *,
        prompt_id: int,
        number: int,
        seed: int,
        candidates: int,
        policy: str,
        round: int,
        settings: JsonObject,
        held_out: bool,
        tensors: dict[str, Tensor],
        images: list[Image.Image],
        near: Sequence[int] = (),
    ) -> str:
        """Add a group with its files and its row, or nothing, and return its id.

        Args:
            prompt_id: from `Prompts.add`.
            number: from `next_number`.
            seed: seed of the group, 0 to 2**64 - 1.
            candidates: how many images it has.
            policy: "base", the hash of the LoRA that sampled it, or `IMPORTED`.
            round: the round it was drawn for.
            settings: sampling settings, JSON-able.
            held_out: never to be trained on.
            tensors: the trajectory; of imported images their `latents` (candidates, ...), or nothing.
            images: one for each candidate, in order.
            near: duplicates, which are not shown.

        Raises:
            D3POError: the number is taken, the prompt is unknown, the disk is full or the folder cannot be written to.
            ValueError: the number of images is not that of candidates.
        """
        if len(images) != candidates:
            raise ValueError(f"{len(images)} images for {candidates} candidates")
        group_id = f"{number:06}-{secrets.token_hex(4)}"
        final = self.folder / GROUPS / group_id
        half = final.with_name(final.name + files.TEMPORARY)
        row = {
            **{"id": group_id, "number": number, "prompt_id": prompt_id, "seed": str(seed), "candidates": candidates},
            **{"policy": policy, "round": round, "settings": json.dumps(settings), "held_out": held_out},
            **{"created": time.time(), "near": json.dumps(list(near)), "showable": candidates - len(near) >= 2},
        }
        try:
            with files.writing(self.folder):
                half.mkdir(parents=True)
                files.write(half / TRAJECTORY, files.pack(tensors))
                for candidate, image in enumerate(images):
                    files.write(half / f"{candidate}.png", files.png(image))
                files.sync_folder(half)
                with self._database.write() as connection:
                    _check_new(connection, number, prompt_id)
                    insert(connection, "groups", row)
                    files.move(half, final)
        except BaseException:
            shutil.rmtree(half, ignore_errors=True)
            with suppress(D3POError):
                if not self._known(group_id):  # the commit itself may have failed, or an interrupt came after it
                    shutil.rmtree(final, ignore_errors=True)
            raise
        return group_id

    def select(
        self,
        *,
        picked: bool | None = None,
        freed: bool | None = None,
        recorded: bool | None = None,
    ) -> list[Group]:
        """Return the groups that pass all filters, by number.

        Args:
            picked: whether a pick stands on it; flags alone do not count.
            freed, recorded: as in `Group`.
        """
        with self._database.read() as connection:
            rows = connection.execute(
                f"""{_SELECT} WHERE (:picked IS NULL OR (judged > 0) = :picked)
                AND (:freed IS NULL OR freed = :freed)
                AND (:recorded IS NULL OR (policy <> :imported) = :recorded) ORDER BY groups.number""",
                {"picked": picked, "freed": freed, "recorded": recorded, "imported": IMPORTED},
            ).fetchall()
        return [_group(row) for row in rows]

    def get(self, group_id: str) -> Group:
        """Return one group.

        Raises:
            D3POError: there is none with this id.
        """
        with self._database.read() as connection:
            row = connection.execute(f"{_SELECT} WHERE groups.id = ?", (group_id,)).fetchone()
        if row is None:
            raise D3POError(f"This run has no group with the id '{group_id}'.")
        return _group(row)

    def rounds(self) -> list[int]:
        """Return the numbers of the rounds that groups were drawn for."""
        with self._database.read() as connection:
            return [row["round"] for row in connection.execute("SELECT DISTINCT round FROM groups ORDER BY round")]

    def trajectory(self, group_id: str) -> dict[str, Tensor]:
        """Return a group's tensors, as they were added.

        Raises:
            D3POError: the group is unknown or was freed, or its file is missing or damaged.
        """
        group = self.get(group_id)
        if group.entrants:
            return _joined([self.trajectory(each) for each in group.entrants])
        if group.freed:
            raise D3POError(
                f"The trajectory of group {group.number} was deleted to free space, so it can't be trained again.",
                "Draw new groups to go on teaching.",
                "Its images and picks are kept.",
            )
        tensors, _ = files.read(
            self.folder / GROUPS / group.id / TRAJECTORY,
            f"The trajectory of group {group.number}",
            "Leave this group out, or draw a new one.",
            "All other groups, and all picks, can still be used.",
        )
        return tensors

    def save_latents(self, group_id: str, latents: Tensor) -> None:
        """Save the clean latents (candidates, ...) of a group whose images were imported without a VAE.

        Raises:
            D3POError: the group is unknown, the disk is full or the folder cannot be written to.
        """
        group = self.get(group_id)
        assert not group.recorded, "a trajectory is never overwritten"
        files.replace(self.folder / GROUPS / group.id / TRAJECTORY, files.pack({"latents": latents}))

    def features(self, group_id: str) -> dict[str, Tensor]:
        """Return the numbers that describe a group's images, (candidates, F) each, by name; none if none are kept.

        They can be found anew from images and latents, so a damaged file counts as none.
        """
        path = self.folder / GROUPS / group_id / FEATURES
        try:
            if path.is_file():
                return files.read(path, "", "")[0]
            return _joined([self.features(each) for each in self._entrants(path)])
        except D3POError:
            return {}

    def save_features(self, group_id: str, features: dict[str, Tensor]) -> None:
        """Keep numbers that describe a group's images, beside those that are kept.

        Raises:
            D3POError: the disk is full or the folder cannot be written to.
        """
        path = self.folder / GROUPS / group_id / FEATURES
        entrants = self._entrants(path)
        for number, entrant in enumerate(entrants):
            self.save_features(entrant, {name: value[number : number + 1] for name, value in features.items()})
        if not entrants:
            files.replace(path, files.pack({**self.features(group_id), **features}))

    def image_path(self, group_id: str, candidate: int) -> Path:
        """Return the path of a candidate's PNG.

        Raises:
            D3POError: the group or candidate is unknown, or the image is missing.
        """
        group = self.get(group_id)
        path = self.folder / GROUPS / group.id / f"{candidate}.png"
        if not 0 <= candidate < group.candidates:
            raise D3POError(f"Group {group.number} has no candidate {candidate}; it has {group.candidates}.")
        if group.entrants:
            return self.image_path(group.entrants[candidate], 0)
        if not path.is_file():
            raise D3POError(
                f"The image of candidate {candidate} in group {group.number} is missing: {path}.",
                "Leave this group out, or draw a new one.",
                "All other groups, and all picks, can still be used.",
            )
        return path

    def _entrants(self, file: Path) -> tuple[str, ...]:
        """Return the entrants of the group that a file belongs to; a match has no folder of its own."""
        return () if file.parent.is_dir() else self.get(file.parent.name).entrants

    def _known(self, group_id: str) -> bool:
        with self._database.read() as connection:
            return connection.execute("SELECT 1 FROM groups WHERE id = ?", (group_id,)).fetchone() is not None


def _joined(tensors: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Put the tensors of several groups one below the other, by name; what one of them lacks is left out."""
    names = set.intersection(*(set(each) for each in tensors)) if tensors else set()
    return {name: torch.cat([each[name] for each in tensors]) for name in sorted(names)}


def _check_new(connection: sqlite3.Connection, number: int, prompt_id: int) -> None:
    if connection.execute("SELECT 1 FROM groups WHERE number = ?", (number,)).fetchone():
        raise D3POError(f"This run has a group number {number} already.", "Take a new number.", "It was not changed.")
    if not connection.execute("SELECT 1 FROM prompts WHERE id = ?", (prompt_id,)).fetchone():
        raise D3POError(f"This run has no prompt with the id {prompt_id}.")


def _group(row: sqlite3.Row) -> Group:
    values = dict(row)
    values["seed"] = int(values["seed"])
    values["settings"] = json.loads(values["settings"])
    values["near"] = tuple(json.loads(values["near"]))
    for name in ("held_out", "freed", "showable"):
        values[name] = bool(values[name])
    return Group(**values)
