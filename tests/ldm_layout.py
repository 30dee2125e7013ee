"""A pipeline's weights under the names of the original single-file checkpoints, for tests.

Names are those of CompVis' latent-diffusion code (Stable Diffusion 1.x), of Stability's generative-models with OpenCLIP
(SDXL) and of their SD3 reference; written here the other way round from how diffusers reads them.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
_VAE = {
    "mid_block.attentions.0.": "mid.attn_1.",
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
    "conv_norm_out": "norm_out",
    "conv_shortcut": "nin_shortcut",
    "downsamplers.0": "downsample",
    "upsamplers.0": "upsample",
}


_OPEN_CLIP = {
    "encoder.layers.": "transformer.resblocks.",
    "self_attn.": "attn.",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "fc1": "c_fc",
    "fc2": "c_proj",
    "final_layer_norm": "ln_final",
    "embeddings.token_embedding": "token_embedding",
    "embeddings.position_embedding.weight": "positional_embedding",
    "text_projection.weight": "text_projection",
}
_SD3 = {
    "transformer_blocks.": "joint_blocks.",
    "attn.to_out.0": "x_block.attn.proj",
    "attn.to_add_out": "context_block.attn.proj",
    "norm1.linear": "x_block.adaLN_modulation.1",
    "norm1_context.linear": "context_block.adaLN_modulation.1",
    "ff.net.0.proj": "x_block.mlp.fc1",
    "ff.net.2": "x_block.mlp.fc2",
    "ff_context.net.0.proj": "context_block.mlp.fc1",
    "ff_context.net.2": "context_block.mlp.fc2",
    "pos_embed.pos_embed": "pos_embed",
    "pos_embed.proj": "x_embedder.proj",
    "time_text_embed.timestep_embedder.linear_1": "t_embedder.mlp.0",
    "time_text_embed.timestep_embedder.linear_2": "t_embedder.mlp.2",
    "time_text_embed.text_embedder.linear_1": "y_embedder.mlp.0",
    "time_text_embed.text_embedder.linear_2": "y_embedder.mlp.2",
    "norm_out.linear": "final_layer.adaLN_modulation.1",
    "proj_out": "final_layer.linear",
}


def ldm_state_dict(pipe: Any) -> dict[str, Tensor]:
    """Stable Diffusion 1.x: all weights of UNet, VAE and text encoder, by their single-file names."""
    clip = _prefixed("cond_stage_model.transformer.text_model.", _text_model(pipe.text_encoder))
    return _contiguous({**_ldm_unet(pipe.unet), **_ldm_vae(pipe.vae), **clip})


def sdxl_state_dict(pipe: Any) -> dict[str, Tensor]:
    """SDXL: all weights of UNet, VAE and both text encoders, by their single-file names."""
    clip = _prefixed("conditioner.embedders.0.transformer.text_model.", _text_model(pipe.text_encoder))
    open_clip = _prefixed("conditioner.embedders.1.model.", _open_clip(pipe.text_encoder_2))
    return _contiguous({**_ldm_unet(pipe.unet), **_ldm_vae(pipe.vae), **clip, **open_clip})


def sd3_state_dict(pipe: Any) -> dict[str, Tensor]:
    """SD3: all weights of transformer, VAE and the two CLIP text encoders, by their single-file names.

    These files have no projection for the first text encoder: it is the identity.
    """
    transformer = _prefixed("model.diffusion_model.", _sd3(pipe.transformer))
    clip_l = _prefixed("text_encoders.clip_l.transformer.text_model.", _text_model(pipe.text_encoder))
    clip_g = _prefixed("text_encoders.clip_g.transformer.", pipe.text_encoder_2.state_dict())
    return _contiguous({**transformer, **_ldm_vae(pipe.vae), **clip_l, **clip_g})


def _prefixed(prefix: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in weights.items()}


def _contiguous(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.contiguous() for key, value in weights.items()}


def _text_model(encoder: Any) -> dict[str, Tensor]:
    """transformers 5.6 took the name `text_model` out of CLIPTextModel, and left it in CLIPTextModelWithProjection."""
    weights = encoder.state_dict()
    return {key.removeprefix("text_model."): value for key, value in weights.items() if "text_projection" not in key}


def _ldm_unet(unet: Any) -> dict[str, Tensor]:
    layers = unet.config.layers_per_block
    return {f"model.diffusion_model.{_unet(key, layers)}": value for key, value in unet.state_dict().items()}


def _ldm_vae(vae: Any) -> dict[str, Tensor]:
    levels = len(vae.config.block_out_channels)
    return {f"first_stage_model.{_vae(key, levels)}": _as_convolution(key, v) for key, v in vae.state_dict().items()}


def _open_clip(encoder: Any) -> dict[str, Tensor]:
    """OpenCLIP keeps query, key and value of a layer in one tensor, and the projection transposed."""
    weights, renamed = encoder.state_dict(), {}
    for key, value in weights.items():
        if ".k_proj." in key or ".v_proj." in key:
            continue
        if ".q_proj." in key:
            value = torch.cat([weights[key.replace(".q_proj.", f".{part}_proj.")] for part in "qkv"])
        name = key.removeprefix("text_model.").replace(".q_proj.", ".in_proj_")
        for ours, theirs in _OPEN_CLIP.items():
            name = name.replace(ours, theirs)
        renamed[name] = value.T if name == "text_projection" else value
    return renamed


def _sd3(transformer: Any) -> dict[str, Tensor]:
    """SD3's reference keeps query, key and value in one tensor, and shift before scale in its last modulations."""
    weights, renamed = transformer.state_dict(), {}
    last = f"transformer_blocks.{transformer.config.num_layers - 1}.norm1_context"
    for key, value in weights.items():
        if re.search(r"\.(to_[kv]|add_[kv]_proj)\.", key):
            continue
        if key.startswith((last, "norm_out")):
            value = torch.cat(value.chunk(2)[::-1])
        if ".to_q." in key:
            value = torch.cat([weights[key.replace("to_q", f"to_{part}")] for part in "qkv"])
        if ".add_q_proj." in key:
            value = torch.cat([weights[key.replace("add_q", f"add_{part}")] for part in "qkv"])
        name = key.replace("attn.to_q", "x_block.attn.qkv").replace("attn.add_q_proj", "context_block.attn.qkv")
        for ours, theirs in _SD3.items():
            name = re.sub(rf"(^|\.){re.escape(ours)}", rf"\1{theirs}", name)
        renamed[name] = value
    return renamed


