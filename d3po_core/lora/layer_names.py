"""The two names of every layer: diffusers' and the original (ldm, sgm) one.

Both are derived from the paths that a network really has, so any number of blocks and layers will do and no
configuration is needed. Diffusers' name is the common one: where the original network has q, k and v in one layer, that
layer corresponds to several of diffusers'. Later families are supported in hosts only, by their original names.

Sources of the correspondence: the layouts of CompVis' `openaimodel.py`, Stability's `mmdit.py` and Black Forest Labs'
`model.py`, and diffusers' `UNet2DConditionModel`, `SD3Transformer2DModel` and `FluxTransformer2DModel`. Modulations and
the final layers of the transformers are left out: nothing here trains them, and their halves are swapped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import count
from typing import Literal

from torch import nn

from ..errors import D3POError
from .targets import layers, matching

ModelFamily = Literal["sd_v1", "sd_v2", "sdxl", "sd3", "flux1", "other"]
"""Model families that LoRA files distinguish; "other" is every later one, which only its host supports."""

Parts = tuple[str, ...]
"""Diffusers' paths for one layer of the original network; mostly just one."""

_FIXED = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}
_RESNET = {
    "conv1": "in_layers.2",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_QKV = ("attn.to_q", "attn.to_k", "attn.to_v")
_ADDED_QKV = ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj")
_SD3 = {
    "x_block.attn.qkv": _QKV,
    "x_block.attn.proj": ("attn.to_out.0",),
    "x_block.attn2.qkv": ("attn2.to_q", "attn2.to_k", "attn2.to_v"),
    "x_block.attn2.proj": ("attn2.to_out.0",),
    "x_block.mlp.fc1": ("ff.net.0.proj",),
    "x_block.mlp.fc2": ("ff.net.2",),
    "context_block.attn.qkv": _ADDED_QKV,
    "context_block.attn.proj": ("attn.to_add_out",),
    "context_block.mlp.fc1": ("ff_context.net.0.proj",),
    "context_block.mlp.fc2": ("ff_context.net.2",),
}
_FLUX_DOUBLE = {
    "img_attn.qkv": _QKV,
    "img_attn.proj": ("attn.to_out.0",),
    "img_mlp.0": ("ff.net.0.proj",),
    "img_mlp.2": ("ff.net.2",),
    "txt_attn.qkv": _ADDED_QKV,
    "txt_attn.proj": ("attn.to_add_out",),
    "txt_mlp.0": ("ff_context.net.0.proj",),
    "txt_mlp.2": ("ff_context.net.2",),
}
_FLUX_SINGLE = {"linear1": (*_QKV, "proj_mlp"), "linear2": ("proj_out",)}
_TRANSFORMERS = {
    "sd3": (("joint_blocks", "transformer_blocks", _SD3),),
    "flux1": (
        ("double_blocks", "transformer_blocks", _FLUX_DOUBLE),
        ("single_blocks", "single_transformer_blocks", _FLUX_SINGLE),
    ),
}


_UNET_BLOCK = re.compile(r"input_blocks\.|down_blocks\.\d+\.(attentions|resnets)\.")
_TEXT_EMBEDDER = "time_text_embed.text_embedder.linear_1"
_FAMILY_MARKS: tuple[tuple[ModelFamily, frozenset[str]], ...] = (
    ("flux1", frozenset({"txt_in", "vector_in.in_layer"})),
    ("flux1", frozenset({"x_embedder", "context_embedder", _TEXT_EMBEDDER})),
    ("sd3", frozenset({"pos_embed.proj", "context_embedder", _TEXT_EMBEDDER})),
)
"""Layers by which a family is recognised. Names of blocks are ambiguous: Flux's are also Flux.2's, Chroma's and
HunyuanImage's, whose layers have other sizes, and SD3's in diffusers are also Qwen-Image's."""


@dataclass(frozen=True)
class LayerNames:
    """Names of a network's layers.

    Attributes:
        base: the model family.
        own: for each path in the network, its diffusers' paths.
        original: for each path in the original network, its diffusers' paths; equal to `own` if the network has
            original names.
    """

    base: ModelFamily
    own: dict[str, Parts]
    original: dict[str, Parts]


def layer_names(module: nn.Module) -> LayerNames:
    """Return both names of every layer of a network.

    Raises:
        D3POError: the network is of no known family.
    """
    known = layers(module)
    base = model_family(module)
    if base == "other":
        own: dict[str, Parts] = {path: (path,) for path in known}
        return LayerNames(base, own, own)
    original = _transformer(list(known), base) if base in _TRANSFORMERS else _unet(list(known))
    if _has(known, "input_blocks.", "joint_blocks.", "double_blocks."):
        return LayerNames(base, original, original)
    return LayerNames(base, {path: (path,) for path in known}, original)


def model_family(module: nn.Module) -> ModelFamily:
    """Determine the family of a network by its layers.

    Raises:
        D3POError: the network is of no known family.
    """
    known = layers(module)
    if _has(known, "joint_blocks."):
        return "sd3"
    for base, marks in _FAMILY_MARKS:
        if marks <= known.keys():
            return base
    if not any(_UNET_BLOCK.match(path) for path in known):
        if _of_diffusers(module) or not matching(known, "attention"):
            raise D3POError(
                f"A {type(module).__name__} is of no known model family.", "Use Stable Diffusion 1, 2, XL, 3 or Flux."
            )
        return "other"
    if _has(known, "add_embedding.", "label_emb."):
        return "sdxl"
    text_widths = {layer.in_features for path, layer in known.items() if path.endswith("attn2.to_k")}
    return "sd_v2" if text_widths == {1024} else "sd_v1"


def _of_diffusers(module: nn.Module) -> bool:
    """Check whether a network's class is diffusers' own, whose loaders expect different keys for each family."""
    return any(kind.__module__.startswith("diffusers.models.") for kind in type(module).__mro__)


def _has(paths: Iterable[str], *beginnings: str) -> bool:
    return any(path.startswith(beginnings) for path in paths)


def _transformer(paths: list[str], base: str) -> dict[str, Parts]:
    """Map original names of SD3's and Flux's layers to diffusers', from the paths of either naming."""
    original_names: dict[str, Parts] = {}
    present = set(paths)
    for original, diffusers, table in _TRANSFORMERS[base]:
        for i in count():
            if not _has(paths, f"{original}.{i}.", f"{diffusers}.{i}."):
                break
            for inner, parts in table.items():
                name, full = f"{original}.{i}.{inner}", tuple(f"{diffusers}.{i}.{part}" for part in parts)
                if name in present or present.issuperset(full):
                    original_names[name] = full
    return original_names


def _unet(paths: list[str]) -> dict[str, Parts]:
    """Map original names of a UNet's layers to diffusers', from the paths of either naming."""
    original_names: dict[str, Parts] = {}
    if _has(paths, "input_blocks."):
        blocks = {original: diffusers for diffusers, original in _blocks_of_original(paths).items()}
        inner = {original: diffusers for diffusers, original in _RESNET.items()}
        for path in paths:
            if diffusers := _renamed(path, blocks, inner):
                original_names[path] = (diffusers,)
    else:
        blocks = _blocks_of_diffusers(paths)
        for path in paths:
            if original := _renamed(path, blocks, _RESNET):
                original_names[original] = (path,)
    return original_names


def _renamed(path: str, blocks: dict[str, str], inner: dict[str, str]) -> str:
    """Rename a path's block and, in a residual block, its layer; return "" if the block is unknown."""
    block = path
    while block and block not in blocks:
        block = block.rpartition(".")[0]
    rest = path[len(block) + 1 :]
    return ".".join(part for part in (blocks[block], inner.get(rest, rest)) if part) if block else ""


def _blocks_of_diffusers(paths: list[str]) -> dict[str, str]:
    """Map diffusers' names of blocks to original ones, from the paths of a UNet with diffusers' names."""
    present = {".".join(path.split(".")[:4]) for path in paths}
    blocks = dict(_FIXED)
    numbers = count(1)
    for x in range(len({path.split(".")[1] for path in paths if path.startswith("down_blocks.")})):
        for i in count():
            if f"down_blocks.{x}.resnets.{i}" not in present:
                break
            n = next(numbers)
            blocks[f"down_blocks.{x}.resnets.{i}"] = f"input_blocks.{n}.0"
            blocks[f"down_blocks.{x}.attentions.{i}"] = f"input_blocks.{n}.1"
        if f"down_blocks.{x}.downsamplers.0" in present:
            blocks[f"down_blocks.{x}.downsamplers.0.conv"] = f"input_blocks.{next(numbers)}.0.op"
    n = 0
    for x in range(len({path.split(".")[1] for path in paths if path.startswith("up_blocks.")})):
        for i in count():
            if f"up_blocks.{x}.resnets.{i}" not in present:
                break
            blocks[f"up_blocks.{x}.resnets.{i}"] = f"output_blocks.{n}.0"
            blocks[f"up_blocks.{x}.attentions.{i}"] = f"output_blocks.{n}.1"
            place = 2 if f"up_blocks.{x}.attentions.{i}" in present else 1
            blocks[f"up_blocks.{x}.upsamplers.0.conv"] = f"output_blocks.{n}.{place}.conv"
            n += 1
    return blocks


def _blocks_of_original(paths: list[str]) -> dict[str, str]:
    """Map diffusers' names of blocks to original ones, from the paths of a UNet with original names."""
    layers_present, present = set(paths), {".".join(path.split(".")[:3]) for path in paths}
    blocks = dict(_FIXED)
    x = i = 0
    for n in count(1):
        if f"input_blocks.{n}.0" not in present:
            break
        if f"input_blocks.{n}.0.op" in layers_present:
            blocks[f"down_blocks.{x}.downsamplers.0.conv"] = f"input_blocks.{n}.0.op"
            x, i = x + 1, 0
        else:
            blocks[f"down_blocks.{x}.resnets.{i}"] = f"input_blocks.{n}.0"
            blocks[f"down_blocks.{x}.attentions.{i}"] = f"input_blocks.{n}.1"
            i += 1
    x = i = 0
    for n in count():
        if f"output_blocks.{n}.0" not in present:
            break
        blocks[f"up_blocks.{x}.resnets.{i}"] = f"output_blocks.{n}.0"
        places = [m for m in (1, 2) if f"output_blocks.{n}.{m}.conv" in layers_present]
        if 1 not in places:
            blocks[f"up_blocks.{x}.attentions.{i}"] = f"output_blocks.{n}.1"
        i += 1
        if places:
            blocks[f"up_blocks.{x}.upsamplers.0.conv"] = f"output_blocks.{n}.{places[0]}.conv"
            x, i = x + 1, 0
    return blocks
