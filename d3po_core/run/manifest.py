"""manifest.json: the versions, settings and devices that a run was made with, for people who repeat or study it.

Versions are read from the installed packages' metadata, so nothing heavy is imported for them. No code decides
anything by this file.
"""

from __future__ import annotations

import json
import os
import platform
from importlib import metadata
from pathlib import Path

import torch

from .. import __version__
from . import files
from .part import MANIFEST
from .records import JsonObject

PACKAGES = ("torch", "diffusers", "transformers", "peft", "safetensors", "numpy", "pillow")


def read_manifest(folder: Path) -> JsonObject:
    """Return a run's manifest as last written; empty if it is missing or damaged."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return manifest if isinstance(manifest, dict) else {}


def write_manifest(folder: Path, content: JsonObject) -> None:
    """Write a run's manifest, with the versions that are installed now.

    Args:
        folder: of the run.
        content: JSON-able.

    Raises:
        D3POError: the disk is full or the folder cannot be written to.
    """
    files.replace(folder / MANIFEST, (json.dumps({**content, "versions": versions()}, indent=2) + "\n").encode())


def versions() -> dict[str, str]:
    """Return the versions of Python, the system, this package and those of `PACKAGES` that are installed."""
    installed = {"d3po_core": __version__, "python": platform.python_version(), "system": platform.platform()}
    for package in PACKAGES:
        try:
            installed[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return installed


def device_name(device: torch.device | str) -> str:
    """Name a device as a person does: the GPU's name, or the processor and its number of cores."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    return machine if device.type == "cpu" else f"{device.type} on {machine}"
