"""Policies by name: "base", or the LoRA that a round made."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .denoiser import Denoiser
from .lora import LayerWeights, LoraWeights, attach, import_lora
from .settings import LoraSettings


def policy_id(path: Path) -> str:
    """What names the policy that a LoRA file makes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


@contextmanager
def applied(denoiser: Denoiser, lora: LoraWeights | Path | None, kind: str = "peft") -> Iterator[None]:
    """The denoiser as a policy: with a LoRA (weights, or a file) at strength 1, or the base model for None."""
    if lora is None:
        yield
        return
    weights = lora if isinstance(lora, dict) else import_lora(lora, denoiser.module)
    attached = attach(denoiser.module, LoraSettings(), kind=kind, start=weights)
    try:
        yield
    finally:
        attached.remove()


def weaker(weights: LoraWeights, strength: float) -> LoraWeights:
    """A LoRA whose whole strength is another's part of it."""
    return {path: LayerWeights(w.down, w.up * strength, w.alpha) for path, w in weights.items()}
