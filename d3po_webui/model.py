"""The web UI's checkpoint, text encoder and VAE as the core's `ImageModel`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from d3po_core.diffusion.denoiser import Conditioning, stack
from d3po_core.diffusion.rollout import CandidateNoise, SamplingPlan, Trajectory, sample
from d3po_core.errors import D3POError

from . import host
from .denoiser import WebuiDenoiser
from .vae import Vae, held

FACTOR = 8
"""Pixels for each latent, of all VAEs that these hosts know."""


class WebuiModel:
    """See `ImageModel`.

    Args:
        model: the host's.
        height, width: of the pictures that prompts are encoded for, in pixels, because SDXL is told them with the
            text; 0 for the model's native size.
    """

    def __init__(self, model: Any, height: int = 0, width: int = 0) -> None:
        self.model, self.denoiser = model, WebuiDenoiser(model)
        self.name, self.identity = host.checkpoint(model)
        self._size = self._sides(height, width)
        self._vae: Vae | None = None

    @property
    def prediction_type(self) -> str:
        """As LoRA files name it."""
        return "v" if self.denoiser.table.prediction == "v_prediction" else "epsilon"

    @property
    def _native(self) -> int:
        return 1024 if getattr(self.model, "is_sdxl", False) else 768 if getattr(self.model, "is_sd2", False) else 512

    def encode(self, prompts: list[str], negative: str = "") -> list[Conditioning]:
        """Conditioning of each prompt, one row, on the CPU."""
        if any(not prompt.strip() for prompt in prompts):
            raise D3POError("A prompt is empty.", "Write one per line.")
        height, width = self._size
        uncond = _rows(host.encode(self.model, [negative], True, width, height), "uncond")
        return [
            {**_rows(host.encode(self.model, [prompt], False, width, height), "cond"), **uncond} for prompt in prompts
        ]

    def sample(
        self,
        plan: SamplingPlan,
        noises: Sequence[CandidateNoise],
        conditioning: Sequence[Conditioning],
        guidance_scale: float,
    ) -> Trajectory:
        """Draw one image for each noise and its conditioning, those of one text length in one batch."""
        height, width = (side // FACTOR for side in self._size)
        host.to_device(self.model, (2 * len(noises), host.LATENT_CHANNELS, height, width))  # decoding took its place
        return sample(self.denoiser, plan, noises, stack(conditioning), guidance_scale)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents to images (B, 3, H, W) in [0, 1], float32: on the CPU and by the host's own way, or, inside
        `gradients_through_decode`, where the network computes and with gradient."""
        return self._vae.decode(latents) if self._vae else host.decode(self.model, latents)

    @contextmanager
    def gradients_through_decode(self, again: bool) -> Iterator[None]:
        """Hold the VAE such that gradients pass; see `vae.held`."""
        with held(self.model, again) as self._vae:
            try:
                yield
            finally:
                self._vae = None

    @property
    def unit(self) -> int:
        """Pixels that a picture's height and width must be multiples of."""
        return FACTOR

    def encode_images(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [0, 1] to latents on the CPU, always the same ones.

        Raises:
            D3POError: a side is no multiple of 8.
        """
        self.latent_shape(*images.shape[-2:])
        host.to_device(self.model, vae=True)  # reading the prompt took its place
        with held(self.model, False) as vae:
            return vae.encode(images)

    def latent_shape(self, height: int = 0, width: int = 0) -> tuple[int, ...]:
        """Shape of one image's latents; 0 is the model's native size.

        Raises:
            D3POError: a side is no multiple of 8.
        """
        height, width = self._sides(height, width)
        if height % FACTOR or width % FACTOR:
            raise D3POError(f"Pictures of {width} by {height} pixels cannot be drawn.", "Choose multiples of 8.")
        return (host.LATENT_CHANNELS, height // FACTOR, width // FACTOR)

    def _sides(self, height: int, width: int) -> tuple[int, int]:
        return height or self._native, width or self._native


def _rows(found: Any, side: str) -> Conditioning:
    """What the host's text encoder gave for one text, as rows on the CPU."""
    if not isinstance(found, dict):
        return {side: found.detach().float().cpu().clone()}
    rows = {side: found["crossattn"]}
    if "vector" in found:
        rows[f"{side}.vector"] = found["vector"]
    return {name: value.detach().float().cpu().clone() for name, value in rows.items()}
