"""metrics.jsonl: one line per report, only ever appended to.

A line cut short by a kill is skipped when reading; the next line written begins on a line of its own.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress

from .files import writing
from .part import METRICS, Part
from .records import JsonObject, finite

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
