# ruff: noqa: E402 - the host's modules can be imported only once its folder is known
"""A random Stable Diffusion 1.5 checkpoint, small in its UNet and VAE: `python tiny_checkpoint.py FOLDER`.

Runs in the host's Python with COMFYUI_DIR set; the host's own classes give the names and shapes. Weights are normal
with variance 1 / fan-in, so that nothing overflows. What it draws means nothing, but depends on seed, prompt and LoRA
if the graph lets it predict v: the noise of a random epsilon network is never taken out.
"""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path

COMFYUI = os.environ["COMFYUI_DIR"]
sys.path.insert(0, COMFYUI)
folder = Path(sys.argv.pop())

import comfy.cli_args

comfy.cli_args.args.cpu = True

import comfy.clip_model
import comfy.ops
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.taesd.taesd import TAESD
from safetensors.torch import save_file

UNET = {
    **{"image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 320, "context_dim": 768},
    **{"num_res_blocks": [1, 1], "channel_mult": [1, 1], "transformer_depth": [1, 1], "transformer_depth_middle": 1},
    **{"transformer_depth_output": [1, 1, 1, 1], "use_spatial_transformer": True, "num_heads": 8},
    **{"num_head_channels": -1, "legacy": False, "use_linear_in_transformer": False, "dtype": torch.float32},
}


def random(module: torch.nn.Module, prefix: str, chance: torch.Generator) -> dict[str, torch.Tensor]:
    """Weights for a module on the meta device."""
    found = {}
    for name, value in module.state_dict().items():
        if value.dim() > 1:
            weights = torch.randn(value.shape, generator=chance) / math.sqrt(math.prod(value.shape[1:]))
        else:  # norms and biases
            weights = torch.ones(value.shape) if name.endswith("weight") else torch.zeros(value.shape)
        found[prefix + name] = weights.to(torch.float16)
    return found


def main() -> None:
    chance, operations = torch.Generator().manual_seed(0), comfy.ops.disable_weight_init
    config = json.loads(Path(COMFYUI, "comfy", "sd1_clip_config.json").read_text())
    with torch.device("meta"):
        unet = UNetModel(**UNET, device="meta", operations=operations)
        text = comfy.clip_model.CLIPTextModel(config, torch.float32, "meta", operations)
        vae = TAESD(latent_channels=4)
    tensors = random(unet, "model.diffusion_model.", chance)
    clip = random(text, "cond_stage_model.transformer.", chance)
    tensors |= {name: value for name, value in clip.items() if not name.endswith("text_projection.weight")}
    tensors |= random(vae, "first_stage_model.", chance)
    tensors["first_stage_model.vae_scale"] = torch.tensor(0.18215)
    tensors["first_stage_model.vae_shift"] = torch.tensor(0.0)
    save_file(tensors, folder / "tiny.safetensors")


main()
