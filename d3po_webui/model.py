"""The web UI's checkpoint, text encoder and VAE as the core's `ImageModel`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor

from d3po_core.diffusion.denoiser import Conditioning, stack
from d3po_core.diffusion.image_model import check_finite
from d3po_core.diffusion.rollout import CandidateNoise, SamplingPlan, Trajectory, sample
from d3po_core.errors import D3POError

from . import flow, host
from .denoiser import DiffusionDenoiser, FlowDenoiser, WebuiDenoiser
from .flow_settings import FlowSettings
from .gradients import Vae, held
from .host import HostModel

T = TypeVar("T")
ROWS = 8
"""Evaluated at once by `WebuiModel.evaluate`: a prompt and its negative at four noises."""


class WebuiModel:
    """See `ImageModel`.

    Args:
        model: the host's.
        height, width: of the images that prompts are encoded for, in pixels, because SDXL takes them with the text; 0
            for the model's native size.
        settings: of flow models.
    """

    def __init__(self, model: HostModel, height: int = 0, width: int = 0, settings: FlowSettings | None = None) -> None:
        self.model, self._settings = model, settings or FlowSettings()
        self.name, self.identity = host.checkpoint(model)
        self._size = self._sides(height, width)
        self.denoiser: WebuiDenoiser = (
            FlowDenoiser(model, self._settings, self._size) if host.is_flow(model) else DiffusionDenoiser(model)
        )
        self._vae: Vae | None = None  # inside `gradients_through_decode`

    def drawing(self, height: int, width: int, settings: FlowSettings) -> WebuiModel:
        """Return the same model for other images."""
        return WebuiModel(self.model, height, width, settings)

    @property
    def prediction_type(self) -> str:
        """What the network predicts, as LoRA files name it."""
        return self.denoiser.prediction_type

    def encode(self, prompts: list[str], negative: str = "") -> list[Conditioning]:
        """Encode each prompt to one row of conditioning, on the CPU.

        Raises:
            D3POError: a prompt is empty, or the text encoder's numbers overflowed.
        """
        if any(not prompt.strip() for prompt in prompts):
            raise D3POError("A prompt is empty.", "Write one per line.")
        uncond = self._encode_side(negative, "uncond")
        return [{**self._encode_side(prompt, "cond"), **uncond} for prompt in prompts]

    def plain_words(self, prompts: Iterable[str], embeddings: Sequence[str] = ()) -> str:
        """Return a sentence on embeddings that this host does not have; it obeys those that it has."""
        known = host.embeddings()
        names = ", ".join(name for name in embeddings if name.lower() not in known)
        return f"Read as plain words here, as there are no embeddings of these names: {names}" if names else ""

    def _encode_side(self, text: str, side: str) -> Conditioning:
        height, width = self._size
        with flow.without_references(self.model):
            encoded = host.encode(self.model, text, side == "uncond", width, height, self._settings.slider)
        rows = {side if name == "crossattn" else f"{side}.{name}": value for name, value in encoded.items()}
        for value in rows.values():
            check_finite(value, "text encoder", host.precisely("text encoder"))
        return {name: value.detach().float().cpu().clone() for name, value in rows.items()}

    def sample(
        self,
        plan: SamplingPlan,
        noises: Sequence[CandidateNoise],
        conditioning: Sequence[Conditioning],
        guidance_scale: float,
    ) -> Trajectory:
        """Draw one image for each noise and its conditioning, those of one text length in one batch.

        Raises:
            D3POError: the network's numbers overflowed.
        """
        host.to_device(self.model, (2 * len(noises), *self.latent_shape(*self._size)))  # decoding took its place
        drawn = sample(self.denoiser, plan, noises, stack(conditioning), guidance_scale)
        check_finite(drawn.latents, "network", host.precisely("network"))
        return drawn

    def evaluate(self, conditioning: Sequence[Conditioning], shape: Sequence[int], work: Callable[[], T]) -> T:
        """Do work that calls the denoiser; see `ImageModel.evaluate`."""
        host.to_device(self.model, (ROWS, *shape))  # decoding took its place
        with torch.no_grad():
            return work()

    def decode(self, latents: Tensor) -> Tensor:
        """Decode latents to images (B, 3, H, W) in [0, 1], float32.

        They are on the CPU and decoded in the host's own way; inside `gradients_through_decode` they are where the
        network computes, and gradients pass.
        """
        return self._vae.decode(latents) if self._vae else host.decode(self.model, latents)

    @contextmanager
    def gradients_through_decode(self, checkpointing: bool) -> Iterator[None]:
        """Let gradients pass through `decode`; see `gradients.held`."""
        with held(self.model, checkpointing) as self._vae:
            try:
                yield
            finally:
                self._vae = None

    @property
    def unit(self) -> int:
        """Pixels that an image's height and width must be multiples of."""
        return host.unit(self.model)

    def encode_images(self, images: Tensor) -> Tensor:
        """Encode images (B, 3, H, W) in [0, 1] to latents on the CPU, always the same ones.

        Raises:
            D3POError: a side is no multiple of `unit`.
        """
        self.latent_shape(*images.shape[-2:])
        host.to_device(self.model, vae=True)  # reading the prompt took its place
        with held(self.model, False) as vae:
            return vae.encode(images)

    def latent_shape(self, height: int = 0, width: int = 0) -> tuple[int, ...]:
        """Return the shape of one image's latents, (C, h, w) or (C, 1, h, w); 0 is the model's native size, in pixels.

        Raises:
            D3POError: a side is no multiple of `unit`.
        """
        (height, width), unit = self._sides(height, width), self.unit
        if height % unit or width % unit:
            raise D3POError(f"Pictures of {width} by {height} pixels cannot be drawn.", f"Choose multiples of {unit}.")
        of = host.pixels_per_latent(self.model)
        return (host.latent_channels(self.model), *host.frames(self.model), height // of, width // of)

    def _sides(self, height: int, width: int) -> tuple[int, int]:
        side = host.native_side(self.model)
        return height or side, width or side
