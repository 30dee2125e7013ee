"""Prompts as conditioning."""

from __future__ import annotations

from typing import Any

import torch

from ..diffusion.denoiser import Conditioning
from ..errors import D3POError
from .architectures import Architecture


@torch.no_grad()
def encode(pipe: Any, architecture: Architecture, prompts: list[str], negative: str) -> list[Conditioning]:
    """Conditioning of each prompt, one row, on the CPU in the text encoder's dtype.

    Every text is encoded by itself, so that it does not depend on the others. Without a negative prompt the
    unconditional branch is the empty text, or zeros where the pipeline's configuration says so (SDXL).

    Returns:
        prompt_embeds (1, T, C), for most architectures pooled_prompt_embeds (1, C), and both with negative_ before.

    Raises:
        D3POError: a prompt is empty, or longer than the model reads.
    """
    for prompt in prompts:
        if not prompt.strip():
            raise D3POError("A prompt is empty.", "Write what the picture should show.")
    texts = {}
    for text in dict.fromkeys([*prompts, negative]):
        _check_length(pipe, architecture, text)
        texts[text] = {name: value.cpu() for name, value in architecture.encode(pipe, text).items()}
    without = texts[negative]
    if not negative and pipe.config.get("force_zeros_for_empty_prompt"):
        without = {name: torch.zeros_like(value) for name, value in without.items()}
    unconditional = {f"negative_{name}": value for name, value in without.items()}
    return [texts[prompt] | unconditional for prompt in prompts]


def _check_length(pipe: Any, architecture: Architecture, text: str) -> None:
    """Silent truncation would make different prompts equal. Where several text encoders read the prompt, the one that
    reads most decides: it still tells them apart."""
    used, allowed = max((_tokens(pipe, architecture, suffix, text) for suffix in ("", "_2", "_3")), key=lambda n: n[1])
    if used > allowed:
        start = text if len(text) <= 40 else text[:40] + "…"
        raise D3POError(
            f"The prompt '{start}' is too long: it has {used} tokens, and this model reads {allowed}.", "Shorten it."
        )


def _tokens(pipe: Any, architecture: Architecture, suffix: str, text: str) -> tuple[int, int]:
    """How many tokens the text has for one of the pipeline's text encoders, and how many are read; start and end marks
    not counted. (0, 0) where the pipeline has no such encoder."""
    tokenizer = getattr(pipe, f"tokenizer{suffix}", None)
    if tokenizer is None or getattr(pipe, f"text_encoder{suffix}", None) is None:
        return 0, 0
    if hasattr(pipe, "maybe_convert_prompt"):  # textual inversion: one word can stand for several tokens
        text = pipe.maybe_convert_prompt(text, tokenizer)
    limit = dict(architecture.reads).get(f"tokenizer{suffix}", tokenizer.model_max_length)
    used = len(tokenizer(text, add_special_tokens=False, verbose=False).input_ids)
    return used, limit - tokenizer.num_special_tokens_to_add()
