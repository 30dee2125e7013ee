"""What the makers need to know when something went wrong: versions, settings, where it broke. No prompts, no paths."""

from __future__ import annotations

import dataclasses
import json
import traceback
from collections.abc import Iterable
from pathlib import PurePath

from d3po_core.run import Run, device_name
from d3po_core.run.run import versions
from d3po_core.settings import SampleSettings

PRIVATE = {"negative"}
"""Settings that hold a person's own words."""


def where(error: BaseException) -> str:
    """An exception's kind and the places it came through; not its message, which may quote a prompt or path."""
    places = [f"{PurePath(f.filename).name}:{f.lineno} {f.name}" for f in traceback.extract_tb(error.__traceback__)]
    return f"{type(error).__name__} at " + " < ".join(reversed(places))


def report(run: Run | None, device: str, log: Iterable[str]) -> str:
    """A text to copy.

    Args:
        run: the taste that was open.
        device: that the model is on.
        log: what `where` said, oldest first.
    """
    found = {"versions": versions(), "device": device_name(device)}
    if run is not None:
        sample = {**dataclasses.asdict(SampleSettings()), **run.settings.get("sample", {})}
        found["settings"] = {
            **{name: value for name, value in sample.items() if name not in PRIVATE},
            **{section: run.settings.get(section, {}) for section in ("train", "lora")},
        }
        counts = run.picks.counts("")
        found["taste"] = {
            **dataclasses.asdict(counts),
            "rounds": len(run.rounds.all()),
            "family": run.model.get("family"),
        }
    return json.dumps({**found, "log": list(log)}, indent=2)
