"""What differs from one kind of diffusers pipeline to the next: calling the network and encoding text.

Everything else (guidance, VAE) is common; noise levels are in schedules.py. diffusers' pipeline classes are the
reference for each call.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..diffusion.denoiser import Conditioning

Pipeline = Any
"""A diffusers pipeline; diffusers' annotations say little of its parts."""

Network = Any
"""A pipeline's UNet or transformer, with its configuration."""

Forward = Callable[[Pipeline, Tensor, Tensor, Conditioning, float], Tensor]
"""(pipeline, scaled latents (B, C, h, w), timesteps (B,) float32, conditioning of B rows, guidance) to the raw output.

Guidance matters only to networks that were distilled to take it as an input."""

Encode = Callable[[Pipeline, str], Conditioning]
"""(pipeline, one text) to prompt_embeds (1, T, C) and, if the network takes it, pooled_prompt_embeds (1, C)."""


@dataclass(frozen=True)
class Architecture:
    """One kind of pipeline.

    Attributes:
        label: its name for people.
        module: the pipeline's attribute that holds the network.
        forward: calls the network.
        encode: encodes one text.
        tokens: of the text that the network reads.
        mark: part of a key that only single-file checkpoints of this kind have; None if it has no layout of its own.
        patch: side of a token in latent pixels; sizes are multiples of it.
        reads: (tokenizer, tokens) for tokenizers that the pipeline limits otherwise than they do themselves.
    """

    label: str
    module: str
    forward: Forward
    encode: Encode
    tokens: int
    mark: str | None
    patch: int = 1
    reads: tuple[tuple[str, int], ...] = ()


def _guidance_embedding(pipe: Pipeline, x: Tensor, guidance: float) -> Tensor | None:
    """Return the embedding (B, E) of the guidance scale that UNets distilled to take it expect; None for others."""
    size = pipe.unet.config.time_cond_proj_dim
    return None if size is None else pipe.get_guidance_scale_embedding(torch.full((len(x),), guidance - 1), size).to(x)


def _unet(pipe: Pipeline, x: Tensor, t: Tensor, c: Conditioning, guidance: float) -> Tensor:
    embedding = _guidance_embedding(pipe, x, guidance)
    return pipe.unet(x, t, c["prompt_embeds"], timestep_cond=embedding, return_dict=False)[0]


def _unet_xl(pipe: Pipeline, x: Tensor, t: Tensor, c: Conditioning, guidance: float) -> Tensor:
    """Call SDXL's UNet, which also takes the image's size and crop: the size drawn and no crop, as in its pipeline."""
    height, width = (side * pipe.vae_scale_factor for side in x.shape[-2:])
    time_ids = torch.tensor([[height, width, 0, 0, height, width]]).to(x).expand(len(x), -1)
    added = {"text_embeds": c["pooled_prompt_embeds"], "time_ids": time_ids}
    embedding = _guidance_embedding(pipe, x, guidance)
    return pipe.unet(x, t, c["prompt_embeds"], timestep_cond=embedding, added_cond_kwargs=added, return_dict=False)[0]


def _sd3(pipe: Pipeline, x: Tensor, t: Tensor, c: Conditioning, guidance: float) -> Tensor:
    return pipe.transformer(x, c["prompt_embeds"], c["pooled_prompt_embeds"], t, return_dict=False)[0]


def _flux(pipe: Pipeline, x: Tensor, t: Tensor, c: Conditioning, guidance: float) -> Tensor:
    """Call Flux's transformer, whose tokens are 2x2 latent pixels at place (0, row, column); text is at (0, 0, 0)."""
    batch, channels, height, width = x.shape
    h, w = height // 2, width // 2
    tokens = x.reshape(batch, channels, h, 2, w, 2).permute(0, 2, 4, 1, 3, 5).reshape(batch, h * w, channels * 4)
    places = torch.cartesian_prod(torch.zeros(1), torch.arange(h).float(), torch.arange(w).float())
    out = pipe.transformer(
        tokens,
        c["prompt_embeds"],
        c["pooled_prompt_embeds"],
        (t / 1000).to(x),
        img_ids=places.to(x),
        txt_ids=x.new_zeros(c["prompt_embeds"].shape[1], 3),
        guidance=torch.full((batch,), guidance, device=x.device) if pipe.transformer.config.guidance_embeds else None,
        return_dict=False,
    )[0]
    return out.reshape(batch, h, w, channels, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(x.shape)


def _reads_on(pipe: Pipeline) -> torch.device:
    """Return the device of the text encoders: the network's layers may be on others."""
    encoders = (getattr(pipe, f"text_encoder{suffix}", None) for suffix in ("", "_2", "_3"))
    return next((encoder.device for encoder in encoders if encoder is not None), pipe.device)


def _encode_sd(pipe: Pipeline, text: str) -> Conditioning:
    return {"prompt_embeds": pipe.encode_prompt(text, _reads_on(pipe), 1, False)[0]}


def _encode_sdxl(pipe: Pipeline, text: str) -> Conditioning:
    embeds, _, pooled, _ = pipe.encode_prompt(text, device=_reads_on(pipe), do_classifier_free_guidance=False)
    return {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled}


def _encode_sd3(pipe: Pipeline, text: str) -> Conditioning:
    embeds, _, pooled, _ = pipe.encode_prompt(
        text, None, None, device=_reads_on(pipe), do_classifier_free_guidance=False
    )
    return {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled}


def _encode_flux(pipe: Pipeline, text: str) -> Conditioning:
    embeds, pooled, _ = pipe.encode_prompt(text, None, device=_reads_on(pipe))
    return {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled}


_SD = Architecture("Stable Diffusion", "unet", _unet, _encode_sd, 77, "model.diffusion_model.input_blocks.0.0.weight")

ARCHITECTURES: dict[str, Architecture] = {
    "StableDiffusionXLPipeline": Architecture("SDXL", "unet", _unet_xl, _encode_sdxl, 77, "conditioner.embedders.1."),
    "StableDiffusion3Pipeline": Architecture(
        "Stable Diffusion 3",
        "transformer",
        _sd3,
        _encode_sd3,
        77 + 256,
        "joint_blocks.0.",
        patch=2,
        reads=(("tokenizer_3", 256),),
    ),
    "FluxPipeline": Architecture(
        "Flux", "transformer", _flux, _encode_flux, 512, "double_blocks.0.", patch=2, reads=(("tokenizer_2", 512),)
    ),
    "StableDiffusionPipeline": _SD,
    "LatentConsistencyModelPipeline": Architecture("LCM", "unet", _unet, _encode_sd, 77, None),
}
"""By diffusers' class name. Marks are tried in this order, because SDXL's checkpoints have Stable Diffusion's too."""
