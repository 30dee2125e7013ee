"""metrics.jsonl: one line per report, only ever appended to.

A line cut short by a kill is skipped when reading; the next line written begins on a line of its own.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import Any

from .files import writing
from .part import METRICS, Part, finite

UPDATE = ("round", "phase", "update")
"""What names an update."""


class Metrics(Part):
    """The part of a run that keeps what the trainer reported."""

    def append(self, values: dict[str, Any]) -> None:
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

    def read(self) -> list[dict[str, Any]]:
        """All reports that are whole, oldest first; of an update that was done again after a kill, the later one."""
        path = self.folder / METRICS
        found: dict[Any, dict[str, Any]] = {}
        for number, line in enumerate(path.read_bytes().splitlines() if path.is_file() else []):
            with suppress(ValueError):
                each = json.loads(line)
                if isinstance(each, dict):
                    update = tuple(str(each.get(name)) for name in UPDATE) if "update" in each else number
                    found.pop(update, None)
                    found[update] = each
        return list(found.values())
