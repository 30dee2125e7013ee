"""Which base model this is, in a moment, and whatever device, dtype or LoRA it has at the moment."""

from __future__ import annotations

import hashlib

import torch

SAMPLES = 1024
"""Values looked at per tensor."""


def identity(module: torch.nn.Module) -> str:
    """A hash of the parameters' names, shapes, and the signs of about a thousand values of each.

    Signs, because a cast to float16 or bfloat16 keeps every one of them, while they still tell models apart: a
    fine-tune that moves weights by a thousandth of their size turns hundreds of them. LoRA layers that PEFT has put
    into the module are not looked at; a LoRA that was merged into the weights is.
    """
    digest = hashlib.sha256()
    named = {name.replace(".base_layer.", "."): value for name, value in module.named_parameters()}
    for name in sorted(name for name in named if ".lora_" not in name):
        values = named[name].detach().flatten()
        stride = values.numel() // SAMPLES | 1  # odd, so that it does not stay within one column of a matrix
        digest.update(f"{name} {tuple(named[name].shape)}".encode())
        digest.update(torch.signbit(values[::stride]).cpu().numpy().tobytes())
    return digest.hexdigest()
