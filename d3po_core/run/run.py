"""A run: the images, picks and LoRA files of one taste, in a folder that can be moved, copied and deleted.

Its manifest.json has the versions, settings and devices that it was made with, for people who repeat or study it. No
code decides anything by that file. Versions are read from the installed packages' metadata, so nothing heavy is
imported for them.

`RunLibrary` finds the runs in a folder.

`read_image` and its like turn a run's images into tensors, and back.
"""

from __future__ import annotations

import json
import os
import platform
import sqlite3
import threading
import time
import uuid
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .. import __version__
from ..errors import D3POError
from ..names import file_stem
from . import files
from .blind_checks import BlindChecks, Previews
from .database import (
    DATABASE,
    EARLIER_VERSION,
    LOCK,
    MANIFEST,
    VERSION,
    Database,
    connect,
    create_tables,
    transaction,
)
from .files import hold
from .flags import Flags
from .groups import Group, Groups
from .history import History
from .invitations import Invitations
from .leases import Leases
from .masks import Masks
from .matches import Matches
from .picks import Picks
from .prompts import Prompts
from .records import BaseModelFacts, JsonObject
from .rounds import Metrics, Rounds
from .space import Space, remove_leftovers


class Run:
    """A run on disk.

    Several threads and processes may use one folder at once, each process through a Run of its own; a Run must not be
    used after a fork.

    Attributes:
        folder: where the run is now.
        run_id: 32 hexadecimal digits that stay when the folder is renamed, moved or copied.
        name: chosen by the user.
        created: seconds since 1970.
        model: the base model, from `Run.create`.
        settings: from `Run.create`, with later changes by `change_settings`.
        prompts, groups, matches, flags, masks, picks, history, rounds, leases, invitations, blind_checks, previews,
            metrics, space: its parts, see the package's table.
    """

    def __init__(self, folder: Path, database: Database) -> None:
        self.folder = folder
        self._database = database
        with database.read() as connection:
            rows = connection.execute("SELECT key, value FROM meta").fetchall()
        meta: dict[str, str] = {row["key"]: row["value"] for row in rows}
        self.run_id: str = meta["run_id"]
        self.name: str = meta["name"]
        self.created: float = float(meta["created"])
        self.model: BaseModelFacts = json.loads(meta["model"])
        self.settings: JsonObject = json.loads(meta["settings"])
        self.prompts = Prompts(folder, database)
        self.groups = Groups(folder, database)
        self.matches = Matches(folder, database)
        self.flags = Flags(folder, database)
        self.masks = Masks(folder, database)
        self.picks = Picks(folder, database)
        self.history = History(folder, database)
        self.rounds = Rounds(folder, database)
        self.leases = Leases(folder, database)
        self.invitations = Invitations(folder, database)
        self.blind_checks = BlindChecks(folder, database)
        self.previews = Previews(folder, database)
        self.metrics = Metrics(folder, database)
        self.space = Space(folder, database)

    @classmethod
    def create(cls, folder: str | Path, *, name: str = "", model: BaseModelFacts, settings: JsonObject) -> Run:
        """Make a run.

        Args:
            folder: the run's folder; it is made when missing.
            name: chosen by the user; the folder's name if empty.
            model: the base model.
            settings: JSON-able, by section.

        Raises:
            D3POError: there is a run already, the disk is full or the folder cannot be written to.
        """
        _create(Path(folder), name, model, settings)
        return cls.open(folder)

    @classmethod
    def open(cls, folder: str | Path) -> Run:
        """Open a run, and clean up after processes that were killed.

        Raises:
            D3POError: the folder is missing or holds no run; its database is damaged, of a newer version, or of an
                earlier one and busy or on a full disk.
        """
        folder = Path(os.path.abspath(folder))
        if not folder.is_dir():
            raise D3POError(f"There is no folder {folder}.", "If it was moved, open it where it is now.")
        if not (folder / DATABASE).is_file():
            raise D3POError(
                f"{folder} is not a run: it has no {DATABASE}.", "Choose the folder that a run was made in."
            )
        database = Database(folder / DATABASE)
        try:
            version = _check_version(database)
            if version == EARLIER_VERSION:
                _bring_up_to_date(database)
            with suppress(D3POError):  # a run that can't be written to can still be looked at
                remove_leftovers(folder, database)
            return cls(folder, database)
        except BaseException:
            database.close()
            raise

    def rename(self, name: str) -> None:
        """Change the run's name; its folder and id stay.

        Raises:
            D3POError: the name is empty or longer than 120 characters.
        """
        name = " ".join(name.split())
        if not 0 < len(name) <= 120:
            raise D3POError("A name needs 1 to 120 characters.", "Choose another one.")
        with self._database.write() as connection:
            connection.execute("UPDATE meta SET value = ? WHERE key = 'name'", (name,))
        self.name = name
        self.write_manifest()

    def change_settings(self, section: str, values: JsonObject) -> None:
        """Change some settings of a section; an open round keeps those that it was begun with.

        Args:
            section: of `settings`.
            values: JSON-able, by name; None removes a setting, so that the preset or the default holds again.
        """
        with self._database.write() as connection:
            (stored,) = connection.execute("SELECT value FROM meta WHERE key = 'settings'").fetchone()
            settings = json.loads(stored)  # another process may have changed others
            changed = {**settings.get(section, {}), **values}
            settings[section] = {name: value for name, value in changed.items() if value is not None}
            connection.execute("UPDATE meta SET value = ? WHERE key = 'settings'", (json.dumps(settings),))
        self.settings = settings
        self.write_manifest(settings=settings)

    def manifest(self) -> JsonObject:
        """Return the manifest as last written; empty if it is missing or damaged."""
        try:
            manifest = json.loads((self.folder / MANIFEST).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return manifest if isinstance(manifest, dict) else {}

    def write_manifest(self, **facts: object) -> None:
        """Write the manifest with present versions; JSON-able facts (device, seeds, ...) are added or replaced.

        Raises:
            D3POError: the disk is full or the folder cannot be written to.
        """
        identity = {"run_id": self.run_id, "name": self.name, "created": self.created, "model": self.model}
        manifest = {"settings": self.settings, **self.manifest(), **identity, **facts, "versions": versions()}
        files.replace(self.folder / MANIFEST, (json.dumps(manifest, indent=2) + "\n").encode())

    def copy_database(self, path: Path) -> None:
        """Copy the database as it is now to a path where there is none.

        Raises:
            D3POError: it cannot be read, or the disk is full.
        """
        with self._database.read() as connection:
            connection.execute("VACUUM INTO ?", (str(path),))

    def close(self) -> None:
        """Close the database, so that every system can move or delete the folder; the next use opens it again."""
        self._database.close()


def _create(folder: Path, name: str, model: BaseModelFacts, settings: JsonObject) -> None:
    """Make a run unless there is one already. Killed half way it leaves none."""
    with files.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    meta = {
        "run_id": uuid.uuid4().hex,
        "name": name or Path(os.path.abspath(folder)).name,
        "created": repr(time.time()),
        "model": json.dumps(model),
        "settings": json.dumps(settings),
        "last_number": "-1",
        "pick_revision": "0",
    }
    with hold(folder / LOCK, wait=60):
        if (folder / DATABASE).is_file():
            raise D3POError(
                f"There is a run in {folder} already.", "Open it, or choose another folder.", "It was not changed."
            )
        half = files.temporary(folder / DATABASE)
        try:
            with files.writing(folder):
                _build(half, meta)
                for tail in ("-wal", "-shm"):  # of a database that was deleted: it would be replayed onto this one
                    (folder / (DATABASE + tail)).unlink(missing_ok=True)
                files.move(half, folder / DATABASE)
        except BaseException:
            half.unlink(missing_ok=True)
            raise
        run = Run(folder, Database(folder / DATABASE))
        run.write_manifest()
        run.close()


def _build(path: Path, meta: dict[str, str]) -> None:
    connection = connect(path)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        with transaction(connection):
            create_tables(connection)
            connection.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
    finally:
        connection.close()


def _bring_up_to_date(database: Database) -> None:
    """Make a database of version 4 one of today; one that cannot be written to is left as it is, to be looked at.

    Raises:
        D3POError: the disk is full, or another program writes for too long.
    """
    try:
        with database.write():
            pass
    except D3POError as error:
        if not any(reason in str(error.__cause__) for reason in ("readonly", "unable to open")):
            raise


def _check_version(database: Database) -> int:
    """Return a database's version; refuse one that is damaged, or of a version that this program does not know.

    Raises:
        D3POError: it is.
    """
    with database.read() as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (state,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if state != "ok" or version == 0:  # a run's database is made under another name: 0 is no unfinished one
            raise sqlite3.DatabaseError(state.splitlines()[-1] if state != "ok" else "it is empty")
    if version not in (EARLIER_VERSION, VERSION):
        age = "a newer version" if version > VERSION else "an early, unreleased version"
        raise D3POError(
            f"The run in {database.path.parent} was made with {age} of D3PO (format {version}; known is {VERSION}).",
            "Update D3PO." if version > VERSION else "Begin a new run, and import this one's data set into it.",
            "Nothing in it was changed.",
        )
    return int(version)


MAX_STEM_BYTES = 120
"""Of a run's folder: the files in it need some of what a path may have, which is 260 on Windows."""
PACKAGES = ("torch", "diffusers", "transformers", "peft", "safetensors", "numpy", "pillow")


def versions() -> dict[str, str]:
    """Return the versions of Python, the system, this package and those of `PACKAGES` that are installed."""
    installed = {"d3po_core": __version__, "python": platform.python_version(), "system": platform.platform()}
    for package in PACKAGES:
        try:
            installed[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return installed


def device_name(device: torch.device | str) -> str:
    """Name a device as a person does: the GPU's name, or the processor and its number of cores."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    return machine if device.type == "cpu" else f"{device.type} on {machine}"


class UnknownRunError(D3POError):
    """There is no run with the id that was asked for."""


class RunLibrary:
    """The runs in a folder, each in a folder of its own; opened once and kept open. All threads may use it.

    The folder need not exist yet.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._open: dict[Path, Run] = {}
        self._lock = threading.Lock()

    def runs(self) -> list[Run]:
        """Return all runs that can be opened, the newest first.

        Of two with the same id, as a copied folder has it, the one whose folder's name sorts first counts.
        """
        with self._lock:
            folders = sorted(path.parent for path in self.folder.glob(f"[!.]*/{DATABASE}"))
            for gone in set(self._open) - set(folders):
                self._open.pop(gone).close()
            by_id: dict[str, Run] = {}
            for folder in folders:
                with suppress(D3POError):  # a damaged one must not hide the others
                    run = self._open[folder] = self._open.get(folder) or Run.open(folder)
                    by_id.setdefault(run.run_id, run)
        return sorted(by_id.values(), key=lambda run: -run.created)

    def unused(self, name: str) -> Path:
        """Choose a folder for a new run of this name; it does not exist yet.

        Raises:
            D3POError: the library's folder cannot be written to.
        """
        stem = file_stem(name, "taste", MAX_STEM_BYTES)
        with files.writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        path, number = self.folder / stem, 1
        while path.exists():
            number += 1
            path = self.folder / f"{stem}-{number}"
        return path

    def run(self, run_id: str) -> Run:
        """Return a run by its id.

        Raises:
            UnknownRunError: there is none.
        """
        with self._lock:
            matching = [run for run in self._open.values() if run.run_id == run_id]
        if len(matching) == 1 and (matching[0].folder / DATABASE).is_file():
            return matching[0]
        for run in self.runs():
            if run.run_id == run_id:
                return run
        raise UnknownRunError("There is no such taste. It may have been deleted or moved.")

    def close(self) -> None:
        """Close all runs, so that their folders can be moved on every system; the next use opens them again."""
        with self._lock:
            for run in self._open.values():
                run.close()


def to_image(pixels: Tensor) -> Image.Image:
    """Convert pixels (3, H, W) in [0, 1] to an image."""
    return Image.fromarray((pixels.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy())


def to_pixels(image: Image.Image) -> Tensor:
    """Convert an RGB image to pixels (3, H, W) in [0, 1]."""
    return torch.from_numpy(np.asarray(image, dtype=np.float32) / 255).permute(2, 0, 1)


def read_images(run: Run, group: Group) -> Tensor:
    """Read a group's images, (candidates, 3, H, W) in [0, 1].

    Raises:
        D3POError: one of them is missing.
    """
    return torch.stack([read_image(run, group.id, candidate) for candidate in range(group.candidates)])


def read_image(run: Run, group_id: str, candidate: int) -> Tensor:
    """Read one candidate's image, (3, H, W) in [0, 1].

    Raises:
        D3POError: the group or candidate is unknown, or the image is missing.
    """
    with Image.open(run.groups.image_path(group_id, candidate)) as image:
        return to_pixels(image.convert("RGB"))
