"""Random Stable Diffusion checkpoints that every host loads: `write(folder, "sd15")`.

Text encoder and VAE are of the real size, because hosts take their shapes for granted; the UNet is small, because they
read its shape from the file (A1111: from the .yaml beside it). Only its two blocks a level are the real ones': A1111
counts so when it looks for a LoRA's layers. Its prediction of the noise is the noisy latents plus
something random that depends on time and text: so sampling converges, and pictures differ by seed, text and LoRA.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

CHANNELS, TIME = 320, 1280
PAIR, CONSTANT = 10, 4.0
"""Channels in one group of the norms, and what all but two of those that carry the latents through hold."""
RANDOM = 0.5
"""How much of the prediction is random."""
Shapes = Iterator[tuple[str, tuple[int, ...]]]


def write(folder: Path, kind: str, overflowed: str = "") -> Path:
    """Make `<kind>.safetensors` with its .yaml, and a hub cache `hub` for A1111's text encoder.

    Args:
        folder: made if it is missing.
        kind: "sd15" or "sdxl".
        overflowed: the end of a tensor's name, whose values are too large for the half precision of the file.
    """
    parts = {"model.diffusion_model.": unet(kind), "first_stage_model.": vae()}
    if kind == "sd15":
        parts["cond_stage_model.transformer.text_model."] = clip_l()
    else:
        parts["conditioner.embedders.0.transformer.text_model."] = clip_l()
        parts["conditioner.embedders.1.model."] = clip_g()
    chance = torch.Generator().manual_seed(0)
    tensors = {
        prefix + name: random_tensor(name, shape, chance) for prefix, part in parts.items() for name, shape in part
    }
    carry_through({name: value for name, value in tensors.items() if name.startswith("model.")}, kind)
    for name in [name for name in tensors if overflowed and name.endswith(overflowed)]:
        tensors[name] = tensors[name] * 1e9
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{kind}.safetensors"
    save_file({name: value.half().contiguous() for name, value in tensors.items()}, path)
    path.with_suffix(".yaml").write_text((Path(__file__).parent / f"{kind}.yaml").read_text())
    _hub(folder / "hub")
    return path


def random_tensor(name: str, shape: tuple[int, ...], chance: torch.Generator) -> Tensor:
    """Matrices that keep a unit spread; norms that do nothing, but for the text's last: its mean must not be 0."""
    if len(shape) > 1:
        scale = 0.5 if "embedding" in name else 1 / math.sqrt(math.prod(shape[1:]))
        return torch.randn(shape, generator=chance) * scale
    if name.endswith("weight"):
        return torch.ones(shape)
    return torch.full(shape, 0.1 if name.startswith(("final_layer_norm", "ln_final")) else 0.0)


# -- the UNet --------------------------------------------------------------------------------------------------------


def unet(kind: str, latents: int = 4) -> Shapes:
    """Names and shapes of a UNet with 320 channels on all levels."""
    yield from linear("time_embed.0", CHANNELS, TIME)
    yield from linear("time_embed.2", TIME, TIME)
    if kind == "sdxl":
        yield from linear("label_emb.0.0", 2816, TIME)
        yield from linear("label_emb.0.2", TIME, TIME)
    yield from convolution("input_blocks.0.0", latents, CHANNELS)
    depths, context = ([[1, 1], [1, 1]], 768) if kind == "sd15" else ([[0, 0], [2, 2], [10, 10]], 2048)
    number = 1
    for level, depth in enumerate(depths):
        for blocks in depth:
            yield from residual(f"input_blocks.{number}.0", CHANNELS)
            yield from transformer(f"input_blocks.{number}.1", blocks, context)
            number += 1
        if level < len(depths) - 1:
            yield from convolution(f"input_blocks.{number}.0.op", CHANNELS, CHANNELS)
            number += 1
    yield from residual("middle_block.0", CHANNELS)
    yield from transformer("middle_block.1", depths[-1][-1], context)
    yield from residual("middle_block.2", CHANNELS)
    number = 0
    for level, depth in reversed(list(enumerate(depths))):
        for blocks in (*depth, depth[-1]):
            yield from residual(f"output_blocks.{number}.0", 2 * CHANNELS)
            yield from transformer(f"output_blocks.{number}.1", blocks, context)
            number += 1
        if level:
            yield from convolution(f"output_blocks.{number - 1}.{2 if blocks else 1}.conv", CHANNELS, CHANNELS)
    yield from norm("out.0", CHANNELS)
    yield from convolution("out.2", CHANNELS, latents)


