"""Keys of LoRA files: written in the one form that every program reads, read in all forms that are about.

Written:

- SD 1 and 2: kohya's, `lora_unet_<diffusers path with _>.lora_down.weight`, `.lora_up.weight`, `.alpha`.
- SDXL: the same with original (sgm) paths, as sd-scripts writes them, `lora_unet_input_blocks_4_1_...`. The only form
  that sd-scripts, A1111, Forge, ComfyUI and diffusers all read.
- SD3 and Flux: `transformer.<diffusers path>.lora_A.weight` and `.lora_B.weight`, with alpha / rank multiplied into B.
  ComfyUI (`model_lora_keys_unet` in comfy/lora.py) and diffusers both read these; kohya's form is read by ComfyUI but
  not by diffusers' SD3 loader, and that loader refuses a file with `.alpha` keys.
- Later families: `diffusion_model.<path>.lora_A.weight` and `.lora_B.weight` in the same way. ComfyUI reads these for
  every model that it knows.

One alpha for the whole file: diffusers loses track of several (`get_peft_kwargs` matches them against converted names).

Read, onto networks with diffusers' or with original names: kohya's form with either kind of paths; diffusers' with
`unet.` or `transformer.`, with PEFT's `base_model.model.` or with nothing before the path, with or without alphas
(keys, or the `lora_adapter_metadata` that diffusers writes); the older `.lora.down` and `processor.to_q_lora.down`.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import D3POError
from .layer_names import LayerNames, ModelFamily, layer_names
from .targets import fitted, layers
from .weights import LayerWeights, LoraWeights, rescaled

PEFT = {"sd3": "transformer", "flux1": "transformer", "other": "diffusion_model"}
"""What stands before a path, of the families whose files have `lora_A` and `lora_B`."""
TEXT_ENCODER = ("lora_te", "text_encoder")
PREFIXES = (
    "lora_unet_",
    "lora_transformer_",
    "lycoris_",
    "unet_",
    "transformer_",
    "base_model_model_",
    "diffusion_model_",
)
"""What may stand before a path, in flattened form; several may follow each other."""
ADAPTER_METADATA = "lora_adapter_metadata"
"""Where diffusers keeps PEFT's configuration in a file."""

_KEY = re.compile(
    r"(?P<name>.+?)(?:"
    r"\.lora_(?P<kohya>down|up)\.weight|"
    r"\.lora_(?P<peft>[AB])(?:\.[^.]+)?\.weight|"
    r"[._]lora(?:_linear_layer)?\.(?P<old>down|up)\.weight|"
    r"\.(?P<alpha>alpha))"
)
_MADE_FOR = "Use the base model that it was made for."


def to_file(weights: LoraWeights, module: nn.Module) -> dict[str, Tensor]:
    """A LoRA under the keys that files of this network's family carry, on the CPU.

    Args:
        weights: by the network's own paths.
        module: the network, with diffusers' or original names.

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
    if prefix := PEFT.get(naming.base):
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
    """The same LoRA with the alphas that files of this family have: the commonest one, or each layer's rank."""
    if base in PEFT:
        return {path: rescaled(w, float(w.rank)) for path, w in weights.items()}
    alpha = Counter(w.alpha for w in weights.values()).most_common(1)[0][0]
    return {path: rescaled(w, alpha) for path, w in weights.items()}


def from_file(
    tensors: dict[str, Tensor], module: nn.Module, metadata: dict[str, str], skip_text_encoder: bool = False
) -> LoraWeights:
    """A file's LoRA by the paths of this network, float32.

    Args:
        tensors, metadata: the file's.
        module: the network that it is for.
        skip_text_encoder: leave out what the file changes in text encoders, instead of refusing it.

    Raises:
        D3POError: not a plain LoRA, keys that the network does not have, another base model's sizes, or a text encoder.
    """
    grouped = _grouped(tensors)
    text = [name for name in grouped if name.startswith(TEXT_ENCODER)]
    if text and not skip_text_encoder:
        raise D3POError(
            f"This LoRA also changes the text encoder ({len(text)} layers), which is not trained here.",
            "Choose to leave that part out, or use a LoRA of the image network only.",
        )
    naming = layer_names(module)
    known = _spellings(naming)
    found = {name: _lookup(name, known) for name in grouped if name not in text}
    strangers = [name for name, parts in found.items() if not parts]
    if strangers or not found:
        raise D3POError(
            f"{len(strangers)} of the LoRA's {len(found)} layers do not exist in this model: "
            f"{', '.join(strangers[:3])}{' ...' if len(strangers) > 3 else ''}.",
            _MADE_FOR,
        )
    adapter = _adapter_metadata(metadata)
    pieces: LoraWeights = {}
    for name, parts in found.items():
        weights = _layer(name, grouped[name], adapter, parts[0])
        pieces.update(zip(parts, _split(weights, len(parts)), strict=True))
    return fitted(_joined(pieces, naming, module), module)


def is_lora_key(key: str) -> bool:
    """Whether a tensor of this name belongs to a plain LoRA."""
    return _KEY.fullmatch(key) is not None


def _flat(path: str) -> str:
    return path.replace(".", "_")


