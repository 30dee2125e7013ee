"""A random Stable Diffusion 1.5 checkpoint for A1111, small in all its parts: `python tiny_checkpoint.py FOLDER`.

Runs in the host's Python with WEBUI_DIR set; the host's own classes give the names and shapes. A1111 honours the .yaml
beside it. CLIP is configured by the hub's files: FOLDER/hub becomes a hub cache with a small configuration, to be named
by HF_HOME; the tokenizer's two files are made here too, one token for each byte.
"""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path

WEBUI = Path(os.environ["WEBUI_DIR"])
folder = Path(sys.argv.pop())
CLIP = "openai/clip-vit-large-patch14"
CONFIG = {
    "model_type": "clip",
    "architectures": ["CLIPModel"],
    "projection_dim": 768,
    "text_config": {
        **{"model_type": "clip_text_model", "vocab_size": 49408, "hidden_size": 768, "intermediate_size": 256},
        **{"num_hidden_layers": 2, "num_attention_heads": 12, "max_position_embeddings": 77, "projection_dim": 768},
        **{"hidden_act": "quick_gelu", "bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 1},
    },
}
YAML = """
model:
  target: ldm.models.diffusion.ddpm.LatentDiffusion
  params:
    parameterization: "v"
    linear_start: 0.00085
    linear_end: 0.0120
    num_timesteps_cond: 1
    timesteps: 1000
    first_stage_key: "jpg"
    cond_stage_key: "txt"
    image_size: 64
    channels: 4
    cond_stage_trainable: false
    conditioning_key: crossattn
    scale_factor: 0.18215
    use_ema: False
    unet_config:
      target: ldm.modules.diffusionmodules.openaimodel.UNetModel
      params:
        {image_size: 32, in_channels: 4, out_channels: 4, model_channels: 64, attention_resolutions: [2, 1],
         num_res_blocks: 1, channel_mult: [1, 2], num_heads: 4, use_spatial_transformer: True, transformer_depth: 1,
         context_dim: 768, use_checkpoint: False, legacy: False}
    first_stage_config:
      target: ldm.models.autoencoder.AutoencoderKL
      params:
        embed_dim: 4
        ddconfig:
          {double_z: true, z_channels: 4, resolution: 256, in_channels: 3, out_ch: 3, ch: 32, ch_mult: [1, 1, 1, 1],
           num_res_blocks: 1, attn_resolutions: [], dropout: 0.0}
        lossconfig: {target: torch.nn.Identity}
    cond_stage_config:
      target: ldm.modules.encoders.modules.FrozenCLIPEmbedder
"""


def hub() -> None:
    """A hub cache with CLIP's configuration and a tokenizer that knows bytes only."""
    repository = folder / "hub" / "hub" / ("models--" + CLIP.replace("/", "--"))
    files = repository / "snapshots" / ("0" * 40)
    files.mkdir(parents=True, exist_ok=True)
    (repository / "refs").mkdir(exist_ok=True)
    (repository / "refs" / "main").write_text("0" * 40)
    letters = [chr(code) for code in (*range(33, 127), *range(161, 173), *range(174, 256))]
    letters += [chr(256 + n) for n in range(256 - len(letters))]
    words = [*letters, *(letter + "</w>" for letter in letters)]
    words += [f"<|unused {n}|>" for n in range(49406 - len(words))]
    vocabulary = {word: n for n, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    (files / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (files / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    (files / "config.json").write_text(json.dumps(CONFIG))
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    (files / "special_tokens_map.json").write_text(json.dumps({**special, "pad_token": "<|endoftext|>"}))
    (files / "tokenizer_config.json").write_text(
        json.dumps(
            {**special, "pad_token": "<|endoftext|>", "model_max_length": 77, "tokenizer_class": "CLIPTokenizer"}
        )
    )


def main() -> None:
    hub()
    os.environ |= {"HF_HOME": str(folder / "hub"), "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    sys.path[:0] = [str(WEBUI / "repositories" / "stable-diffusion-stability-ai"), str(WEBUI)]
    import torch
    import transformers

    transformers.CLIPTextModel.from_pretrained = classmethod(  # no weights are to be had
        lambda cls, name, **_: cls(transformers.CLIPTextConfig(**CONFIG["text_config"]))
    )
    from ldm.util import instantiate_from_config
    from omegaconf import OmegaConf
    from safetensors.torch import save_file

    (folder / "tiny.yaml").write_text(YAML)
    model = instantiate_from_config(OmegaConf.load(folder / "tiny.yaml").model)
    chance = torch.Generator().manual_seed(0)
    tensors = {}
    for name, value in model.state_dict().items():
        if not value.is_floating_point() or not name.startswith(("model.diffusion", "first_stage", "cond_stage")):
            continue
        if value.dim() > 1:
            tensors[name] = torch.randn(value.shape, generator=chance) / math.sqrt(math.prod(value.shape[1:]))
        else:  # norms and biases
            tensors[name] = torch.ones(value.shape) if name.endswith("weight") else torch.zeros(value.shape)
    save_file({name: value.half().contiguous() for name, value in tensors.items()}, folder / "tiny.safetensors")


main()
