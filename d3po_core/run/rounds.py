"""Rounds of training: which one is unfinished, what came out of the finished ones, and the trainer's state.

The state is one file, tensors and counters together, so that they can never disagree after a kill.

metrics.jsonl has one line per report and is only ever appended to. A line cut short by a kill is skipped when reading;
the next line written begins on a line of its own.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import sqlite3
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from torch import Tensor

from ..errors import D3POError
from . import files
from .database import LOCK, METRICS, STATE, Part
from .files import hold, writing
from .records import JsonObject, RoundSummary, finite


@dataclass(frozen=True)
class Round:
    """A round of training.

    Attributes:
        number: 1 and up.
        settings: of the trainer, as they were when the round was begun or last resumed.
        reference: the policy that it departs from: "base" or a LoRA's hash.
        begun, finished: seconds since 1970; `finished` is None while it is open.
        lora_file: the LoRA that came out, relative to the run's folder; None while it is open.
        lora_hash: id of the policy that came out.
        summary: what the trainer reported at the end; all defaults while it is open.
    """

    number: int
    settings: JsonObject
    reference: str
    begun: float
    finished: float | None
    lora_file: str | None
    lora_hash: str | None
    summary: RoundSummary


class LostLora(D3POError):
    """The LoRA file of a finished round is missing, or is not what was trained; the run can go on without it.

    Args:
        round: whose file it is.
        path: of the file.
        back_to: where the run cannot be drawn for or trained without it, the number of the newest earlier round whose
            file is sound, 0 for the base model; None where another round is at work.
    """

    def __init__(self, round: Round, path: Path, back_to: int | None) -> None:
        self.round, self.back_to = round, back_to
        wrong = "damaged, or another file is in its place" if path.is_file() else "missing"
        do = "Name another round" if back_to is None else "Press Go on in the gallery of this taste"
        super().__init__(
            f"The LoRA of round {round.number} is {wrong}: {path}.",
            f"{do}, or put the file, or a copy of it, back there.",
            "All picks, pictures and other rounds are saved.",
        )


class DamagedState(Exception):
    """A trainer's state cannot be gone on from; says what is wrong with it."""


_LAST_PICK = "SELECT COALESCE(MAX(serial), 0) FROM picks"