def residual(name: str, into: int) -> Shapes:
    """A residual block to 320 channels."""
    yield from norm(f"{name}.in_layers.0", into)
    yield from convolution(f"{name}.in_layers.2", into, CHANNELS)
    yield from linear(f"{name}.emb_layers.1", TIME, CHANNELS)
    yield from norm(f"{name}.out_layers.0", CHANNELS)
    yield from convolution(f"{name}.out_layers.3", CHANNELS, CHANNELS)
    if into != CHANNELS:
        yield from convolution(f"{name}.skip_connection", into, CHANNELS, 1)


def transformer(name: str, blocks: int, context: int) -> Shapes:
    """A spatial transformer; nothing for 0 blocks. SDXL's projections are linear."""
    if not blocks:
        return
    yield from norm(f"{name}.norm", CHANNELS)
    for projection in ("proj_in", "proj_out"):
        if context == 768:
            yield from convolution(f"{name}.{projection}", CHANNELS, CHANNELS, 1)
        else:
            yield from linear(f"{name}.{projection}", CHANNELS, CHANNELS)
    for block in range(blocks):
        inside = f"{name}.transformer_blocks.{block}"
        for attention, into in (("attn1", CHANNELS), ("attn2", context)):
            yield f"{inside}.{attention}.to_q.weight", (CHANNELS, CHANNELS)
            yield f"{inside}.{attention}.to_k.weight", (CHANNELS, into)
            yield f"{inside}.{attention}.to_v.weight", (CHANNELS, into)
            yield from linear(f"{inside}.{attention}.to_out.0", CHANNELS, CHANNELS)
        yield from linear(f"{inside}.ff.net.0.proj", CHANNELS, 8 * CHANNELS)
        yield from linear(f"{inside}.ff.net.2", 4 * CHANNELS, CHANNELS)
        for number in (1, 2, 3):
            yield from norm(f"{inside}.norm{number}", CHANNELS)


def carry_through(tensors: dict[str, Tensor], kind: str) -> None:
    """Let the last block hand the first convolution's latents to the output, by silu(a) - silu(-a) = a.

    One group of the norms for each latent channel: the latent, its negative, and constants so large that the norm
    divides by nearly the same everywhere.
    """
    prefix, carried = "model.diffusion_model.", 4 * PAIR
    last = f"{prefix}output_blocks.{5 if kind == 'sd15' else 8}."
    first, first_bias = tensors[f"{prefix}input_blocks.0.0.weight"], tensors[f"{prefix}input_blocks.0.0.bias"]
    skip, out = tensors[f"{last}0.skip_connection.weight"], tensors[f"{prefix}out.2.weight"]
    first[:carried], skip[:carried] = 0, 0
    out *= RANDOM
    out[:, :carried] = 0
    for name in (f"{last}0.out_layers.3.weight", f"{last}1.proj_out.weight"):
        if name in tensors:
            tensors[name][:carried] = 0
    for row in range(carried):
        sign = 1.0 if row % 2 == 0 else -1.0
        latent, place = divmod(row, PAIR)
        skip[row, CHANNELS + row] = 1  # the first block's output is joined after the one from below
        if place < 2:
            first[row, latent, 1, 1] = sign
            out[latent, row, 1, 1] = sign * CONSTANT * math.sqrt((PAIR - 2) / PAIR)
        else:
            first_bias[row] = sign * CONSTANT


# -- text and pictures -----------------------------------------------------------------------------------------------


def clip_l(width: int = 768, layers: int = 12) -> Shapes:
    """CLIP's text encoder, as transformers names it."""
    yield "embeddings.token_embedding.weight", (49408, width)
    yield "embeddings.position_embedding.weight", (77, width)
    for layer in range(layers):
        inside = f"encoder.layers.{layer}"
        for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield from linear(f"{inside}.self_attn.{projection}", width, width)
        yield from linear(f"{inside}.mlp.fc1", width, 4 * width)
        yield from linear(f"{inside}.mlp.fc2", 4 * width, width)
        yield from norm(f"{inside}.layer_norm1", width)
        yield from norm(f"{inside}.layer_norm2", width)
    yield from norm("final_layer_norm", width)


def clip_g(layers: int = 32) -> Shapes:
    """SDXL's larger one, as open_clip names it."""
    yield "token_embedding.weight", (49408, 1280)
    yield "positional_embedding", (77, 1280)
    yield "text_projection", (1280, 1280)
    yield "logit_scale", ()
    for layer in range(layers):
        inside = f"transformer.resblocks.{layer}"
        yield f"{inside}.attn.in_proj_weight", (3840, 1280)
        yield f"{inside}.attn.in_proj_bias", (3840,)
        yield from linear(f"{inside}.attn.out_proj", 1280, 1280)
        yield from linear(f"{inside}.mlp.c_fc", 1280, 5120)
        yield from linear(f"{inside}.mlp.c_proj", 5120, 1280)
        yield from norm(f"{inside}.ln_1", 1280)
        yield from norm(f"{inside}.ln_2", 1280)
    yield from norm("ln_final", 1280)


