"""Kernels of the host's that have no gradient, exchanged for plain torch while gradients are wanted."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

ROTARY = [
    f"{what}{layout}{one}" for what in ("apply_rope", "rms_rope") for layout in ("", "_split_half") for one in ("", "1")
]
"""Rotary embedding of queries and keys, with or without the norm before it. Most of the host's networks leave these
kernels out in training by themselves; Cosmos-Predict2, Anima, JoyImage and Ernie do not."""


@contextmanager
def plain_kernels() -> Iterator[None]:
    """For a while, the host's `comfy_kitchen` computes what is fused by plain torch functions of its own."""
    kitchen = sys.modules.get("comfy_kitchen")
    if kitchen is None:  # a host that does not use it
        yield
        return
    from comfy_kitchen.backends.eager import rope

    before = {name: getattr(kitchen, name) for name in ROTARY if hasattr(rope, name)}
    for name in before:
        setattr(kitchen, name, getattr(rope, name))
    try:
        yield
    finally:
        for name, function in before.items():
            setattr(kitchen, name, function)
