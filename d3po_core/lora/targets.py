"""Which layers of a network a LoRA attaches to, and its initial values.

A small table of name patterns covers diffusers' networks and the original names that ComfyUI and A1111 use. UNets have
their own rows; of transformers all layers of attention and feed-forward modules are taken, whose names hardly differ
from model to model. Layers are recognised by their attributes, not by their class: hosts have their own linear layers,
some of which do not derive from `torch.nn.Linear`. Embeddings, normalisations and modulations are left out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from ..errors import D3POError
from ..settings import LoraSettings
from .weights import LayerWeights, LoraWeights, rescaled

BLOCK = r"(language_model\.)?\w+\.\d+\.((x_|context_)?block\.|\d+\.)?"
"""Paths of a transformer's top-level blocks. Blocks deeper inside belong to text processing, which a host may run once
for all steps, without gradient; only HiDream-O1 is a language model itself."""
ATTENTION = (
    r"(.*\.)?attn\d?\.to_([qkv]|out)(\.0)?",  # UNets, both namings
    BLOCK + r"((self|cross|img|txt|img_self|img_instruct)_)?(attn\d?|attention)\.[\w.]+",
    r"single_blocks\.\d+\.linear1",  # Flux and its relatives: q, k, v and the feed-forward's first half in one
)
FEEDFORWARD = (
    r"(.*\.)?ff\.net\.(0\.proj|2)",
    r"(.*\.)?(attentions\.\d+|(in|out)put_blocks\.\d+\.\d+|middle_block\.\d+)\.proj_(in|out)",
    BLOCK + r"((img|txt|instruct)_)?(mlp|ff|ffn|feed_forward)(_?[xyitXC]|_context)?\.[\w.]+",
    r"single_transformer_blocks\.\d+\.proj_(mlp|out)",
    r"single_blocks\.\d+\.linear2",
)
CONVOLUTIONS = (
    r"(.*\.)?resnets\.\d+\.(conv1|conv2|conv_shortcut)",
    r"(.*\.)?(in_layers\.2|out_layers\.3|skip_connection)",
)
TARGETS = {
    "attention": ATTENTION,
    "attention+feedforward": ATTENTION + FEEDFORWARD,
    "all": ATTENTION + FEEDFORWARD + CONVOLUTIONS,
}
"""Patterns of dotted module paths, for each value of the setting `targets` but "auto"."""
Layer = Any
"""A linear or 2-d convolution layer: torch's, or a host's own class with the same attributes."""


def layers(module: nn.Module) -> dict[str, Layer]:
    """Return all linear and 2-d convolution layers by their dotted path.

    A layer that PEFT has wrapped is listed under its own path, and is the layer inside the wrapper.
    """
    by_path: dict[str, Layer] = {}
    wrapper = "\0"
    for path, layer in module.named_modules():
        if path.startswith(wrapper):
            continue
        if hasattr(layer, "base_layer"):
            wrapper = path + "."
            while hasattr(layer, "base_layer"):
                layer = layer.base_layer
        if _is_linear(layer) or _is_conv(layer):
            by_path[path] = layer
    return by_path


def _is_linear(layer: Layer) -> bool:
    return hasattr(layer, "in_features") and hasattr(layer, "out_features")


def _is_conv(layer: Layer) -> bool:
    return hasattr(layer, "kernel_size") and hasattr(layer, "in_channels") and len(layer.kernel_size) == 2


def low_rank_shapes(layer: Layer, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the shapes of `down` and `up` for a layer."""
    if _is_conv(layer):
        return (rank, layer.in_channels, *layer.kernel_size), (layer.out_channels, rank, 1, 1)
    return (rank, layer.in_features), (layer.out_features, rank)


def find_targets(module: nn.Module, targets: str) -> list[str]:
    """List the paths of the layers that a value of the setting `targets` selects, in the network's order.

    Raises:
        D3POError: no layer of the network has such a name.
    """
    paths = matching(layers(module), targets)
    if not paths:
        raise D3POError(
            f"No layer of this {type(module).__name__} is known to be '{targets}'.",
            "Use a Stable Diffusion 1, 2, XL, 3 or Flux network.",
        )
    return paths


def matching(paths: Iterable[str], targets: str) -> list[str]:
    """Filter a network's paths by a value of the setting `targets`."""
    pattern = re.compile("|".join(TARGETS[targets]))
    return [path for path in paths if pattern.fullmatch(path)]


def initial_weights(module: nn.Module, settings: LoraSettings, start: LoraWeights | None, seed: int) -> LoraWeights:
    """Return the weights that training begins with: `start` on its layers, a fresh LoRA without effect on the others.

    A fresh layer gets a uniform `down` within 1/sqrt(inputs) (Kaiming with a = sqrt 5, as in Hu et al. 2021, arXiv
    2106.09685, and every trainer since) and a zero `up`. All layers, those of `start` too, get the scale alpha / rank
    of the settings: layers of `start` keep their rank and effect, and learn at the same rate as fresh ones.

    Args:
        module: the network.
        settings: rank, alpha and targets; automatic ones are all.
        start: a LoRA to continue from, by this network's paths.
        seed: of the fresh layers' values, which do not depend on device, dtype or attachment.

    Raises:
        D3POError: no layer matches, or `start` does not fit the network.
    """
    known = layers(module)
    start = fitted(start or {}, module)
    rng = torch.Generator().manual_seed(seed)
    scale = settings.alpha / settings.rank
    weights: LoraWeights = {}
    for path in dict.fromkeys([*find_targets(module, settings.with_targets("all").targets), *start]):
        if path in start:
            weights[path] = rescaled(start[path], scale * start[path].rank)
        else:
            down, up = low_rank_shapes(known[path], settings.rank)
            bound = 1 / math.sqrt(math.prod(down[1:]))
            values = torch.empty(down).uniform_(-bound, bound, generator=rng)
            weights[path] = LayerWeights(values, torch.zeros(up), settings.alpha)
    return {path: weights[path] for path in known if path in weights}


def fitted(weights: LoraWeights, module: nn.Module) -> LoraWeights:
    """Reshape weights to the network's layers (a linear layer's to a 1x1 convolution's and back).

    Raises:
        D3POError: the network lacks a layer, or a layer has another size.
    """
    known = layers(module)
    missing = [path for path in weights if path not in known]
    if missing:
        raise D3POError(
            f"{len(missing)} of the LoRA's {len(weights)} layers do not exist in this model, {missing[0]} among them.",
            "Use the base model that it was made for.",
        )
    return {path: _fit_layer(path, w, known[path]) for path, w in weights.items()}


def _fit_layer(path: str, w: LayerWeights, layer: Layer) -> LayerWeights:
    shapes = low_rank_shapes(layer, w.rank)
    for tensor, shape in zip((w.down, w.up), shapes, strict=True):
        sides = tuple(size for size in shape[2:] if size > 1)
        if tuple(tensor.shape[:2]) != shape[:2] or tuple(size for size in tensor.shape[2:] if size > 1) != sides:
            raise D3POError(
                f"This LoRA was made for another base model: in {path} it is {tuple(tensor.shape)}, not {shape}.",
                "Use the base model that it was made for.",
            )
    return LayerWeights(w.down.reshape(shapes[0]), w.up.reshape(shapes[1]), w.alpha)
