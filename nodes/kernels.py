"""Kernels of the host's that have no gradient, exchanged for plain torch while gradients are wanted."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

FUSED = ("rms_rope", "rms_rope_split_half")
"""Norm and rotary embedding in one. Most of the host's networks leave these out in training by themselves;
Cosmos-Predict2, Anima and JoyImage do not."""


@contextmanager
def plain_kernels() -> Iterator[None]:
    """For a while, the host's `comfy_kitchen` computes what is fused by plain torch functions of its own."""
    kitchen = sys.modules.get("comfy_kitchen")
    if kitchen is None:  # a host that does not use it
        yield
        return
    from comfy_kitchen.backends.eager import rope

    before = {name: getattr(kitchen, name) for name in FUSED if hasattr(rope, name)}
    for name in before:
        setattr(kitchen, name, getattr(rope, name))
    try:
        yield
    finally:
        for name, function in before.items():
            setattr(kitchen, name, function)
