"""Keys of LoRA files: written in the one form that every program reads, read in all forms in use.

Written:

- SD 1 and 2: kohya's, `lora_unet_<diffusers path with _>.lora_down.weight`, `.lora_up.weight`, `.alpha`.
- SDXL: the same with original (sgm) paths, as sd-scripts writes them, `lora_unet_input_blocks_4_1_...`. This is the
  only form that sd-scripts, A1111, Forge, ComfyUI and diffusers all read.
- SD3 and Flux: `transformer.<diffusers path>.lora_A.weight` and `.lora_B.weight`, with alpha / rank multiplied into B.
  ComfyUI (`model_lora_keys_unet` in comfy/lora.py) and diffusers both read these; kohya's form is read by ComfyUI but
  not by diffusers' SD3 loader, and that loader refuses a file with `.alpha` keys.
- Later families: `diffusion_model.<path>.lora_A.weight` and `.lora_B.weight` in the same way. ComfyUI reads these for
  every model that it supports.

A file has one alpha for all layers: diffusers mixes up several (`get_peft_kwargs` matches them against converted
names).

Read, onto networks with diffusers' or with original names: kohya's form with either kind of paths; diffusers' with
`unet.` or `transformer.`, with PEFT's `base_model.model.` or with no prefix, with or without alphas (keys, or the
`lora_adapter_metadata` that diffusers writes); the older `.lora.down` and `processor.to_q_lora.down`.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..errors import D3POError
from .layer_names import LayerNames, ModelFamily, Parts, layer_names
from .targets import Layer, fitted, layers
from .weights import LayerWeights, LoraWeights, rescaled

PEFT_PREFIXES = {"sd3": "transformer", "flux1": "transformer", "other": "diffusion_model"}
"""Prefix of the paths, for the families whose files have `lora_A` and `lora_B`."""
TEXT_ENCODER_PREFIXES = ("lora_te", "text_encoder")
PREFIXES = (
    "lora_unet_",
    "lora_transformer_",
    "lycoris_",
    "unet_",
    "transformer_",
    "base_model_model_",
    "diffusion_model_",
)
"""Prefixes that a path may have, in flattened form, one or several."""
ADAPTER_METADATA = "lora_adapter_metadata"
"""Metadata key of PEFT's configuration, which diffusers writes as JSON."""

_KEY = re.compile(
    r"(?P<name>.+?)(?:"
    r"\.lora_(?P<kohya>down|up)\.weight|"
    r"\.lora_(?P<peft>[AB])(?:\.[^.]+)?\.weight|"
    r"[._]lora(?:_linear_layer)?\.(?P<old>down|up)\.weight|"
    r"\.(?P<alpha>alpha))"
)
_MADE_FOR = "Use the base model that it was made for."


def to_file(weights: LoraWeights, module: nn.Module) -> dict[str, Tensor]:
    """Name a LoRA's tensors by the keys of files for this network's family; copy them to the CPU.

    Raises:
        D3POError: the network is of no known family.
    """
    naming = layer_names(module)
    parts = {
        part: piece
        for path, w in one_alpha(weights, naming.base).items()
        for part, piece in zip(naming.own[path], _split(w, len(naming.own[path])), strict=True)
    }
    tensors: dict[str, Tensor] = {}
    if prefix := PEFT_PREFIXES.get(naming.base):
        for path, w in parts.items():
            tensors[f"{prefix}.{path}.lora_A.weight"] = w.down
            tensors[f"{prefix}.{path}.lora_B.weight"] = w.up
    else:
        spelled = {p[0]: name for name, p in naming.original.items()} if naming.base == "sdxl" else {}
        for path, w in parts.items():
            name = "lora_unet_" + _flat(spelled.get(path, path))
            tensors[f"{name}.lora_down.weight"] = w.down
            tensors[f"{name}.lora_up.weight"] = w.up
            tensors[f"{name}.alpha"] = torch.tensor(float(w.alpha))
    return {key: value.detach().to("cpu", copy=True).contiguous() for key, value in tensors.items()}


def one_alpha(weights: LoraWeights, base: ModelFamily) -> LoraWeights:
    """Rescale a LoRA to the alphas of files of this family: the most common alpha, or each layer's rank."""
    if base in PEFT_PREFIXES:
        return {path: rescaled(w, float(w.rank)) for path, w in weights.items()}
    alpha = Counter(w.alpha for w in weights.values()).most_common(1)[0][0]
    return {path: rescaled(w, alpha) for path, w in weights.items()}


