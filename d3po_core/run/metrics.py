"""metrics.jsonl: one line per report, only ever appended to.

A line cut short by a kill is skipped when reading; the next line written begins on a line of its own.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import Any

from .base import METRICS, Base, finite
from .files import writing


class Metrics(Base):
    """The part of a run that keeps what the trainer reported."""

    def append_metrics(self, values: dict[str, Any]) -> None:
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

    def metrics(self) -> list[dict[str, Any]]:
        """All reports that are whole, oldest first."""
        path = self.folder / METRICS
        found = []
        for line in path.read_bytes().splitlines() if path.is_file() else []:
            with suppress(ValueError):
                found.append(json.loads(line))
        return [each for each in found if isinstance(each, dict)]
