"""Policies by name: "base", or the LoRA that a round made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .denoiser import Denoiser
from .lora import LoraWeights, attach, import_lora
from .run import Run
from .settings import LoraSettings


def latest_policy(run: Run) -> str:
    """The hash of the last finished round's LoRA, or "base" before there is one."""
    finished = [round.lora_hash for round in run.rounds() if round.lora_hash]
    return finished[-1] if finished else "base"


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
