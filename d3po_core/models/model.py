"""Which base model this is, in a moment, and whatever device, dtype or LoRA it has at the moment."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..diffusion.denoiser import Conditioning, stack
from ..diffusion.rollout import CandidateNoise, SamplingPlan, Trajectory, sample
from ..errors import D3POError
from .architectures import ARCHITECTURES
from .denoiser import DiffusersDenoiser
from .schedule import DiffusionSchedule, FlowSchedule, Schedule
from .text import encode

SAMPLED_VALUES = 1024
"""Values looked at per tensor."""


def model_identity(module: torch.nn.Module) -> str:
    """A hash of the parameters' names, shapes, and the signs of about a thousand values of each.

    Signs, because a cast to float16 or bfloat16 keeps every one of them, while they still tell models apart: a
    fine-tune that moves weights by a thousandth of their size turns hundreds of them. LoRA layers that PEFT has put
    into the module are not looked at; a LoRA that was merged into the weights is.
    """
    digest = hashlib.sha256()
    named = {name.replace(".base_layer.", "."): value for name, value in module.named_parameters()}
    for name in sorted(name for name in named if ".lora_" not in name):
        values = named[name].detach().flatten()
        stride = values.numel() // SAMPLED_VALUES | 1  # odd, so that it does not stay within one column of a matrix
        digest.update(f"{name} {tuple(named[name].shape)}".encode())
        digest.update(torch.signbit(values[::stride]).cpu().numpy().tobytes())
    return digest.hexdigest()


DECODE_PIXELS = 2**18
"""Pixels decoded at once: one picture of 512x512, or 64 of 64x64."""


class DiffusersModel:
    """A pipeline, frozen and ready; its weights are used where they are and never copied.

    A LoRA that is loaded in the pipeline beforehand belongs to the base model.

    Args:
        pipeline: of one of the classes in `ARCHITECTURES`, on its device.

    Raises:
        D3POError: the pipeline is of another class, or its network predicts something else or needs more inputs.
    """

    def __init__(self, pipeline: Any) -> None:
        kind = type(pipeline).__name__
        if kind not in ARCHITECTURES:
            raise D3POError(f"{kind} is not supported.", f"Use one of {', '.join(ARCHITECTURES)}.")
        self.pipeline = pipeline
        self.architecture = ARCHITECTURES[kind]
        network = getattr(pipeline, self.architecture.module)
        self._channels: int = pipeline.vae.config.latent_channels
        if network.config.in_channels not in (self._channels, self._channels * self.architecture.patch**2):
            raise D3POError(
                "This model draws from more than a prompt (inpainting or editing), which is not supported.",
                "Use a text-to-image model.",
            )
        if pipeline.vae.dtype != torch.float32:
            pipeline.vae.float()  # small, and SDXL's overflows in float16
        for part in pipeline.components.values():
            if isinstance(part, torch.nn.Module):
                part.eval().requires_grad_(False)
        self.denoiser = DiffusersDenoiser(pipeline, self.architecture, self._schedule())
        self.identity = model_identity(network)

    @property
    def prediction_type(self) -> str:
        """What the network predicts, as LoRA files name it: "epsilon", "v", or nothing for other kinds."""
        said = self.pipeline.scheduler.config.get("prediction_type", "epsilon")
        names = {"epsilon": "epsilon", "v_prediction": "v"}
        return names.get(said, "") if self.denoiser.family == "diffusion" else ""

    def encode(self, prompts: list[str], negative: str = "") -> list[Conditioning]:
        """Conditioning of each prompt, one row, on the CPU in the text encoder's dtype.

        See `text.encode`.

        Raises:
            D3POError: a prompt is empty, or longer than the model reads.
        """
        return encode(self.pipeline, self.architecture, prompts, negative)

    def sample(
        self,
        plan: SamplingPlan,
        noises: Sequence[CandidateNoise],
        conditioning: Sequence[Conditioning],
        guidance_scale: float,
    ) -> Trajectory:
        """Draw one image for each noise and its conditioning (one row each), all in one batch."""
        return sample(self.denoiser, plan, noises, stack(conditioning), guidance_scale)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (B, C, h, w) to images (B, 3, H, W) in [0, 1], float32, on the model's device.

        Gradients flow, where the caller wants them.
        """
        vae, factor = self.pipeline.vae, self.pipeline.vae_scale_factor
        latents = latents.to(vae.device, torch.float32)
        scale, shift = self._latent_scale(latents)
        latents = latents * scale + shift
        at_once = max(1, DECODE_PIXELS // (latents.shape[-2] * latents.shape[-1] * factor**2))
        images = [vae.decode(part, return_dict=False)[0] for part in latents.split(at_once)]
        return (torch.cat(images) / 2 + 0.5).clamp(0, 1)

    @torch.no_grad()
    def encode_images(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [0, 1] to latents (B, C, h, w), float32, on the model's device: the mean of the VAE's
        posterior, so that a picture always has the same latents.

        Raises:
            D3POError: a side is not a multiple of `unit`, or larger than the model can place.
        """
        vae, (height, width) = self.pipeline.vae, images.shape[-2:]
        self.latent_shape(height, width)
        images = images.to(vae.device, torch.float32) * 2 - 1
        at_once = max(1, DECODE_PIXELS // (height * width))
        latents = torch.cat([vae.encode(part).latent_dist.mode() for part in images.split(at_once)])
        scale, shift = self._latent_scale(latents)
        return (latents - shift) / scale

    @property
    def unit(self) -> int:
        """Pixels that a picture's height and width must be multiples of."""
        return self.pipeline.vae_scale_factor * self.architecture.patch

    def latent_shape(self, height: int = 0, width: int = 0) -> tuple[int, ...]:
        """Shape (C, h, w) of one image's latents; 0 means the model's native size (pixels).

        Raises:
            D3POError: a side is not a multiple of what the model needs, or larger than it can place.
        """
        factor, unit = self.pipeline.vae_scale_factor, self.unit
        native = self._native_size()
        sides = [given or side for given, side in zip((height, width), native, strict=True)]
        if any(side < unit or side % unit for side in sides):
            raise D3POError(
                f"This model cannot draw pictures of {sides[0]} by {sides[1]} pixels (height by width).",
                f"Choose multiples of {unit}; its native size is {native[0]} by {native[1]}.",
            )
        config: Any = self.denoiser.module.config
        largest = config.get("pos_embed_max_size")
        if largest is not None and max(sides) > largest * unit:
            raise D3POError(f"This model draws at most {largest * unit} pixels per side.", "Choose a smaller size.")
        return (self._channels, sides[0] // factor, sides[1] // factor)

    def _latent_scale(self, like: Tensor) -> tuple[Tensor | float, Tensor | float]:
        """Scale and shift from the network's latents (B, C, h, w) to the VAE's."""
        config = self.pipeline.vae.config
        mean, std = config.get("latents_mean"), config.get("latents_std")
        scale = 1.0 if std is None else _channel(std, like)
        shift = (config.get("shift_factor") or 0.0) if mean is None else _channel(mean, like)
        return scale / config.scaling_factor, shift

    def _schedule(self) -> Schedule:
        scheduler = self.pipeline.scheduler
        if "FlowMatch" not in type(scheduler).__name__:
            return DiffusionSchedule(scheduler)
        tokens = math.prod(side // self.unit for side in self._native_size())
        return FlowSchedule(scheduler, tokens, even=self.architecture.label == "Flux")

    def _native_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        network = getattr(self.pipeline, self.architecture.module)
        size = getattr(self.pipeline, "default_sample_size", None) or network.config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        return height * self.pipeline.vae_scale_factor, width * self.pipeline.vae_scale_factor


def _channel(values: list[float], like: Tensor) -> Tensor:
    """Numbers per channel, to multiply latents (B, C, h, w)."""
    return torch.tensor(values, device=like.device).reshape(-1, 1, 1)
