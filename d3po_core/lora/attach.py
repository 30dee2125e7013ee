"""Attaching a LoRA to a network, by PEFT or by forward hooks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import nn

from ..diffusion.denoiser import Denoiser
from ..errors import D3POError
from ..settings import LoraSettings, validate
from .file import import_lora
from .hooks import HookLora
from .targets import fitted, initial_weights
from .weights import Lora, LoraWeights


def attach(
    module: nn.Module,
    settings: LoraSettings,
    *,
    kind: str = "peft",
    start: LoraWeights | None = None,
    reference: LoraWeights | None = None,
    seed: int = 0,
) -> Lora:
    """Attach a trainable LoRA to a network.

    Args:
        module: UNet or transformer, with diffusers' or with original (ldm) names.
        settings: rank, alpha, targets.
        kind: "peft" for diffusers modules, or "hooks" for modules that a host owns; hooks need neither peft nor
            diffusers.
        start: a LoRA to continue training. Its layers keep their rank and effect; targeted layers that it lacks start
            fresh.
        reference: a LoRA for `Lora.reference`, frozen.
        seed: of the fresh layers.

    Raises:
        D3POError: settings out of range, no layer matches, `start` or `reference` does not fit the network, or (peft)
            a LoRA is fused into the network, one is being trained there already, or peft is missing.
    """
    weights = initial_weights(module, validate(settings), start, seed)
    frozen = fitted(reference or {}, module)
    if kind == "hooks":
        return HookLora(module, weights, frozen)
    if kind == "peft":
        from .peft import PeftLora  # hosts need not have peft

        return PeftLora(module, weights, frozen)
    raise D3POError(f"'{kind}' is not a way to attach a LoRA.", "Use peft or hooks.")


@contextmanager
def applied(denoiser: Denoiser, lora: LoraWeights | Path | None, kind: str = "peft") -> Iterator[None]:
    """Apply a LoRA to the denoiser at strength 1 until the context ends.

    Args:
        denoiser: becomes the policy.
        lora: weights, a file, or None for the base model.
        kind: as in `attach`.

    Raises:
        D3POError: the LoRA cannot be read, or does not fit the network.
    """
    if lora is None:
        yield
        return
    weights = lora if isinstance(lora, dict) else import_lora(lora, denoiser.module)
    attached = attach(denoiser.module, LoraSettings(), kind=kind, start=weights)
    try:
        yield
    finally:
        attached.remove()
