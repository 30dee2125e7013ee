"""manifest.json: with what a run was made, for whoever wants to repeat or understand it.

Versions are read from the installed packages' metadata, so nothing heavy is imported for them. The file is for people;
nothing reads it to decide anything.
"""

from __future__ import annotations

import json
import os
import platform
from importlib import metadata
from typing import Any

import torch

from .. import __version__
from . import files
from .base import MANIFEST, Base

PACKAGES = ("torch", "diffusers", "transformers", "peft", "safetensors", "numpy", "pillow")


class Manifest(Base):
    """The part of a run that tells what it was made with."""

    def manifest(self) -> dict[str, Any]:
        """The manifest as last written; empty if it is missing or damaged."""
        try:
            found = json.loads((self.folder / MANIFEST).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def write_manifest(self, **facts: Any) -> None:
        """Write the manifest with present versions; facts (device, seeds, settings, ...) are added or replaced.

        Raises:
            D3POError: the disk is full or the folder cannot be written to.
        """
        about = {"run_id": self.run_id, "name": self.name, "created": self.created, "model": self.model}
        whole = {"settings": self.settings, **self.manifest(), **about, "versions": versions(), **facts}
        files.replace(self.folder / MANIFEST, (json.dumps(whole, indent=2) + "\n").encode())


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