class Rounds(Part):
    """Keeps rounds of training."""

    def lock(self) -> AbstractContextManager[None]:
        """Return a context manager to hold while training.

        Raises:
            D3POError: on entering, if another trainer holds it; the message names its process.
        """
        return hold(self.folder / LOCK)

    def begin(self, settings: JsonObject, reference: str = "base", *, anew: bool = False, by_picks: bool = True) -> int:
        """Begin a round, or resume the unfinished one with these settings, and return its number.

        Args:
            settings: of the trainer, JSON-able.
            reference: the policy that it departs from.
            anew: let an unfinished round train on the present picks, as a new one does.
            by_picks: the round trains on the present picks; otherwise they still count as untaught.
        """
        with self._database.write() as connection:
            (number,) = connection.execute(
                """SELECT COALESCE((SELECT number FROM rounds WHERE finished IS NULL),
                (SELECT MAX(number) + 1 FROM rounds), 1)"""
            ).fetchone()
            last_pick = connection.execute(_LAST_PICK).fetchone()[0] if by_picks else 0
            connection.execute(
                """INSERT INTO rounds (number, settings, reference, last_pick, begun) VALUES (?, ?, ?, ?, ?)
                ON CONFLICT (number) DO UPDATE SET settings = excluded.settings, reference = excluded.reference,
                last_pick = CASE WHEN ? THEN excluded.last_pick ELSE last_pick END""",
                (number, json.dumps(settings), reference, last_pick, time.time(), anew),
            )
        return int(number)

    def open(self) -> Round | None:
        """Return the unfinished round, if there is one."""
        return next((each for each in self.all() if each.finished is None), None)

    def stopped(self) -> Round | None:
        """Return the unfinished round if a state of its trainer was saved; without one it is begun anew."""
        unfinished = self.open()
        return unfinished if unfinished and (self._round_folder(unfinished.number) / STATE).is_file() else None

    def all(self) -> list[Round]:
        """Return all rounds, by number."""
        with self._database.read() as connection:
            return [_round(row) for row in connection.execute("SELECT * FROM rounds ORDER BY number")]

    def finish(
        self,
        number: int,
        lora_file: str | Path,
        lora_hash: str,
        summary: RoundSummary,
        *,
        groups: Sequence[str] | None = None,
    ) -> None:
        """Close a round.

        Args:
            number: from `begin`.
            lora_file: the LoRA that came out, inside the run's folder; relative to it, or absolute.
            lora_hash: the policy id of groups that this LoRA samples.
            summary: what the trainer reports.
            groups: ids of the groups trained on, whose tensors `Space.free` may delete. None: every group that is not
                held out and had a standing pick or flag made before the round was begun.

        Raises:
            D3POError: there is no such unfinished round.
        """
        path = self.folder / lora_file
        relative = path.relative_to(self.folder).as_posix()
        with self._database.write() as connection:
            row = connection.execute(
                "SELECT last_pick FROM rounds WHERE number = ? AND finished IS NULL", (number,)
            ).fetchone()
            if row is None:
                raise D3POError(f"This run has no unfinished round {number}.")
            connection.execute(
                "UPDATE rounds SET finished = ?, lora_file = ?, lora_hash = ?, summary = ? WHERE number = ?",
                (time.time(), relative, lora_hash, summary.to_json(), number),
            )
            if groups is None:
                groups = _judged_before(connection, row["last_pick"])
            connection.execute("DELETE FROM meta WHERE key = 'policy'")
            connection.executemany("INSERT OR IGNORE INTO trained VALUES (?, ?)", [(number, each) for each in groups])
        with suppress(OSError):  # the trainer's state, of three times the LoRA's size, is of no more use
            (self._round_folder(number) / STATE).unlink(missing_ok=True)

    def lora(self, policy: str) -> Path | None:
        """Return the LoRA file of a policy, named by its hash or the number of its round; None for "base".

        Raises:
            LostLora: its file is missing, or is not the one that was trained.
            D3POError: no finished round made this policy.
        """
        if policy == "base":
            return None
        maker = self.maker(policy)
        if maker is None or maker.lora_file is None:
            raise D3POError(f"No finished round of this run made the policy '{policy}'.", "Draw with the base model.")
        path = self.folder / maker.lora_file
        if not self._is_sound(maker):
            earlier = [each.number for each in self.all() if each.number < maker.number and self._is_sound(each)]
            used = maker.lora_hash in (self.current_policy(), self.needed())
            raise LostLora(maker, path, max(earlier, default=0) if used else None)
        return path

    def _is_sound(self, round: Round) -> bool:
        """Return whether a finished round's LoRA file is there, as it was written."""
        return round.lora_file is not None and policy_id(self.folder / round.lora_file) == round.lora_hash

    def needed(self) -> str:
        """Return the policy that the next call of a trainer departs from: a stopped round's own, or the present one."""
        stopped = self.stopped()
        return str(stopped.settings.get("start") or self.current_policy()) if stopped else self.current_policy()

    def lost(self) -> LostLora | None:
        """Return what keeps the run from drawing or training; None where both LoRA files are sound, or none is used."""
        for policy in dict.fromkeys((self.current_policy(), self.needed())):
            try:
                self.lora(policy)
            except LostLora as lost:
                return lost
        return None

    def maker(self, policy: str) -> Round | None:
        """Return the round that made a policy, named by its hash or its number; None if no finished round did."""
        finished = (each for each in reversed(self.all()) if each.lora_file is not None)
        return next((each for each in finished if policy in (each.lora_hash, str(each.number))), None)

    def current_policy(self) -> str:
        """Return the policy that samples and that the next round departs from: "base" or a LoRA's hash.

        It is the one that a person went back to, until another round is finished; otherwise the newest.
        """
        with self._database.read() as connection:
            row = connection.execute("SELECT value FROM meta WHERE key = 'policy'").fetchone()
        if row is not None:
            return str(row["value"])
        finished = [each.lora_hash for each in self.all() if each.lora_hash]
        return finished[-1] if finished else "base"

    def go_back(self, policy: str) -> bool:
        """Let an earlier policy sample again, and the next round depart from it; later rounds are kept.

        A stopped round goes on as it was begun; where the LoRA that it departs from is lost, it is begun anew.

        Returns:
            Whether a stopped round is begun anew.

        Raises:
            D3POError: no finished round made the policy, or its file is missing or damaged; or a round is being
                trained, at whose end this would be lost.
        """
        self.lora(policy)
        with self.lock():
            anew = self._set_aside_unless_sound()
            with self._database.write() as connection:
                connection.execute("INSERT OR REPLACE INTO meta VALUES ('policy', ?)", (policy,))
        return anew

    def note_effect(self, number: int, kept: Sequence[tuple[float, float]], win: float | None) -> None:
        """Note what a finished round did to pictures; see `RoundSummary`."""
        with self._database.write() as connection:
            row = connection.execute("SELECT * FROM rounds WHERE number = ?", (number,)).fetchone()
            summary = replace(_round(row).summary, kept=tuple(kept), win=win)
            connection.execute("UPDATE rounds SET summary = ? WHERE number = ?", (summary.to_json(), number))

    def replace_lora(
        self, number: int, lora_file: Path, lora_hash: str, strength: float, strength_before: float | None = None
    ) -> None:
        """Use another file for a finished round, and sample with it from now on: the same LoRA, weaker.

        The file that was trained stays where it is; the summary names it as `whole_file`.

        Args:
            number: of the round.
            lora_file: inside the run's folder.
            lora_hash: the policy's id from now on.
            strength: of the new file, as a share of the trained one's.
            strength_before: see `RoundSummary`.

        Raises:
            D3POError: there is no such finished round.
        """
        relative = lora_file.relative_to(self.folder).as_posix()
        with self._database.write() as connection:
            row = connection.execute(
                "SELECT * FROM rounds WHERE number = ? AND finished IS NOT NULL", (number,)
            ).fetchone()
            if row is None:
                raise D3POError(f"This run has no finished round {number}.")
            before = _round(row)
            whole_file = before.summary.whole_file or before.lora_file
            summary = replace(
                before.summary,
                lora_strength=strength,
                whole_file=whole_file,
                win=None,
                strength_before=strength_before,
            )
            connection.execute(
                "UPDATE rounds SET lora_file = ?, lora_hash = ?, summary = ? WHERE number = ?",
                (relative, lora_hash, summary.to_json(), number),
            )
            connection.execute("INSERT OR REPLACE INTO meta VALUES ('policy', ?)", (lora_hash,))

    def restore(self, number: int, lora_file: Path) -> None:
        """Use another file that holds the same LoRA for a finished round, wherever its policy is named.

        Args:
            number: of the round.
            lora_file: inside the run's folder.
        """
        old, new = next(each.lora_hash for each in self.all() if each.number == number), policy_id(lora_file)
        relative = lora_file.relative_to(self.folder).as_posix()
        with self._database.write() as connection:
            connection.execute(
                "UPDATE rounds SET lora_file = ?, lora_hash = ? WHERE number = ?", (relative, new, number)
            )
            connection.execute("UPDATE rounds SET reference = ? WHERE reference = ?", (new, old))
            for begun in [_round(row) for row in connection.execute("SELECT * FROM rounds WHERE finished IS NULL")]:
                if begun.settings.get("start") == old:
                    settings = json.dumps({**begun.settings, "start": new})
                    connection.execute("UPDATE rounds SET settings = ? WHERE number = ?", (settings, begun.number))
            connection.execute("UPDATE meta SET value = ? WHERE key = 'policy' AND value = ?", (new, old))
            connection.execute("UPDATE groups SET policy = ? WHERE policy = ?", (new, old))

    def _set_aside_unless_sound(self) -> bool:
        """Let a stopped round whose own LoRA to depart from is lost begin anew: its state is kept by another name.

        The lock is held meanwhile.
        """
        stopped = self.stopped()
        try:
            self.lora(self.needed() if stopped else "base")
            return False
        except LostLora:
            pass
        assert stopped is not None, "the base model has no file"
        self.set_state_aside(stopped.number)
        return True

    def set_state_aside(self, number: int) -> Path:
        """Let a stopped round begin anew: its state is kept by another name, which is returned. Hold the lock.

        Raises:
            D3POError: the folder cannot be written to.
        """
        state = self._round_folder(number) / STATE
        names = (state.with_name(f"set-aside-{n}.safetensors") for n in itertools.count(1))
        aside = next(name for name in names if not name.exists())
        with writing(self.folder):
            os.rename(state, aside)
        return aside

    def folder_of(self, number: int) -> Path:
        """Return the folder for the files of a round; it is made when missing.

        Raises:
            D3POError: the disk is full or the folder cannot be written to.
        """
        folder = self._round_folder(number)
        with files.writing(self.folder):
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    def save_state(self, number: int, tensors: dict[str, Tensor], info: JsonObject) -> None:
        """Save the trainer's state atomically: a kill leaves the last one or this one.

        Args:
            number: the round.
            tensors: LoRA weights, optimiser moments, generator states.
            info: counters and the like, JSON-able.

        Raises:
            D3POError: the disk is full or the folder cannot be written to.
        """
        files.replace(self.folder_of(number) / STATE, files.pack(tensors, {"info": json.dumps(info)}))

    def load_state(self, number: int) -> tuple[dict[str, Tensor], JsonObject] | None:
        """Return the trainer's state as last saved: tensors and `info`; None if there is none.

        Raises:
            DamagedState: the file is damaged.
            D3POError: it cannot be read.
        """
        path = self._round_folder(number) / STATE
        try:
            tensors, metadata = files.unpack(path.read_bytes())
            return tensors, dict(json.loads(metadata["info"]))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise D3POError(
                f"What round {number} had learnt so far cannot be read ({error.strerror}): {path}.",
                "Check the disk and the file's rights, and try again.",
                "All picks are saved.",
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise DamagedState(str(error)) from error


def policy_id(path: Path) -> str:
    """Return the id of the policy that a LoRA file makes, 16 hexadecimal digits of its SHA-256; "" without a file."""
    try:
        stat = path.stat()
        return _digest(path, stat.st_size, stat.st_mtime_ns)[:16]
    except OSError:
        return ""


@lru_cache(maxsize=4096)  # more LoRAs than a folder has, all of which a host may ask for again and again
def _digest(path: Path, size: int, changed: int) -> str:
    """Return a file's SHA-256; size and time of change are there so that a file is read again once it has changed."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(2**20):
            digest.update(piece)
    return digest.hexdigest()


def _judged_before(connection: sqlite3.Connection, last_pick: int) -> list[str]:
    """Return ids of groups, not held out, with a standing pick or flag up to this serial."""
    rows = connection.execute(
        """SELECT id FROM groups WHERE NOT held_out AND id IN (
        SELECT group_id FROM standing WHERE serial <= :last
        UNION SELECT group_id FROM flags WHERE serial <= :last)""",
        {"last": last_pick},
    )
    return [row["id"] for row in rows]


def _round(row: sqlite3.Row) -> Round:
    values = dict(row)
    del values["last_pick"]
    values["settings"] = json.loads(values["settings"])
    values["summary"] = RoundSummary.from_json(values["summary"])
    return Round(**values)


UPDATE = ("round", "phase", "update")
"""The values that identify an update."""


class Metrics(Part):
    """Keeps what the trainer reported."""

    def append(self, values: JsonObject) -> None:
        """Append a JSON-able report; NaN and infinity become null.

        Raises:
            D3POError: the disk is full or the folder cannot be written to.
        """
        line = json.dumps(finite(values)).encode() + b"\n"
        with writing(self.folder), open(self.folder / METRICS, "a+b", buffering=0) as file:
            if file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    line = b"\n" + line
            file.write(line)

    def read(self) -> list[JsonObject]:
        """Return all complete reports, oldest first; of an update done again after a kill only the later one."""
        path = self.folder / METRICS
        reports: dict[object, JsonObject] = {}
        for number, line in enumerate(path.read_bytes().splitlines() if path.is_file() else []):
            with suppress(ValueError):
                report = json.loads(line)
                if isinstance(report, dict):
                    update = tuple(str(report.get(name)) for name in UPDATE) if "update" in report else number
                    reports.pop(update, None)
                    reports[update] = report
        return list(reports.values())
