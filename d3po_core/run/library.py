"""All tastes of a host: the runs in its folder, by the ids that they were given when they were made."""

from __future__ import annotations

import re
import threading
from pathlib import Path

from ..errors import D3POError
from ..gallery.fields import NotFound
from . import Run, files
from .part import DATABASE


class RunLibrary:
    """The runs that lie in a folder, each in a folder of its own; opened once and kept open. Any thread may use it.

    Args:
        folder: where; it need not exist yet.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._open: dict[Path, Run] = {}
        self._lock = threading.Lock()

    def runs(self) -> list[Run]:
        """All runs that can be opened, the newest first.

        Of two with the same id, as a copied folder has it, the one with the first name counts.
        """
        with self._lock:
            found = sorted(path.parent for path in self.folder.glob(f"[!.]*/{DATABASE}"))
            for gone in set(self._open) - set(found):
                self._open.pop(gone).close()
            known: dict[str, Run] = {}
            for path in found:
                run = self._open.get(path) or _opened(path)
                if run is not None:
                    self._open[path] = run
                    known.setdefault(run.run_id, run)
        return sorted(known.values(), key=lambda run: -run.created)

    def unused(self, name: str) -> Path:
        """A folder for a new taste of this name; it is not there yet.

        Raises:
            D3POError: the shelf's folder cannot be written to.
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
        """A run by its id.

        Raises:
            NotFound: there is none.
        """
        with self._lock:
            known = [run for run in self._open.values() if run.run_id == run_id]
        if len(known) == 1 and (known[0].folder / DATABASE).is_file():
            return known[0]
        for run in self.runs():
            if run.run_id == run_id:
                return run
        raise NotFound("There is no such taste. It may have been deleted or moved.")

    def close(self) -> None:
        """Close all runs, so that their folders can be moved on every system. Use opens them again."""
        with self._lock:
            for run in self._open.values():
                run.close()


def _opened(path: Path) -> Run | None:
    try:
        return Run.open(path)
    except D3POError:  # a damaged one must not hide the others
        return None