def _unet(key: str, layers: int) -> str:
    for ours, theirs in _UNET_ENDS.items():
        if key.startswith(ours + "."):
            return theirs + key.removeprefix(ours)
    if match := re.match(r"mid_block\.(resnets|attentions)\.(\d)\.(.*)", key):
        kind, number, rest = match.groups()
        place = 1 if kind == "attentions" else 2 * int(number)
        return f"middle_block.{place}.{_resnet(rest) if kind == 'resnets' else rest}"
    match = re.match(r"(down|up)_blocks\.(\d)\.(resnets|attentions|downsamplers|upsamplers)\.(\d)\.(.*)", key)
    assert match, key
    side, block, kind, layer, rest = match.groups()
    if kind == "downsamplers":
        return f"input_blocks.{(int(block) + 1) * (layers + 1)}.0.op.{rest.removeprefix('conv.')}"
    if kind == "upsamplers":
        return f"output_blocks.{int(block) * (layers + 1) + layers}.2.{rest}"
    place = int(block) * (layers + 1) + int(layer) + (side == "down")
    name = "input_blocks" if side == "down" else "output_blocks"
    return f"{name}.{place}.{0 if kind == 'resnets' else 1}.{_resnet(rest) if kind == 'resnets' else rest}"


def _resnet(rest: str) -> str:
    name, _, end = rest.partition(".")
    return f"{_RESNET[name]}.{end}"


def _vae(key: str, levels: int) -> str:
    key = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", key)
    key = re.sub(r"down_blocks\.(\d)\.", r"down.\1.", key)
    key = re.sub(r"up_blocks\.(\d)\.", lambda m: f"up.{levels - 1 - int(m[1])}.", key)
    key = re.sub(r"resnets\.(\d)", r"block.\1", key)
    for ours, theirs in _VAE.items():
        key = key.replace(ours, theirs)
    return key


def _as_convolution(key: str, value: Tensor) -> Tensor:
    """The VAE's attention projections are 1x1 convolutions in single files."""
    return value[:, :, None, None] if re.search(r"attentions.*\.(to_\w|to_out\.0)\.weight", key) else value
