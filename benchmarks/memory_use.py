"""Memory of this process: peak resident set, and parameters counted once each."""

from __future__ import annotations

import gc
import sys

import torch
from torch import nn

MIB = 2**20


def resident() -> int:
    """Return the resident bytes of this process."""
    import psutil

    return psutil.Process().memory_info().rss


def peak_resident() -> int:
    """Return the largest number of resident bytes that this process has had."""
    if sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def parameter_bytes() -> int:
    """Count the bytes of all parameters of all modules in this process, each storage once."""
    storages: dict[int, int] = {}
    for thing in gc.get_objects():
        if issubclass(type(thing), nn.Module):  # isinstance would wake lazy modules
            for parameter in thing.parameters(recurse=False):
                storage = parameter.untyped_storage()
                storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def module_bytes(module: torch.nn.Module) -> int:
    """Count the bytes of a module's parameters."""
    return sum(p.numel() * p.element_size() for p in module.parameters())
