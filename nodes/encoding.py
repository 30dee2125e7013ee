"""The host's CLIP and VAE as what brings prompts and pictures into a model's own space."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..d3po_core.diffusion.denoiser import Conditioning
from .conditioning import Cond, pack


class HostEncoder:
    """CLIP and VAE as the core's `Encoder`.

    Args:
        clip: reads prompts.
        vae: encodes pictures.
    """

    def __init__(self, clip: Any, vae: Any) -> None:
        vae.throw_exception_if_invalid()
        self.clip, self.vae = clip, vae

    @property
    def unit(self) -> int:
        """Pixels that a picture's height and width must be multiples of."""
        return int(self.vae.spacial_compression_encode())

    def encode(self, prompts: list[str], negative: str = "") -> list[Conditioning]:
        """The prompts' CONDITIONING, packed, each with the negative prompt."""
        against = self._conditioning(negative) if prompts else []
        return [pack(self._conditioning(prompt), against) for prompt in prompts]

    def encode_images(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [0, 1] to latents (B, ...) as the host's LATENT has them; without chance."""
        found: Tensor = self.vae.encode(images.movedim(1, -1))
        with torch.inference_mode(False):
            return found.detach().to("cpu", torch.float32, copy=True)

    def _conditioning(self, text: str) -> Cond:
        found: Cond = self.clip.encode_from_tokens_scheduled(self.clip.tokenize(text))
        return found
