"""ComfyUI's CONDITIONING as tensors that a run can keep, and back.

A CONDITIONING is a list of [encoded text, options]. Tensors are stored as they are, numbers and texts as JSON, and
lists and dictionaries of them (reference latents, what a CLIP vision saw) part by part; other objects (a ControlNet,
hooks) cannot be stored, and are only named. They are held in memory instead, for as long as the host lives, so that a
round can be trained right after sampling.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterator
from enum import Enum
from types import FunctionType, ModuleType
from typing import Any, Protocol
from uuid import UUID

import comfy.clip_vision
import torch
from torch import Tensor

from ...d3po_core.diffusion.denoiser import Conditioning
from ...d3po_core.errors import D3POError
from .types import Cond, Options

KEY = "key"
LAYOUT = "layout"
SIDES = ("positive", "negative")
MAX_HELD = 64

_held: OrderedDict[int, tuple[Cond, Cond]] = OrderedDict()
"""Prompts that cannot be stored completely, by key; the oldest is forgotten first."""


class Digest(Protocol):
    """A hash in the making, as `hashlib` has them."""

    def update(self, data: bytes, /) -> None: ...


def pack(positive: Cond, negative: Cond, around: dict[str, Tensor] | None = None) -> Conditioning:
    """Return all that can be stored of a prompt as one row of tensors, with its layout and a key that identifies it.

    Args:
        positive, negative: the host's CONDITIONING.
        around: further tensors of one row that belong to it, such as a mask; they come back under their own names.
    """
    tensors: dict[str, Tensor] = {}
    around = {name: value.detach().cpu().clone() for name, value in (around or {}).items()}
    objects: dict[str, list[str]] = {}
    layout: dict[str, object] = {}
    for side, cond in zip(SIDES, (positive, negative), strict=True):
        layout[side] = [_part(f"{side}.{i}", entry[0], entry[1], tensors, objects) for i, entry in enumerate(cond)]
    missing = sorted(objects)
    layout |= {"missing": missing, **({"objects": objects} if objects else {})}
    text = json.dumps(layout, sort_keys=True)
    digest = hashlib.sha256(text.encode())
    for name, value in sorted({**tensors, **around}.items()):
        digest.update(name.encode())
        add_tensor(value, digest)
    key = int.from_bytes(digest.digest()[:8], "big") >> 1
    if missing:
        _held[key] = (positive, negative)
        while len(_held) > MAX_HELD:
            _held.popitem(last=False)
    stored = {f"tensor.{name}": value[None] for name, value in tensors.items()}
    return {
        **stored,
        **around,
        KEY: torch.tensor([[key]]),
        LAYOUT: torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)[None],
    }


def key_of(row: Conditioning) -> int:
    """Return the number that identifies a packed prompt."""
    return int(row[KEY][0, 0])


def unpack(row: Conditioning) -> tuple[Cond, Cond]:
    """Return positive and negative as they were packed.

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
    path: str, text: Tensor | None, options: Options, tensors: dict[str, Tensor], objects: dict[str, list[str]]
) -> dict[str, object]:
    """Return the layout of one entry; add its tensors to `tensors`, and fingerprints of what cannot be stored to
    `objects`."""
    plain: dict[str, object] = {}
    for name, value in ({"": text} | options).items():
        if isinstance(value, Tensor):
            tensors[f"{path}.{name}"] = value.detach().cpu().clone()
        elif _is_plain(value):
            plain[name] = value
        elif _is_nested(value):
            plain[name] = _take_apart(value, f"{path}.{name}", tensors)
        else:
            kind = name if isinstance(value, list | tuple | dict) else type(value).__name__
            objects.setdefault(kind, []).append(fingerprint(value))
    return plain


def _entry(row: Conditioning, path: str, plain: Options) -> list[object]:
    tensors = {
        name.removeprefix(f"tensor.{path}."): value[0]
        for name, value in row.items()
        if name.startswith(f"tensor.{path}.")
    }
    options = {name: _put_together(value, row) for name, value in plain.items()}
    options |= {name: value for name, value in tensors.items() if INSIDE not in name}
    return [options.pop("", None), options]


INSIDE = "/"
"""Before the number or name of a part, in the name of its tensor."""
TENSOR, ITEMS, FIELDS, SEEN = "tensor", "items", "fields", "seen"
"""How a layout says what was taken apart: a tensor by its name, a list, a dictionary, a CLIP vision's output. Nothing
plain is a dictionary."""


def _is_nested(value: object) -> bool:
    """Return whether a value is made of lists, dictionaries and outputs of a CLIP vision, down to tensors and what JSON
    keeps."""
    if isinstance(value, list | tuple):
        return all(map(_is_nested, value))
    if isinstance(value, comfy.clip_vision.Output):
        value = vars(value)
    if isinstance(value, dict):
        return all(isinstance(name, str) and _is_nested(each) for name, each in value.items())
    return isinstance(value, Tensor) or _is_plain(value)


