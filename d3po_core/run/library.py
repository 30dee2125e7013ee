"""The runs in a host's folder, by their ids."""

from __future__ import annotations

import re
import threading
from pathlib import Path

from ..errors import D3POError
from . import Run, files
from .part import DATABASE


class UnknownRunError(D3POError):
    """There is no run with the id that was asked for."""


class RunLibrary:
    """The runs in a folder, each in a folder of its own; opened once and kept open. All threads may use it.

    Args:
        folder: the folder; it need not exist yet.
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
                run = self._open.get(folder) or _open_or_none(folder)
                if run is not None:
                    self._open[folder] = run
                    by_id.setdefault(run.run_id, run)
        return sorted(by_id.values(), key=lambda run: -run.created)

    def unused(self, name: str) -> Path:
        """Choose a folder for a new run of this name; it does not exist yet.

        Raises:
            D3POError: the library's folder cannot be written to.
        """
        stem = re.sub(r"[^\w.-]+", "-", name).strip(".-")[:60] or "taste"
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


def _open_or_none(folder: Path) -> Run | None:
    try:
        return Run.open(folder)
    except D3POError:  # a damaged one must not hide the others
        return None
