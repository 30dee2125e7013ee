"""ComfyUI's CONDITIONING as tensors that a run can keep, and back.

A CONDITIONING is a list of [encoded text, options]. Tensors are stored as they are, numbers and texts as JSON; objects
(a ControlNet, hooks) cannot be stored, and are only named. They are held in memory instead, for as long as the host
lives, so that a round can be taught right after sampling.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor

from ..d3po_core.diffusion.denoiser import Conditioning
from ..d3po_core.errors import D3POError
from .fingerprint import add_tensor, fingerprint

Cond = list[list[Any]]
KEY = "key"
LAYOUT = "layout"
SIDES = ("positive", "negative")
MOST_HELD = 64

_held: OrderedDict[int, tuple[Cond, Cond]] = OrderedDict()
"""What cannot be stored whole, by key; the oldest is forgotten first."""


def pack(positive: Cond, negative: Cond, around: dict[str, Tensor] | None = None) -> Conditioning:
    """One row of tensors: all that can be stored of a prompt, its layout, and a key that tells it from others.

    Args:
        positive, negative: the host's CONDITIONING.
        around: further tensors of one row that belong to it, such as a mask; they come back under their own names.
    """
    tensors: dict[str, Tensor] = {}
    around = {name: value.detach().cpu().clone() for name, value in (around or {}).items()}
    objects: dict[str, list[str]] = {}
    layout: dict[str, Any] = {}
    for side, cond in zip(SIDES, (positive, negative), strict=True):
        layout[side] = [_part(f"{side}.{i}", entry[0], entry[1], tensors, objects) for i, entry in enumerate(cond)]
    layout |= {"missing": sorted(objects), **({"objects": objects} if objects else {})}
    text = json.dumps(layout, sort_keys=True)
    digest = hashlib.sha256(text.encode())
    for name, value in sorted({**tensors, **around}.items()):
        digest.update(name.encode())
        add_tensor(value, digest)
    key = int.from_bytes(digest.digest()[:8], "big") >> 1
    if layout["missing"]:
        _held[key] = (positive, negative)
        while len(_held) > MOST_HELD:
            _held.popitem(last=False)
    stored = {f"tensor.{name}": value[None] for name, value in tensors.items()}
    return {
        **stored,
        **around,
        KEY: torch.tensor([[key]]),
        LAYOUT: torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)[None],
    }


def key_of(row: Conditioning) -> int:
    """What tells a packed prompt from others."""
    return int(row[KEY][0, 0])


def unpack(row: Conditioning) -> tuple[Cond, Cond]:
    """Positive and negative, as they were packed.

    Raises:
        D3POError: they hold what could not be stored, and the host has been restarted since.
    """
    layout = json.loads(bytes(row[LAYOUT][0].cpu().tolist()))
    if layout["missing"]:
        if key_of(row) in _held:
            return _held[key_of(row)]
        raise D3POError(
            f"These pictures were drawn with {' and '.join(layout['missing'])}, which cannot be kept over a restart.",
            "Queue the sampler once with the same graph, then teach again.",
            "Your picks are saved.",
        )
    positive, negative = ([_entry(row, f"{side}.{i}", part) for i, part in enumerate(layout[side])] for side in SIDES)
    return positive, negative


def _part(
    path: str, text: Tensor | None, options: dict[str, Any], tensors: dict[str, Tensor], objects: dict[str, list[str]]
) -> Any:
    """One entry's layout; its tensors are put aside, and what cannot be stored is told by its content."""
    plain: dict[str, Any] = {}
    for name, value in ({"": text} | options).items():
        if isinstance(value, Tensor):
            tensors[f"{path}.{name}"] = value.detach().cpu().clone()
        elif _plain(value):
            plain[name] = value
        else:
            called = name if isinstance(value, list | tuple | dict) else type(value).__name__
            objects.setdefault(called, []).append(fingerprint(value))
    return plain


def _entry(row: Conditioning, path: str, plain: dict[str, Any]) -> list[Any]:
    found = {
        name.removeprefix(f"tensor.{path}."): value[0]
        for name, value in row.items()
        if name.startswith(f"tensor.{path}.")
    }
    options = {name: tuple(value) if isinstance(value, list) else value for name, value in plain.items()} | found
    return [options.pop("", None), options]


def _plain(value: Any) -> bool:
    """Whether JSON keeps it, lists and tuples made equal."""
    if isinstance(value, list | tuple):
        return all(map(_plain, value))
    return value is None or isinstance(value, bool | int | float | str)