def _take_apart(value: Any, path: str, tensors: dict[str, Tensor]) -> object:
    """Return the layout of what `_is_nested`; add its tensors to `tensors`."""
    if isinstance(value, Tensor):
        tensors[path] = value.detach().cpu().clone()
        return {TENSOR: path}
    if isinstance(value, list | tuple) and not _is_plain(value):
        return {ITEMS: [_take_apart(each, f"{path}{INSIDE}{i}", tensors) for i, each in enumerate(value)]}
    if isinstance(value, dict):
        return {FIELDS: {name: _take_apart(each, f"{path}{INSIDE}{name}", tensors) for name, each in value.items()}}
    return {SEEN: _take_apart(vars(value), path, tensors)} if isinstance(value, comfy.clip_vision.Output) else value


def _put_together(layout: Any, row: Conditioning) -> Any:
    """Return a value by its layout; tuples of plain values were lists perhaps, for which the host takes them too."""
    if isinstance(layout, list):
        return tuple(layout)
    if not isinstance(layout, dict):
        return layout
    ((kind, inside),) = layout.items()
    if kind == TENSOR:
        return row[f"tensor.{inside}"][0]
    if kind == ITEMS:
        return [_put_together(each, row) for each in inside]
    if kind == FIELDS:
        return {name: _put_together(each, row) for name, each in inside.items()}
    output = comfy.clip_vision.Output()
    vars(output).update(_put_together(inside, row))
    return output


def _is_plain(value: object) -> bool:
    """Return whether JSON keeps it, lists and tuples made equal."""
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


PLAIN = (bool, int, float, str, bytes, Enum, torch.dtype, torch.device)
SAMPLED_PARAMETERS = 8
SAMPLED_VALUES = 64
"""How many of a network's parameters go into its fingerprint, and how many values of each."""
MAX_DEPTH = 8
"""Of attributes of attributes."""
WHILE_SAMPLING = {"cond_hint", "extra_concat", "timestep_range", "model_sampling_current", "multigpu_clones", "vae"}
"""What a ControlNet holds for a while, or names an image's maker only."""


def fingerprint(value: object) -> str:
    """Hash an object's content: tensors, numbers and texts, and a sample of a network's weights.

    A ControlNet with another image or strength, or LoRA hooks with another file, give another hash.
    """
    digest = hashlib.sha256()
    _add(value, digest, MAX_DEPTH)
    return digest.hexdigest()[:16]


def add_tensor(value: Tensor, digest: Digest) -> None:
    """Take a tensor's type, shape and bytes into a hash."""
    digest.update(f"{value.dtype} {tuple(value.shape)}".encode())
    digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())


def _add(value: Any, digest: Digest, depth: int) -> None:
    if isinstance(value, Tensor):
        add_tensor(value, digest)
    elif isinstance(value, torch.nn.Module):
        for name, parameter in list(value.named_parameters())[:SAMPLED_PARAMETERS]:
            digest.update(f"{name} {tuple(parameter.shape)}".encode())
            add_tensor(parameter.detach().flatten()[:SAMPLED_VALUES].float(), digest)
    elif isinstance(value, dict):
        for name, each in sorted(value.items(), key=lambda item: str(item[0])):
            digest.update(str(name).encode())
            _add(each, digest, depth)
    elif isinstance(value, list | tuple):
        for each in value:
            _add(each, digest, depth)
    elif isinstance(value, FunctionType | ModuleType | type):
        digest.update(value.__name__.encode())
    elif hasattr(value, "hook_ref"):
        fields = vars(value)
        digest.update(f"{type(value).__name__} {[fields.get(f'_strength_{of}') for of in ('model', 'clip')]}".encode())
        _add(fields["hook_keyframe"].keyframes, digest, depth)
        digest.update("".join(sorted(fingerprint(each) for each in _matrices(fields))).encode())
    elif hasattr(value, "model_options"):  # a network with all that the host does with it
        _add(value.model, digest, depth)
    elif not isinstance(value, UUID):
        plain = value is None or isinstance(value, PLAIN)
        digest.update((repr(value) if plain else type(value).__name__).encode())
        if not plain and depth and (fields := getattr(value, "__dict__", None)):
            kept = {k: v for k, v in fields.items() if k not in WHILE_SAMPLING and not k.startswith("_")}
            _add(kept, digest, depth - 1)


def _matrices(value: Any) -> Iterator[Tensor]:
    """Iterate over what a LoRA hook holds of its file; the host rewrites the rest when the hook is first used."""
    if isinstance(value, Tensor):
        if value.dim() > 1:
            yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _matrices(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _matrices(each)
    elif hasattr(value, "loaded_keys"):  # a LoRA's part for one layer
        yield from _matrices(value.weights)
