"""Telling objects of the host's apart by what they hold, so that the same graph gives the same after a restart."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from enum import Enum
from types import FunctionType, ModuleType
from typing import Any
from uuid import UUID

import torch
from torch import Tensor

PLAIN = (bool, int, float, str, bytes, Enum, torch.dtype, torch.device)
SAMPLED = 64
"""Values of each of a network's parameters that are looked at."""
PARAMETERS = 8
DEEPEST = 8
WHILE_SAMPLING = {"cond_hint", "extra_concat", "timestep_range", "model_sampling_current", "multigpu_clones", "vae"}
"""What a ControlNet holds for a while, or names an image's maker only."""


def fingerprint(value: Any) -> str:
    """A hash of an object's content: tensors, numbers and texts, and a sample of a network's weights.

    A ControlNet with another picture or strength, or LoRA hooks with another file, give another.
    """
    digest = hashlib.sha256()
    _add(value, digest, DEEPEST)
    return digest.hexdigest()[:16]


def add_tensor(value: Tensor, digest: Any) -> None:
    """Take a tensor's type, shape and bytes into a hash."""
    digest.update(f"{value.dtype} {tuple(value.shape)}".encode())
    digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())


def _add(value: Any, digest: Any, deep: int) -> None:
    if isinstance(value, Tensor):
        add_tensor(value, digest)
    elif isinstance(value, torch.nn.Module):
        for name, parameter in list(value.named_parameters())[:PARAMETERS]:
            digest.update(f"{name} {tuple(parameter.shape)}".encode())
            add_tensor(parameter.detach().flatten()[:SAMPLED].float(), digest)
    elif isinstance(value, dict):
        for name, each in sorted(value.items(), key=lambda item: str(item[0])):
            digest.update(str(name).encode())
            _add(each, digest, deep)
    elif isinstance(value, list | tuple):
        for each in value:
            _add(each, digest, deep)
    elif isinstance(value, FunctionType | ModuleType | type):
        digest.update(value.__name__.encode())
    elif hasattr(value, "hook_ref"):
        fields = vars(value)
        digest.update(f"{type(value).__name__} {[fields.get(f'_strength_{of}') for of in ('model', 'clip')]}".encode())
        _add(fields["hook_keyframe"].keyframes, digest, deep)
        digest.update("".join(sorted(fingerprint(each) for each in _matrices(fields))).encode())
    elif hasattr(value, "model_options"):  # a network with all that the host does with it
        _add(value.model, digest, deep)
    elif not isinstance(value, UUID):
        plain = value is None or isinstance(value, PLAIN)
        digest.update((repr(value) if plain else type(value).__name__).encode())
        if not plain and deep and (fields := getattr(value, "__dict__", None)):
            kept = {k: v for k, v in fields.items() if k not in WHILE_SAMPLING and not k.startswith("_")}
            _add(kept, digest, deep - 1)


def _matrices(value: Any) -> Iterator[Tensor]:
    """What a LoRA hook holds of its file; the host rewrites the rest when the hook is first used."""
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
