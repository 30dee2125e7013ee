"""All tastes of a host: the runs in its folder, by the ids that they were given when they were made."""

from __future__ import annotations

from pathlib import Path

from ..errors import D3POError
from ..run import Run
from ..run.base import DATABASE


class Shelf:
    """The runs that lie in a folder, each in a folder of its own; opened once and kept open.

    Args:
        folder: where; it need not exist yet.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._open: dict[Path, Run] = {}

    def runs(self) -> list[Run]:
        """All runs that can be opened, the newest first."""
        found = {path.parent for path in self.folder.glob(f"*/{DATABASE}")}
        for gone in set(self._open) - found:
            self._open.pop(gone).close()
        for path in found - set(self._open):
            try:
                self._open[path] = Run.open(path)
            except D3POError:  # a damaged one must not hide the others
                continue
        return sorted(self._open.values(), key=lambda run: -run.created)

    def run(self, run_id: str) -> Run:
        """A run by its id.

        Raises:
            D3POError: there is none.
        """
        known = [run for run in self._open.values() if (run.folder / DATABASE).is_file()]
        for run in (*known, *self.runs()):
            if run.run_id == run_id:
                return run
        raise D3POError("There is no such taste.", "It may have been deleted or moved; choose another one.")
