"""A LoRA put on a network, in whichever way suits it."""

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
from .interface import Lora
from .targets import fitted, initial_weights
from .weights import LoraWeights


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
        kind: "peft" for diffusers modules; "hooks" for modules that a host owns, which then needs neither peft nor
            diffusers.
        start: a LoRA to go on training. Its layers keep their rank and effect; targeted layers that it lacks start
            fresh.
        reference: a LoRA for `Lora.reference`, frozen.
        seed: of the fresh layers.

    Raises:
        D3POError: settings out of range, no layer matches, `start` or `reference` does not fit the network, or (peft)
            a LoRA is fused into the network, is being trained there already, or peft is missing.
    """
    weights = initial_weights(module, validate(settings), start, seed)
    frozen = fitted(reference or {}, module)
    if kind == "hooks":
        return HookLora(module, weights, frozen)
    if kind == "peft":
        from .peft import PeftLora  # which a host need not have

        return PeftLora(module, weights, frozen)
    raise D3POError(f"'{kind}' is not a way to attach a LoRA.", "Use peft or hooks.")


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
