# ruff: noqa: E402 - the host's modules can be imported only once its folder is known
"""Random networks, small enough for a processor: `python tiny_checkpoint.py MODELS`.

Written into the folders of MODELS that ComfyUI looks in:

    checkpoints/tiny.safetensors             Stable Diffusion 1.5
    checkpoints/tiny-sd3.safetensors         Stable Diffusion 3, a flow model
    diffusion_models/tiny-sdxl.safetensors   Stable Diffusion XL, the UNet alone
    controlnet/tiny.safetensors              a ControlNet for the first
    diffusion_models/overflowed.safetensors  the first one's UNet, of which one layer was too large for half precision
    vae/overflowed.safetensors               its VAE, likewise

Runs in the host's Python with COMFYUI_DIR set; the host's own classes give the names and shapes. Weights are normal
with variance 1 / fan-in, so that nothing overflows. What they draw means nothing, but depends on seed, prompt and LoRA
(SD 1.5: if the graph lets it predict v, for the noise of a random epsilon network is never taken out).
"""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path
from typing import Any

COMFYUI = os.environ["COMFYUI_DIR"]
sys.path.insert(0, COMFYUI)
models = Path(sys.argv.pop())

import comfy.cli_args

comfy.cli_args.args.cpu = True

import comfy.cldm.cldm
import comfy.clip_model
import comfy.ops
import torch
from comfy.ldm.modules.diffusionmodules.mmdit import MMDiT
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.taesd.taesd import TAESD
from safetensors.torch import save_file

Tensors = dict[str, torch.Tensor]
META: dict[str, Any] = {"dtype": torch.float32, "device": "meta", "operations": comfy.ops.disable_weight_init}
BLOCKS = {"image_size": 32, "in_channels": 4, "model_channels": 320, "use_spatial_transformer": True, "legacy": False}
SD15 = {
    **{"context_dim": 768, "num_res_blocks": [1, 1], "channel_mult": [1, 1], "num_heads": 8, "num_head_channels": -1},
    **{"transformer_depth": [1, 1], "transformer_depth_middle": 1, "use_linear_in_transformer": False},
}
SDXL = {
    **{"context_dim": 2048, "num_res_blocks": [2, 2, 2], "channel_mult": [1, 1, 1], "num_head_channels": 64},
    **{"transformer_depth": [0, 0, 2, 2, 10, 10], "transformer_depth_middle": 1, "use_linear_in_transformer": True},
    **{"num_classes": "sequential", "adm_in_channels": 2816},
}
DEPTH = 2
"""Of the SD 3 transformer, which is 64 channels wide for each block."""
SD3 = {
    **{"input_size": None, "patch_size": 2, "in_channels": 16, "out_channels": 16, "depth": DEPTH, "qk_norm": "rms"},
    **{"adm_in_channels": 2048, "num_patches": 64**2, "pos_embed_max_size": 64, "pos_embed_scaling_factor": None},
}
SD3_TEXT = {"target": "torch.nn.Linear", "params": {"in_features": 4096, "out_features": 64 * DEPTH}}
rng = torch.Generator().manual_seed(0)


def random(module: torch.nn.Module, prefix: str = "") -> Tensors:
    """Weights for a module on the meta device."""
    tensors = {}
    for name, value in module.state_dict().items():
        if value.dim() > 1:
            weights = torch.randn(value.shape, generator=rng) / math.sqrt(math.prod(value.shape[1:]))
        else:  # norms and biases
            weights = torch.ones(value.shape) if name.endswith("weight") else torch.zeros(value.shape)
        tensors[prefix + name] = weights.to(torch.float16)
    return tensors


def unet(depth_output: list[int], **sizes: Any) -> UNetModel:
    return UNetModel(**BLOCKS, **sizes, out_channels=4, transformer_depth_output=depth_output, **META)


def clip(prefix: str) -> Tensors:
    config = json.loads(Path(COMFYUI, "comfy", "sd1_clip_config.json").read_text())
    tensors = random(comfy.clip_model.CLIPTextModel(config, torch.float32, "meta", META["operations"]), prefix)
    return {name: value for name, value in tensors.items() if not name.endswith("text_projection.weight")}


def vae(channels: int, scale: float, shift: float = 0.0) -> Tensors:
    tensors = random(TAESD(latent_channels=channels), "first_stage_model.")
    vae_facts = {"vae_scale": torch.tensor(scale), "vae_shift": torch.tensor(shift)}
    return tensors | {f"first_stage_model.{name}": value for name, value in vae_facts.items()}


def overflowed(tensors: Tensors, layer: str) -> Tensors:
    """Weights of which a layer's were saved in half precision though they are too large for it."""
    name = next(name for name in tensors if name.endswith(layer))
    return tensors | {name: (tensors[name].float() * 1e9).to(torch.float16)}


def save(tensors: Tensors, folder: str, name: str) -> None:
    (models / folder).mkdir(parents=True, exist_ok=True)
    save_file(tensors, models / folder / f"{name}.safetensors")


def main() -> None:
    network = "model.diffusion_model."
    with torch.device("meta"):
        sd15, sdxl = unet([1, 1, 1, 1], **SD15), unet([0, 0, 0, 1, 1, 1, 1, 1, 1], **SDXL)
        sd3 = MMDiT(**SD3, context_embedder_config=SD3_TEXT, **META)
        control = comfy.cldm.cldm.ControlNet(**BLOCKS, **SD15, hint_channels=3, **META)
    text = "cond_stage_model.transformer."
    sd15_unet, sd15_vae = random(sd15, network), vae(4, 0.18215)
    save(sd15_unet | clip(text) | sd15_vae, "checkpoints", "tiny")
    unet_alone = {name.removeprefix(network): value for name, value in sd15_unet.items()}
    save(overflowed(unet_alone, "out.2.weight"), "diffusion_models", "overflowed")
    vae_alone = {name.removeprefix("first_stage_model."): value for name, value in sd15_vae.items()}
    save(overflowed(vae_alone, "taesd_decoder.1.weight"), "vae", "overflowed")
    text = "text_encoders.clip_l.transformer."
    save(random(sd3, network) | clip(text) | vae(16, 1.5305, 0.0609), "checkpoints", "tiny-sd3")
    save(random(sdxl), "diffusion_models", "tiny-sdxl")
    save(random(control), "controlnet", "tiny")


main()
