"""Metadata of LoRA files: sd-scripts' `ss_*` and `sshs_*` keys, Stability's `modelspec.*`, and our `d3po_*`.

A1111 and Forge recognise the base model by `ss_base_model_version`, `ss_v2` and `modelspec.architecture` (Forge
recognises Flux by `modelspec.implementation`), show `ss_output_name` as the LoRA's name, and index it by
`sshs_model_hash`. A later family has no registered architecture, so its files leave out the keys of the specification
that need one. Prompts, people's names and paths are never included unless a caller passes them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import TypedDict

from torch import Tensor

from .. import __version__
from .layer_names import ModelFamily
from .weights import LoraWeights

ARCHITECTURES: dict[ModelFamily, str] = {
    "sd_v1": "stable-diffusion-v1",
    "sd_v2": "stable-diffusion-v2-512",
    "sdxl": "stable-diffusion-xl-v1-base",
    "sd3": "stable-diffusion-3",
    "flux1": "flux-1-dev",
}
IMPLEMENTATIONS: dict[ModelFamily, str] = {
    "sd_v1": "diffusers",
    "sd_v2": "diffusers",
    "sdxl": "https://github.com/Stability-AI/generative-models",
    "sd3": "diffusers",
    "flux1": "https://github.com/black-forest-labs/flux",
}
VERSIONS: dict[ModelFamily, str] = {
    "sd_v1": "sd_v1",
    "sd_v2": "sd_v2",
    "sdxl": "sdxl_base_v1-0",
    "sd3": "sd3",
    "flux1": "flux1",
}


class Description(TypedDict, total=False):
    """Metadata that a caller may add, see `describe`."""

    title: str
    base_name: str
    comment: str
    prediction_type: str
    resolution: str
    date: datetime | None


def describe(
    weights: LoraWeights,
    base: ModelFamily,
    name: str,
    *,
    title: str = "",
    base_name: str = "",
    comment: str = "",
    prediction_type: str = "",
    resolution: str = "",
    extra: Mapping[str, object] | None = None,
    date: datetime | None = None,
) -> dict[str, str]:
    """Compose the metadata of a LoRA, without the hashes: strings only, empty ones left out.

    Args:
        weights: as in the file, for rank and alpha.
        base: the model family.
        name: the file's name without its ending.
        title: shown to people; empty takes the name.
        base_name: file name of the base model.
        comment: a line for people.
        prediction_type: "epsilon" or "v".
        resolution: such as "512x512".
        extra: more metadata, each stored as `d3po_<key>`.
        date: of training; None takes the present.
    """
    ranks, alphas = {str(w.rank) for w in weights.values()}, {f"{w.alpha:g}" for w in weights.values()}
    architecture = ARCHITECTURES.get(base, "")
    if base == "sd_v2" and prediction_type == "v":
        architecture = "stable-diffusion-v2-768-v"
    metadata = {
        "ss_network_module": "networks.lora",
        "ss_network_dim": ranks.pop() if len(ranks) == 1 else "Dynamic",
        "ss_network_alpha": alphas.pop() if len(alphas) == 1 else "Dynamic",
        "ss_base_model_version": VERSIONS.get(base, ""),
        "ss_v2": str(base == "sd_v2"),
        "ss_output_name": name,
        "ss_sd_model_name": base_name,
        "ss_training_comment": comment,
        "modelspec.sai_model_spec": architecture and "1.0.0",
        "modelspec.architecture": architecture and f"{architecture}/lora",
        "modelspec.implementation": IMPLEMENTATIONS.get(base, ""),
        "modelspec.title": title or name,
        "modelspec.date": (date or datetime.now(timezone.utc)).isoformat(timespec="seconds"),
        "modelspec.prediction_type": prediction_type,
        "modelspec.resolution": resolution,
        "d3po_version": __version__,
        **{f"d3po_{key}": str(value) for key, value in (extra or {}).items()},
    }
    return {key: value for key, value in metadata.items() if value}


def hashes(tensors: dict[str, Tensor], metadata: dict[str, str]) -> dict[str, str]:
    """Compute the hashes that user interfaces index LoRAs by, as sd-scripts' `precalculate_safetensors_hashes` does.

    `sshs_model_hash` is the SHA-256 of the file without its header; `modelspec.hash_sha256` is the same hash.
    `sshs_legacy_hash` is A1111's old one: eight digits of the hash of 64 KiB at offset 1 MiB of a file whose header
    has only the `ss_*` keys.
    """
    from safetensors.torch import save

    content = save(tensors, {key: value for key, value in metadata.items() if key.startswith("ss_")})
    header = 8 + int.from_bytes(content[:8], "little")
    digest = hashlib.sha256(memoryview(content)[header:]).hexdigest()
    legacy = hashlib.sha256(content[0x100000:0x110000]).hexdigest()[:8]
    return {"sshs_model_hash": digest, "sshs_legacy_hash": legacy, "modelspec.hash_sha256": f"0x{digest}"}
