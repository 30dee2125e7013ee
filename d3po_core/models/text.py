"""Encoding prompts to conditioning."""

from __future__ import annotations

import torch

from ..diffusion.denoiser import Conditioning
from ..errors import D3POError
from .architectures import Architecture, Pipeline


@torch.no_grad()
def encode(pipe: Pipeline, architecture: Architecture, prompts: list[str], negative: str) -> list[Conditioning]:
    """Encode each prompt to a conditioning of one row, on the CPU in the text encoder's dtype.

    Every text is encoded alone, so that the result does not depend on the others. Without a negative prompt the
    unconditional branch is the empty text, or zeros if the pipeline is configured so (SDXL).

    Returns:
        For each prompt prompt_embeds (1, T, C), for most architectures pooled_prompt_embeds (1, C), and the negative's
        under the same names with the prefix negative_.

    Raises:
        D3POError: a prompt is empty, or longer than the model reads.
    """
    for prompt in prompts:
        if not prompt.strip():
            raise D3POError("A prompt is empty.", "Write what the picture should show.")
    encoded = {}
    for text in dict.fromkeys([*prompts, negative]):
        _check_length(pipe, architecture, text)
        encoded[text] = {name: value.cpu() for name, value in architecture.encode(pipe, text).items()}
    unconditional = {f"negative_{name}": value for name, value in encoded[negative].items()}
    if not negative and pipe.config.get("force_zeros_for_empty_prompt"):
        unconditional = {name: torch.zeros_like(value) for name, value in unconditional.items()}
    return [encoded[prompt] | unconditional for prompt in prompts]


def _check_length(pipe: Pipeline, architecture: Architecture, text: str) -> None:
    """Refuse a text that would be truncated silently, which would make different prompts equal.

    Of several text encoders the one that reads most decides: it still distinguishes prompts.

    Raises:
        D3POError: the text is too long.
    """
    used, allowed = max((_tokens(pipe, architecture, suffix, text) for suffix in ("", "_2", "_3")), key=lambda n: n[1])
    if used > allowed:
        start = text if len(text) <= 40 else text[:40] + "…"
        raise D3POError(
            f"The prompt '{start}' is too long: it has {used} tokens, and this model reads {allowed}.", "Shorten it."
        )


def _tokens(pipe: Pipeline, architecture: Architecture, suffix: str, text: str) -> tuple[int, int]:
    """Count a text's tokens for one of the pipeline's text encoders, and the tokens that the encoder reads.

    Start and end marks are not counted. Returns (0, 0) if the pipeline has no such encoder.
    """
    tokenizer = getattr(pipe, f"tokenizer{suffix}", None)
    if tokenizer is None or getattr(pipe, f"text_encoder{suffix}", None) is None:
        return 0, 0
    if hasattr(pipe, "maybe_convert_prompt"):  # textual inversion: one word can become several tokens
        text = pipe.maybe_convert_prompt(text, tokenizer)
    limit = dict(architecture.reads).get(f"tokenizer{suffix}", tokenizer.model_max_length)
    used = len(tokenizer(text, add_special_tokens=False, verbose=False).input_ids)
    return used, limit - tokenizer.num_special_tokens_to_add()
