"""Settings from a file: JSON, or TOML where this Python can read it.

A name may stand alone, for whichever command has it, or under the section ("sample", "lora", "train") that it belongs
to. One file can therefore serve all commands.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from ..errors import D3POError
from ..settings import PRESETS


def read_config(path: str | Path, sections: dict[str, type]) -> dict[str, Any]:
    """The file's values by section, and its "preset" if it has one; types and ranges are not checked yet.

    Raises:
        D3POError: the file cannot be read, or it names something that no section has.
    """
    path = Path(path)
    known = {name: {item.name for item in dataclasses.fields(cls)} for name, cls in sections.items()}
    found: dict[str, Any] = {name: {} for name in sections}
    for name, value in _load(path).items():
        if name == "preset":
            if value not in PRESETS:
                raise D3POError(f"{path} asks for the preset '{value}'.", f"Choose one of {', '.join(PRESETS)}.")
            found["preset"] = value
        elif name in sections:
            if not isinstance(value, dict):
                raise D3POError(f"'{name}' in {path} is not a group of settings.")
            found[name].update(value)
        else:
            owners = [section for section in sections if name in known[section]]
            if not owners:
                everything = sorted(set().union(*known.values()))
                raise D3POError(f"{path} names '{name}', which is no setting.", f"Known are {', '.join(everything)}.")
            for section in owners:
                found[section].setdefault(name, value)
    return found


def _load(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not text"
        raise D3POError(f"The settings in {path} cannot be read ({reason}).", "Check the path.") from error
    try:
        values = _toml(text) if path.suffix == ".toml" else json.loads(text)
    except ValueError as error:
        raise D3POError(f"The settings in {path} cannot be understood ({error}).", "Correct the file.") from error
    if not isinstance(values, dict):
        raise D3POError(f"{path} is not a table of settings.", 'It should look like {"steps": 12}.')
    return values


def _toml(text: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        try:
            import tomli as tomllib
        except ImportError as error:
            raise D3POError("This Python cannot read TOML.", "Use JSON, or Python 3.11 or later.") from error
    return tomllib.loads(text)