def from_file(tensors: dict[str, Tensor], module: nn.Module, metadata: dict[str, str]) -> LoraWeights:
    """Convert a file's tensors to a LoRA by the paths of a network, float32.

    Raises:
        D3POError: not a plain LoRA, layers that the network does not have, sizes of another base model, or layers of
            a text encoder.
    """
    grouped = _grouped(tensors)
    text_layers = [name for name in grouped if name.startswith(TEXT_ENCODER_PREFIXES)]
    if text_layers:
        raise D3POError(
            f"This LoRA also changes the text encoder ({len(text_layers)} layers), which is not trained here.",
            "Use a LoRA of the image network only.",
        )
    naming = layer_names(module)
    spellings = _spellings(naming)
    paths = {name: _lookup(name, spellings) for name in grouped}
    unknown = [name for name, parts in paths.items() if not parts]
    if unknown or not paths:
        raise D3POError(
            f"{len(unknown)} of the LoRA's {len(paths)} layers do not exist in this model: "
            f"{', '.join(unknown[:3])}{' ...' if len(unknown) > 3 else ''}.",
            _MADE_FOR,
        )
    adapter = _adapter_config(metadata)
    pieces: LoraWeights = {}
    for name, parts in paths.items():
        weights = _layer(name, grouped[name], adapter, parts[0])
        pieces.update(zip(parts, _split(weights, len(parts)), strict=True))
    return fitted(_joined(pieces, naming, module), module)


def is_lora_key(key: str) -> bool:
    """Check whether a tensor of this name belongs to a plain LoRA."""
    return _KEY.fullmatch(key) is not None


def _flat(path: str) -> str:
    return path.replace(".", "_")


