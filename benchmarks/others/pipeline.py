"""A random Stable-Diffusion pipeline on disk that every diffusers since 0.17 can read.

Its network is that of the other benchmarks. Text encoder and VAE are tiny: what is compared is the training of the
network.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from benchmarks.random_models import TEXT, TOKENS, random_unet, scheduler

LETTERS = [chr(code) for code in (*range(33, 127), *range(161, 173), *range(174, 256), *range(256, 324))]
"""The 256 letters of CLIP's alphabet of bytes."""


def save_pipeline(folder: Path, channels: tuple[int, ...], side: int) -> int:
    """Save the pipeline, seeds 0, and return the number of its network's parameters.

    Args:
        folder: to make.
        channels: of the network's levels.
        side: of its latents. The VAE leaves sides as they are.
    """
    from diffusers import AutoencoderKL

    unet: Any = random_unet(channels, side)
    unet.save_pretrained(folder / "unet")
    scheduler().save_pretrained(folder / "scheduler")
    torch.manual_seed(0)
    AutoencoderKL(block_out_channels=(8,), latent_channels=4, norm_num_groups=4, sample_size=side).save_pretrained(
        folder / "vae"
    )
    _save_text(folder)
    parts = {
        "unet": ["diffusers", "UNet2DConditionModel"],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "safety_checker": [None, None],
        "feature_extractor": [None, None],
    }
    index = {"_class_name": "StableDiffusionPipeline", "requires_safety_checker": False, **parts}
    (folder / "model_index.json").write_text(json.dumps(index))
    return sum(p.numel() for p in unet.parameters())


def _save_text(folder: Path) -> None:
    """Save tokenizer and text encoder by hand: a newer transformers writes what older ones cannot read."""
    from transformers import CLIPTextConfig, CLIPTextModel

    words = [*LETTERS, *(letter + "</w>" for letter in LETTERS), "<|startoftext|>", "<|endoftext|>"]
    tokenizer, encoder = folder / "tokenizer", folder / "text_encoder"
    tokenizer.mkdir()
    encoder.mkdir()
    (tokenizer / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}), "utf-8")
    (tokenizer / "merges.txt").write_text("#version: 0.2\n", "utf-8")
    facts = {"tokenizer_class": "CLIPTokenizer", "model_max_length": TOKENS}
    (tokenizer / "tokenizer_config.json").write_text(json.dumps(facts))
    sizes = {"vocab_size": len(words), "hidden_size": TEXT, "intermediate_size": 2 * TEXT, "num_hidden_layers": 1}
    sizes |= {"num_attention_heads": 4, "max_position_embeddings": TOKENS, "projection_dim": TEXT}
    sizes |= {"bos_token_id": len(words) - 2, "eos_token_id": len(words) - 1, "pad_token_id": len(words) - 1}
    config = {"architectures": ["CLIPTextModel"], "model_type": "clip_text_model", "torch_dtype": "float32", **sizes}
    (encoder / "config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    weights = CLIPTextModel(CLIPTextConfig(**sizes)).state_dict()
    prefix = "text_model."
    named = {prefix + name.removeprefix(prefix): value.contiguous() for name, value in weights.items()}
    save_file(named, encoder / "model.safetensors", {"format": "pt"})