def vae(latents: int = 4, widths: tuple[int, ...] = (128, 256, 512, 512), quantised: bool = True) -> Shapes:
    """The VAE of all Stable Diffusion checkpoints; others have more latents, or no convolution about them."""
    yield from convolution("encoder.conv_in", 3, widths[0])
    into = widths[0]
    for level, width in enumerate(widths):
        for block in range(2):
            yield from vae_block(f"encoder.down.{level}.block.{block}", into, width)
            into = width
        if level < 3:
            yield from convolution(f"encoder.down.{level}.downsample.conv", width, width)
    yield from vae_end("encoder", widths[-1], widths[-1], 2 * latents)
    yield from convolution("decoder.conv_in", latents, widths[-1])
    into = widths[-1]
    for level, width in reversed(list(enumerate(widths))):
        for block in range(3):
            yield from vae_block(f"decoder.up.{level}.block.{block}", into, width)
            into = width
        if level:
            yield from convolution(f"decoder.up.{level}.upsample.conv", width, width)
    yield from vae_end("decoder", widths[-1], widths[0], 3)
    if quantised:
        yield from convolution("quant_conv", 2 * latents, 2 * latents, 1)
        yield from convolution("post_quant_conv", latents, latents, 1)


def vae_block(name: str, into: int, out: int) -> Shapes:
    """A residual block without time."""
    yield from norm(f"{name}.norm1", into)
    yield from convolution(f"{name}.conv1", into, out)
    yield from norm(f"{name}.norm2", out)
    yield from convolution(f"{name}.conv2", out, out)
    if into != out:
        yield from convolution(f"{name}.nin_shortcut", into, out, 1)


def vae_end(name: str, middle: int, width: int, out: int) -> Shapes:
    """The middle of an encoder or decoder, and its output."""
    yield from vae_block(f"{name}.mid.block_1", middle, middle)
    yield from norm(f"{name}.mid.attn_1.norm", middle)
    for part in ("q", "k", "v", "proj_out"):
        yield from convolution(f"{name}.mid.attn_1.{part}", middle, middle, 1)
    yield from vae_block(f"{name}.mid.block_2", middle, middle)
    yield from norm(f"{name}.norm_out", width)
    yield from convolution(f"{name}.conv_out", width, out)


def linear(name: str, into: int, out: int) -> Shapes:
    """A linear layer."""
    yield f"{name}.weight", (out, into)
    yield f"{name}.bias", (out,)


def convolution(name: str, into: int, out: int, size: int = 3) -> Shapes:
    """A convolution."""
    yield f"{name}.weight", (out, into, size, size)
    yield f"{name}.bias", (out,)


def norm(name: str, width: int) -> Shapes:
    """A norm."""
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


# -- what A1111 looks up on the hub ----------------------------------------------------------------------------------

CLIP = "openai/clip-vit-large-patch14"
CONFIG = {
    "model_type": "clip",
    "architectures": ["CLIPModel"],
    "projection_dim": 768,
    "text_config": {
        **{"model_type": "clip_text_model", "vocab_size": 49408, "hidden_size": 768, "intermediate_size": 3072},
        **{"num_hidden_layers": 12, "num_attention_heads": 12, "max_position_embeddings": 77, "projection_dim": 768},
        **{"hidden_act": "quick_gelu", "bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 1},
    },
}


def _hub(folder: Path) -> None:
    """A cache for HF_HOME with CLIP's configuration and a tokenizer that knows bytes only."""
    repository = folder / "hub" / ("models--" + CLIP.replace("/", "--"))
    files = repository / "snapshots" / ("0" * 40)
    files.mkdir(parents=True, exist_ok=True)
    (repository / "refs").mkdir(exist_ok=True)
    (repository / "refs" / "main").write_text("0" * 40)
    letters = [chr(code) for code in (*range(33, 127), *range(161, 173), *range(174, 256))]
    letters += [chr(256 + n) for n in range(256 - len(letters))]
    words = [*letters, *(letter + "</w>" for letter in letters)]
    words += [f"<|unused {n}|>" for n in range(49406 - len(words))]
    vocabulary = {word: n for n, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    end = "<|endoftext|>"
    special = {"bos_token": "<|startoftext|>", "eos_token": end, "unk_token": end, "pad_token": end}
    told = {
        "vocab.json": vocabulary,
        "config.json": CONFIG,
        "special_tokens_map.json": special,
        "tokenizer_config.json": {**special, "model_max_length": 77, "tokenizer_class": "CLIPTokenizer"},
    }
    for name, content in told.items():
        (files / name).write_text(json.dumps(content), encoding="utf-8")
    (files / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
