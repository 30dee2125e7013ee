"""The report for bugs: versions, settings, where it broke. No prompts, no paths."""

from __future__ import annotations

import dataclasses
import json
import traceback
from collections.abc import Iterable
from pathlib import PurePath

from d3po_core.app.runs import sample_settings
from d3po_core.run import Run, device_name
from d3po_core.run.run import versions

PRIVATE = {"negative"}
"""Settings that hold a person's own words."""


def where(error: BaseException) -> str:
    """Return an exception's class and the places it came through; not its message, which may quote a prompt or path."""
    places = [f"{PurePath(f.filename).name}:{f.lineno} {f.name}" for f in traceback.extract_tb(error.__traceback__)]
    return f"{type(error).__name__} at " + " < ".join(reversed(places))


def report(run: Run | None, device: str, log: Iterable[str]) -> str:
    """Return a text to copy."""
    facts: dict[str, object] = {"versions": versions(), "device": device_name(device)}
    if run is not None:
        sample = dataclasses.asdict(sample_settings(run))
        facts["settings"] = {
            **{name: value for name, value in sample.items() if name not in PRIVATE},
            **{section: run.settings.get(section, {}) for section in ("train", "lora")},
        }
        facts["taste"] = {
            **dataclasses.asdict(run.picks.counts("")),
            "rounds": len(run.rounds.all()),
            "family": run.model.get("family"),
        }
    return json.dumps({**facts, "log": list(log)}, indent=2)
