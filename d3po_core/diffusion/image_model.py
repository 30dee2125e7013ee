"""What the core knows of a whole image model: text in, pictures out, a denoiser in between."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from .denoiser import Conditioning, Denoiser
from .rollout import CandidateNoise, SamplingPlan, Trajectory


class Encoder(Protocol):
    """What brings prompts and pictures into a model's own space."""

    @property
    def unit(self) -> int:
        """Pixels that a picture's height and width must be multiples of."""
        ...

    def encode(self, prompts: list[str], negative: str = "") -> list[Conditioning]:
        """Conditioning of each prompt, one row."""
        ...

    def encode_images(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [0, 1] to latents (B, ...), what `decode` decodes; without chance."""
        ...


class ImageModel(Protocol):
    """A denoiser with its text encoder and VAE: what a whole round needs."""

    identity: str
    """Tells base models apart: a hash of the weights' names, shapes and a sample of their values."""

    @property
    def denoiser(self) -> Denoiser: ...

    def encode(self, prompts: list[str], negative: str = "") -> list[Conditioning]:
        """Conditioning of each prompt, one row."""
        ...

    def sample(
        self,
        plan: SamplingPlan,
        noises: Sequence[CandidateNoise],
        conditioning: Sequence[Conditioning],
        guidance_scale: float,
    ) -> Trajectory:
        """Draw one image for each noise and its conditioning (one row each), see `rollout.sample`."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (B, ...) to images (B, 3, H, W) in [0, 1], float32.

        Teaching by a reward needs it to pass gradients on.
        """
        ...

    def latent_shape(self, height: int = 0, width: int = 0) -> tuple[int, ...]:
        """Shape of one image's latents, without batch; 0 means the model's native size (pixels)."""
        ...
