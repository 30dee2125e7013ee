"""manifest.json: with what a run was made, for whoever wants to repeat or understand it.

Versions are read from the installed packages' metadata, so nothing heavy is imported for them. The file is for people;
nothing reads it to decide anything.
"""

from __future__ import annotations

import json
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from .. import __version__
from . import files
from .part import MANIFEST

PACKAGES = ("torch", "diffusers", "transformers", "peft", "safetensors", "numpy", "pillow")


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return a run's manifest as last written; empty if it is missing or damaged."""
    try:
        found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write_manifest(folder: Path, content: dict[str, Any]) -> None:
    """Write a run's manifest, with the versions of what is installed now.

    Args:
        folder: of the run.
        content: JSON-able.

    Raises:
        D3POError: the disk is full or the folder cannot be written to.
    """
    files.replace(folder / MANIFEST, (json.dumps({**content, "versions": versions()}, indent=2) + "\n").encode())


def versions() -> dict[str, str]:
    """Versions of Python, the system, this package and, where installed, what it builds on."""
    found = {"d3po_core": __version__, "python": platform.python_version(), "system": platform.platform()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def device_name(device: torch.device | str) -> str:
    """What a person calls the device: the GPU's name, or the processor and its number of cores."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    return machine if device.type == "cpu" else f"{device.type} on {machine}"