def _grouped(tensors: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Group tensors by the file's name of the layer, then by "down", "up", "alpha"."""
    grouped: dict[str, dict[str, Tensor]] = {}
    unknown = []
    for key, tensor in tensors.items():
        match = _KEY.fullmatch(key)
        if match is None:
            unknown.append(key)
            continue
        role = match["kohya"] or match["old"] or match["alpha"] or {"A": "down", "B": "up"}[match["peft"]]
        grouped.setdefault(match["name"], {})[role] = tensor
    if unknown:
        raise D3POError(
            f"{len(unknown)} of the file's {len(tensors)} tensors are not those of a plain LoRA, {unknown[0]} among "
            "them.",
            "DoRA, LoHa, LoKr and the like cannot be trained further here.",
        )
    return grouped


def _spellings(naming: LayerNames) -> dict[str, Parts]:
    """Map every flattened name of a layer to its diffusers' paths."""
    spellings: dict[str, Parts] = {}
    for parts in naming.own.values():
        for part in parts:
            spellings[_flat(part)] = (part,)
            spellings[_flat(part.removesuffix(".0"))] = (part,)  # old files have to_out for to_out.0
    spellings.update({_flat(name): parts for name, parts in naming.original.items()})
    return spellings


def _lookup(name: str, spellings: dict[str, Parts]) -> Parts:
    """Find the diffusers' paths of a name in a file; empty if there are none."""
    candidates = [*_stripped(_flat(name)), *_stripped(_flat(name.replace(".processor", "")))]
    return next((spellings[flat] for flat in candidates if flat in spellings), ())


def _stripped(flat: str) -> Iterator[str]:
    """Yield a flattened name with none, one and more of its prefixes removed."""
    yield flat
    for prefix in PREFIXES:
        if flat.startswith(prefix):
            yield from _stripped(flat.removeprefix(prefix))


@dataclass(frozen=True)
class _AdapterConfig:
    """PEFT's configuration of an adapter, as far as it decides alpha."""

    alpha: float | None = None
    alpha_pattern: dict[str, float] = field(default_factory=dict)
    rank_stabilised: bool = False

    def alpha_of(self, path: str, rank: int) -> float:
        """Return alpha of a layer; its rank where the configuration has none."""
        patterns = (value for name, value in self.alpha_pattern.items() if f".{path}".endswith(f".{name}"))
        alpha = next(patterns, float(rank) if self.alpha is None else self.alpha)
        return alpha * rank**0.5 if self.rank_stabilised else alpha


def _adapter_config(metadata: dict[str, str]) -> _AdapterConfig:
    """Read PEFT's configuration, if diffusers wrote it into the file."""
    try:
        stored = json.loads(metadata.get(ADAPTER_METADATA, "{}"))
        config = {key.removeprefix("unet.").removeprefix("transformer."): value for key, value in stored.items()}
        return _AdapterConfig(
            float(config["lora_alpha"]) if "lora_alpha" in config else None,
            {_layer_name(pattern): float(alpha) for pattern, alpha in (config.get("alpha_pattern") or {}).items()},
            bool(config.get("use_rslora")),
        )
    except (ValueError, TypeError, AttributeError) as error:
        raise D3POError("The LoRA file's adapter metadata is damaged.", "Use another copy of it.") from error


def _layer_name(pattern: str) -> str:
    """Return the name of a layer that PEFT's pattern stands for.

    Raises:
        ValueError: it is a regular expression, which a stranger's file is not trusted with.
    """
    name = pattern.removeprefix("^").removesuffix("$").replace("\\.", ".")
    if not re.fullmatch(r"[\w.]+", name):
        raise ValueError(pattern)
    return name


def _layer(name: str, roles: dict[str, Tensor], adapter: _AdapterConfig, path: str) -> LayerWeights:
    """Take one layer's tensors in float32, with the file's alpha, or the rank where it has none."""
    if "down" not in roles or "up" not in roles:
        raise D3POError(f"The LoRA file is damaged: it holds only one half of {name}.", "Use another copy of it.")
    down, up = (roles[role].to(torch.float32, copy=True) for role in ("down", "up"))
    if down.dim() not in (2, 4) or up.dim() != down.dim() or up.shape[1] != down.shape[0]:
        raise D3POError(f"The LoRA file is damaged: the two halves of {name} do not fit.", "Use another copy of it.")
    alpha = float(roles["alpha"]) if "alpha" in roles else adapter.alpha_of(path, down.shape[0])
    return LayerWeights(down, up, alpha)


def _split(weights: LayerWeights, count: int) -> list[LayerWeights]:
    """Split a LoRA on a fused layer into LoRAs on its parts: q, k and v, then the rest if any; they share `down`."""
    if count == 1:
        return [weights]
    inputs, outputs = weights.down.shape[1], weights.up.shape[0]
    sizes = [inputs] * 3 + [outputs - 3 * inputs] * (count - 3)
    if sum(sizes) != outputs or sizes[-1] <= 0:
        raise D3POError(f"This LoRA was made for another base model: {inputs} inputs, {outputs} outputs.", _MADE_FOR)
    return [LayerWeights(weights.down, up, weights.alpha) for up in weights.up.split(sizes)]


def _joined(pieces: LoraWeights, naming: LayerNames, module: nn.Module) -> LoraWeights:
    """Rename pieces by the network's own paths, with q, k and v fused where the network has them fused."""
    known = layers(module)
    weights: LoraWeights = {}
    for path, parts in naming.own.items():
        present = {part: pieces[part] for part in parts if part in pieces}
        if len(parts) == 1 and present:
            weights[path] = present[parts[0]]
        elif present:
            weights[path] = _fused(parts, present, known[path])
    return weights


def _fused(parts: Parts, present: LoraWeights, layer: Layer) -> LayerWeights:
    """Fuse LoRAs on parts of a layer into one: with a common `down` if they share it, else block by block."""
    inputs = layer.in_features
    sizes = dict(zip(parts, [inputs] * 3 + [layer.out_features - 3 * inputs], strict=False))
    for part, w in present.items():
        if tuple(w.down.shape[1:]) != (inputs,) or w.up.shape[0] != sizes[part]:
            raise D3POError(f"This LoRA was made for another base model: {part} has another size.", _MADE_FOR)
    first = next(iter(present.values()))
    shared = all(w.alpha == first.alpha and w.down.equal(first.down) for w in present.values())
    if shared and len(present) == len(parts):
        return LayerWeights(first.down, torch.cat([present[part].up for part in parts]), first.alpha)
    scaled = {part: rescaled(w, float(w.rank)) for part, w in present.items()}
    down = torch.cat([w.down for w in scaled.values()])
    up = torch.block_diag(*(scaled[part].up if part in scaled else torch.zeros(sizes[part], 0) for part in parts))
    return LayerWeights(down, up, float(down.shape[0]))
