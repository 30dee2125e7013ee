"""What the core needs of an image model: text in, images out, a denoiser in between."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from ..errors import D3POError
from .denoiser import Conditioning, Denoiser
from .rollout import CandidateNoise, SamplingPlan, Trajectory

T = TypeVar("T")
PRECISELY = "Let it compute in bfloat16 or float32 (--dtype on the command line)"
"""What to do where float16 overflows."""


def check_finite(values: Tensor, part: str, precisely: str = PRECISELY) -> Tensor:
    """Return what a part of a model made, after a look at all numbers.

    Args:
        values: of any shape; those without values (on the meta device) pass.
        part: "text encoder", "network" or "VAE".
        precisely: how a person lets that part compute in another precision, in the front end that draws.

    Raises:
        D3POError: some are infinite, or none at all, as where float16 overflows: pictures of them are black.
    """
    if values.is_floating_point() and not values.is_meta and not bool(torch.isfinite(values).all()):
        raise D3POError(
            f"The numbers of the model's {part} overflowed, and no picture came out.",
            f"{precisely}: float16 ends at 65,504. If that does not help, get the model's file anew.",
            "What was drawn before is kept.",
        )
    return values


class Encoder(Protocol):
    """A model's text encoder and the encoder of its VAE."""

    @property
    def unit(self) -> int:
        """Return the pixels that an image's height and width must be multiples of."""

    def encode(self, prompts: list[str], negative: str = "") -> list[Conditioning]:
        """Encode each prompt to a conditioning of one row."""

    def plain_words(self, prompts: Iterable[str], embeddings: Sequence[str] = ()) -> str:
        """Return a sentence on spellings in prompts that other programs obey and this encoder does not; "" without.

        Args:
            prompts: all of them.
            embeddings: words in them that named an embedding in A1111 or Forge.
        """

    def encode_images(self, images: Tensor) -> Tensor:
        """Encode images (B, 3, H, W) in [0, 1] to latents (B, ...) for `decode`, deterministically."""


class ImageModel(Protocol):
    """A denoiser with its text encoder and VAE: all that a round of training needs."""

    identity: str
    """Identifies the base model: a hash of the weights' names, shapes and a sample of their values."""

    @property
    def denoiser(self) -> Denoiser: ...

    def encode(self, prompts: list[str], negative: str = "") -> list[Conditioning]:
        """Encode each prompt to a conditioning of one row."""

    def sample(
        self,
        plan: SamplingPlan,
        noises: Sequence[CandidateNoise],
        conditioning: Sequence[Conditioning],
        guidance_scale: float,
    ) -> Trajectory:
        """Draw one image for each noise and its conditioning (one row each), see `rollout.sample`."""

    def evaluate(self, conditioning: Sequence[Conditioning], shape: Sequence[int], work: Callable[[], T]) -> T:
        """Do work that calls the denoiser without gradients, where it can be called, and return its result.

        Args:
            conditioning: all that the denoiser will be asked for.
            shape: of one image's latents.
            work: what to do.
        """

    def decode(self, latents: Tensor) -> Tensor:
        """Decode latents (B, ...) to images (B, 3, H, W) in [0, 1], float32.

        Training by a reward needs gradients to flow through it.
        """

    def latent_shape(self, height: int = 0, width: int = 0) -> tuple[int, ...]:
        """Return the shape of one image's latents, without batch; 0 pixels means the model's native size."""
