"""Random pipelines of every supported kind, so small that a forward pass takes milliseconds; made without a network.

Weights are drawn from a seed, so two calls give equal models. For tests only.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from tokenizers.pre_tokenizers import ByteLevel
from torch import Tensor
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
)

from d3po_core.diffusion.denoiser import Conditioning

MAX_TOKENS = 77
_LETTERS = sorted(ByteLevel.alphabet())
_VOCABULARY = [*_LETTERS, *(letter + "</w>" for letter in _LETTERS), "<|startoftext|>", "<|endoftext|>"]

Made = TypeVar("Made")


def tiny_tokenizer(max_tokens: int = MAX_TOKENS) -> CLIPTokenizer:
    """A CLIP tokenizer of bytes: every letter is a token. Read from its files, which every transformers can do."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(_VOCABULARY)}), "utf-8")
        (folder / "merges.txt").write_text("#version: 0.2\n", "utf-8")
        return CLIPTokenizer.from_pretrained(folder, model_max_length=max_tokens)


def tiny_clip(hidden: int = 16, projection: int | None = None) -> Any:
    """A CLIP text encoder; with a projection it is of the class that also gives pooled embeddings."""
    config = CLIPTextConfig(
        vocab_size=len(_VOCABULARY),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=MAX_TOKENS,
        projection_dim=projection or hidden,
        bos_token_id=len(_VOCABULARY) - 2,
        eos_token_id=len(_VOCABULARY) - 1,
        pad_token_id=len(_VOCABULARY) - 1,
        initializer_factor=3.0,
    )
    return CLIPTextModel(config) if projection is None else CLIPTextModelWithProjection(config)


def tiny_vae(channels: int = 4, **config: Any) -> AutoencoderKL:
    """A KL VAE that halves each side."""
    return AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        latent_channels=channels,
        norm_num_groups=4,
        sample_size=16,
        **config,
    )


def tiny_unet(**config: Any) -> UNet2DConditionModel:
    """A UNet of two levels, both with attention to the text, for latents of 8x8."""
    return UNet2DConditionModel(
        **{
            "sample_size": 8,
            "block_out_channels": (8, 16),
            "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
            "layers_per_block": 1,
            "cross_attention_dim": 16,
            "attention_head_dim": 2,
            "norm_num_groups": 4,
            **config,
        }
    )


def sd_scheduler(prediction_type: str = "epsilon", **config: Any) -> DDIMScheduler:
    """The schedule of Stable Diffusion 1.x."""
    defaults = {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "clip_sample": False,
        "set_alpha_to_one": False,
        "steps_offset": 1,
    }
    return DDIMScheduler(prediction_type=prediction_type, **{**defaults, **config})


def tiny_sd(prediction_type: str = "epsilon", seed: int = 0, **scheduler: Any) -> StableDiffusionPipeline:
    """Stable Diffusion 1.x or, with "v_prediction", 2.x; "sample" predicts x0. Keywords go to the scheduler."""
    return _seeded(
        seed,
        lambda: StableDiffusionPipeline(
            vae=tiny_vae(scaling_factor=0.18215),
            text_encoder=tiny_clip(),
            tokenizer=tiny_tokenizer(),
            unet=tiny_unet(),
            scheduler=sd_scheduler(prediction_type, **scheduler),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        ),
    )


def tiny_sdxl(prediction_type: str = "epsilon", seed: int = 0, **scheduler: Any) -> StableDiffusionXLPipeline:
    """SDXL with its two text encoders and its size conditioning."""
    return _seeded(
        seed,
        lambda: StableDiffusionXLPipeline(
            vae=tiny_vae(scaling_factor=0.13025),
            text_encoder=tiny_clip(),
            text_encoder_2=tiny_clip(24, projection=12),
            tokenizer=tiny_tokenizer(),
            tokenizer_2=tiny_tokenizer(),
            unet=tiny_unet(
                cross_attention_dim=16 + 24,
                use_linear_projection=True,
                addition_embed_type="text_time",
                addition_time_embed_dim=8,
                projection_class_embeddings_input_dim=6 * 8 + 12,
            ),
            scheduler=sd_scheduler(prediction_type, **scheduler),
            add_watermarker=False,
        ),
    )


def tiny_sd3(seed: int = 0, t5: bool = False, **scheduler: Any) -> StableDiffusion3Pipeline:
    """Stable Diffusion 3, without its T5 or with a tiny one."""
    return _seeded(
        seed,
        lambda: StableDiffusion3Pipeline(
            vae=tiny_vae(16, scaling_factor=1.5305, shift_factor=0.0609),
            transformer=SD3Transformer2DModel(
                sample_size=8,
                patch_size=2,
                in_channels=16,
                out_channels=16,
                num_layers=2,
                attention_head_dim=8,
                num_attention_heads=2,
                joint_attention_dim=32,
                caption_projection_dim=16,
                pooled_projection_dim=12 + 20,
                pos_embed_max_size=8,
            ),
            scheduler=FlowMatchEulerDiscreteScheduler(**{"shift": 3.0, **scheduler}),
            text_encoder=tiny_clip(12, projection=12),
            text_encoder_2=tiny_clip(20, projection=20),
            text_encoder_3=tiny_t5() if t5 else None,
            tokenizer=tiny_tokenizer(),
            tokenizer_2=tiny_tokenizer(),
            tokenizer_3=tiny_tokenizer(512) if t5 else None,
        ),
    )


def tiny_t5() -> T5EncoderModel:
    config = T5Config(vocab_size=len(_VOCABULARY), d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    return T5EncoderModel(config)


def tiny_flux(seed: int = 0, guidance_embeds: bool = False, **scheduler: Any) -> FluxPipeline:
    """Flux: schnell, or with `guidance_embeds` the guidance-distilled dev."""
    dynamic = {"use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15}
    return _seeded(
        seed,
        lambda: FluxPipeline(
            vae=tiny_vae(4, scaling_factor=0.3611, shift_factor=0.1159),
            transformer=FluxTransformer2DModel(
                patch_size=1,
                in_channels=16,
                num_layers=1,
                num_single_layers=1,
                attention_head_dim=16,
                num_attention_heads=2,
                joint_attention_dim=32,
                pooled_projection_dim=16,
                axes_dims_rope=(4, 6, 6),
                guidance_embeds=guidance_embeds,
            ),
            scheduler=FlowMatchEulerDiscreteScheduler(**{**(dynamic if guidance_embeds else {}), **scheduler}),
            text_encoder=tiny_clip(),
            text_encoder_2=tiny_t5(),
            tokenizer=tiny_tokenizer(),
            tokenizer_2=tiny_tokenizer(512),
        ),
    )


def _seeded(seed: int, make: Callable[[], Made]) -> Made:
    """What `make` gives under a seed, with the caller's generator left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pipe: Any = make()
        pipe.set_progress_bar_config(disable=True)
        return pipe


def rows(conditioning: Conditioning, index: Tensor) -> Conditioning:
    """The chosen rows of a conditioning, in the given order; an index may repeat."""
    return {name: value.index_select(0, index.to(value.device)) for name, value in conditioning.items()}