def _grouped(tensors: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Tensors by layer name as the file has it, then by "down", "up", "alpha"."""
    grouped: dict[str, dict[str, Tensor]] = {}
    strange = []
    for key, tensor in tensors.items():
        match = _KEY.fullmatch(key)
        if match is None:
            strange.append(key)
            continue
        role = match["kohya"] or match["old"] or match["alpha"] or {"A": "down", "B": "up"}[match["peft"]]
        grouped.setdefault(match["name"], {})[role] = tensor
    if strange:
        raise D3POError(
            f"{len(strange)} of the file's {len(tensors)} tensors are not those of a plain LoRA, {strange[0]} among "
            "them.",
            "DoRA, LoHa, LoKr and the like cannot be trained further here.",
        )
    return grouped


def _spellings(naming: LayerNames) -> dict[str, tuple[str, ...]]:
    """Diffusers' paths by every flattened name of a layer."""
    known: dict[str, tuple[str, ...]] = {}
    for parts in naming.own.values():
        for part in parts:
            known[_flat(part)] = (part,)
            known[_flat(part.removesuffix(".0"))] = (part,)  # old files say to_out for to_out.0
    known.update({_flat(name): parts for name, parts in naming.original.items()})
    return known


def _lookup(name: str, known: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    """What a name in a file stands for; empty if nothing."""
    spelled = [*_stripped(_flat(name)), *_stripped(_flat(name.replace(".processor", "")))]
    return next((known[flat] for flat in spelled if flat in known), ())


def _stripped(flat: str) -> Iterator[str]:
    yield flat
    for prefix in PREFIXES:
        if flat.startswith(prefix):
            yield from _stripped(flat.removeprefix(prefix))


def _layer(name: str, roles: dict[str, Tensor], adapter: dict[str, Any], path: str) -> LayerWeights:
    """One layer's tensors in float32, with the alpha that the file gives, or its rank."""
    if "down" not in roles or "up" not in roles:
        raise D3POError(f"The LoRA file is damaged: it holds only one half of {name}.", "Use another copy of it.")
    down, up = (roles[role].to(torch.float32, copy=True) for role in ("down", "up"))
    if down.dim() not in (2, 4) or up.dim() != down.dim() or up.shape[1] != down.shape[0]:
        raise D3POError(f"The LoRA file is damaged: the two halves of {name} do not fit.", "Use another copy of it.")
    alpha = float(roles["alpha"]) if "alpha" in roles else _adapter_alpha(adapter, path, down.shape[0])
    return LayerWeights(down, up, alpha)


def _adapter_metadata(metadata: dict[str, str]) -> dict[str, Any]:
    """PEFT's configuration, if diffusers left it in the file."""
    try:
        stored = json.loads(metadata.get(ADAPTER_METADATA, "{}"))
        return {key.removeprefix("unet.").removeprefix("transformer."): value for key, value in stored.items()}
    except (ValueError, AttributeError) as error:
        raise D3POError("The LoRA file's adapter metadata is damaged.", "Use another copy of it.") from error


def _adapter_alpha(adapter: dict[str, Any], path: str, rank: int) -> float:
    """Alpha of a layer by PEFT's configuration; its rank where there is none."""
    alpha = float(adapter.get("lora_alpha", rank))
    for pattern, value in (adapter.get("alpha_pattern") or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", path):
            alpha = float(value)
            break
    return alpha * rank**0.5 if adapter.get("use_rslora") else alpha


def _split(weights: LayerWeights, count: int) -> list[LayerWeights]:
    """A LoRA on a fused layer as LoRAs on its parts, which share `down`: q, k and v, then the rest if there is any."""
    if count == 1:
        return [weights]
    inputs, outputs = weights.down.shape[1], weights.up.shape[0]
    sizes = [inputs] * 3 + [outputs - 3 * inputs] * (count - 3)
    if sum(sizes) != outputs or sizes[-1] <= 0:
        raise D3POError(f"This LoRA was made for another base model: {inputs} inputs, {outputs} outputs.", _MADE_FOR)
    return [LayerWeights(weights.down, up, weights.alpha) for up in weights.up.split(sizes)]


def _joined(pieces: LoraWeights, naming: LayerNames, module: nn.Module) -> LoraWeights:
    """By the network's own paths, with q, k and v in one where the network has them so."""
    known = layers(module)
    weights: LoraWeights = {}
    for path, parts in naming.own.items():
        present = {part: pieces[part] for part in parts if part in pieces}
        if len(parts) == 1 and present:
            weights[path] = present[parts[0]]
        elif present:
            weights[path] = _fused(parts, present, known[path])
    return weights


def _fused(parts: tuple[str, ...], present: LoraWeights, layer: Any) -> LayerWeights:
    """LoRAs on parts of a layer as one on the whole: with a common `down` if they share it, else block by block."""
    inputs = layer.in_features
    sizes = dict(zip(parts, [inputs] * 3 + [layer.out_features - 3 * inputs], strict=False))
    for part, w in present.items():
        if tuple(w.down.shape[1:]) != (inputs,) or w.up.shape[0] != sizes[part]:
            raise D3POError(f"This LoRA was made for another base model: {part} has another size.", _MADE_FOR)
    first = next(iter(present.values()))
    alike = all(w.alpha == first.alpha and w.down.equal(first.down) for w in present.values())
    if alike and len(present) == len(parts):
        return LayerWeights(first.down, torch.cat([present[part].up for part in parts]), first.alpha)
    scaled = {part: rescaled(w, float(w.rank)) for part, w in present.items()}
    down = torch.cat([w.down for w in scaled.values()])
    up = torch.block_diag(*(scaled[part].up if part in scaled else torch.zeros(sizes[part], 0) for part in parts))
    return LayerWeights(down, up, float(down.shape[0]))
