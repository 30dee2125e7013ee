"""Models without values: pipelines on the meta device, from their configuration alone, in a second and without memory.

A name is that of a configuration in this package; a folder has its own; a checkpoint's is that of the known model with
as many parameters in its network as the file's header lists. Of files nothing but JSON and headers is read.
"""

from __future__ import annotations

import inspect
import json
import math
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..diffusion.denoiser import Conditioning
from ..embedded import GARDEN, GARDEN_FOLDER
from ..errors import D3POError
from ..models.architectures import ARCHITECTURES, Network, Pipeline
from ..models.checkpoints import NETWORKS, kind_of, read_header
from ..models.loading import ABSENT, DTYPES, WEIGHTED
from ..models.model import DiffusersModel
from ..textfiles import decode
from .counting import META, module_bytes

FOLDER = Path(__file__).parent / "configurations"
NAMES = {"sd15": "SD1.5", "sdxl": "SDXL", "sd35-medium": "SD3.5-M", "flux-dev": "Flux-dev"}
"""Known models: the name on the command line, and on screen."""
CLIP_TOKENS = 77
"""Of a text, where CLIP alone reads it; a smaller one reads fewer."""
Configuration = dict[str, dict[str, Any]]
"""model_index.json, as "model_index", and the configuration of every part by its name."""


def unloaded_model(source: str, base_config: str | None = None, dtype: str = "float32") -> DiffusersModel:
    """Return a model without values, as `load_model` would load it.

    Args:
        source: a name in `NAMES`, "garden", a pipeline folder or a .safetensors checkpoint.
        base_config: a pipeline folder with a checkpoint's configuration.
        dtype: of network and text encoders.

    Raises:
        D3POError: there is no such model, or its configuration is damaged, unsupported or unknown.
    """
    if dtype not in DTYPES:
        raise D3POError(f"dtype is '{dtype}'.", f"Choose one of {', '.join(DTYPES)}.")
    configuration = configuration_of(source, base_config)
    try:
        return DiffusersModel(pipeline_of(configuration, DTYPES[dtype]))
    except D3POError:
        raise
    except Exception as error:  # diffusers and transformers raise errors of many kinds on bad configurations
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise D3POError(f"The configuration of '{source}' cannot be used: {reason}", "Get the model anew.") from error


def configuration_of(source: str, base_config: str | None = None) -> Configuration:
    """Return a model's configuration; see `unloaded_model`."""
    if source in NAMES:
        return _known(source)
    path = GARDEN_FOLDER if source == GARDEN else Path(os.path.expanduser(source))
    if not path.exists():
        raise D3POError(
            f"There is no model '{source}'.",
            f"Name one of {', '.join(NAMES)}, {GARDEN}, a pipeline folder or a .safetensors checkpoint.",
        )
    if path.is_dir():
        return _of_folder(path)
    if path.suffix.lower() != ".safetensors":
        raise D3POError(f"'{path.name}' is not a .safetensors file.", "Name one, or a pipeline folder.")
    if base_config:
        return _of_folder(Path(os.path.expanduser(base_config)))
    return _of_checkpoint(path)


def blank_conditioning(model: DiffusersModel) -> Conditioning:
    """Return conditioning of one row without values, as `DiffusersModel.encode` gives it."""
    config, pipeline = model.denoiser.module.config, model.pipeline
    width = config.get("cross_attention_dim") or config.get("joint_attention_dim")
    width = width[-1] if isinstance(width, list | tuple) else width
    encoder = next((part for name, part in parts(pipeline).items() if name.startswith("text_encoder")), None)
    tokens = model.architecture.tokens
    if encoder is not None and tokens == CLIP_TOKENS:
        tokens = getattr(encoder.config, "max_position_embeddings", tokens)
    rows = {"prompt_embeds": torch.empty(1, tokens, width, device=META)}
    pooled = config.get("pooled_projection_dim")
    if config.get("addition_embed_type") == "text_time":
        pooled = config["projection_class_embeddings_input_dim"] - 6 * config["addition_time_embed_dim"]
    if pooled:
        rows["pooled_prompt_embeds"] = torch.empty(1, pooled, device=META)
    rows = {name: value.to(encoder.dtype if encoder is not None else value.dtype) for name, value in rows.items()}
    return rows | {f"negative_{name}": torch.empty_like(value) for name, value in rows.items()}


def parts(pipeline: Pipeline) -> dict[str, Network]:
    """Return the parts of a pipeline that have weights, by name."""
    components = {name: getattr(pipeline, name, None) for name in WEIGHTED}
    return {name: part for name, part in components.items() if isinstance(part, nn.Module)}


def weight_bytes(model: DiffusersModel) -> dict[str, int]:
    """Return the bytes of the weights of each part."""
    return {name: module_bytes(part) for name, part in parts(model.pipeline).items()}


def _known(name: str) -> Configuration:
    configuration: Configuration = json.loads((FOLDER / f"{name}.json").read_text("utf-8"))
    return configuration


def _of_folder(folder: Path) -> Configuration:
    index = _read(folder / "model_index.json", "is not a diffusers pipeline folder")
    configuration = {"model_index": index}
    for name in (*WEIGHTED, "scheduler"):
        if index.get(name, ABSENT) != ABSENT:
            file = "scheduler_config.json" if name == "scheduler" else "config.json"
            configuration[name] = _read(folder / name / file, f"lacks the configuration of its {name}")
    return configuration


def _read(file: Path, otherwise: str) -> dict[str, Any]:
    if not file.is_file():
        folder = file.parent if file.name == "model_index.json" else file.parent.parent
        raise D3POError(f"'{folder}' {otherwise}.", "Name a whole pipeline folder, or a .safetensors checkpoint.")
    try:
        content = json.loads(decode(file.read_bytes()))
    except ValueError as error:
        raise D3POError(f"'{file}' is damaged.", "Get the model anew.") from error
    if not isinstance(content, dict):
        raise D3POError(f"'{file}' is damaged.", "Get the model anew.")
    return content


def _of_checkpoint(file: Path) -> Configuration:
    """Return the configuration of the known model with as many parameters in its network as a checkpoint's.

    Raises:
        D3POError: the file is damaged or no whole checkpoint, or no known model is of its size.
    """
    kind = kind_of(file.name, read_header(file))
    size = _network_size(file)
    for name in NAMES:
        configuration = _known(name)
        if configuration["model_index"]["_class_name"] == kind and _size_of(configuration) == size:
            return configuration
    raise D3POError(
        f"'{file.name}' is a {ARCHITECTURES[kind].label} checkpoint of {size / 1e9:.2f} billion parameters, and "
        "the configuration of such a one is not known here.",
        "Name a pipeline folder of the same kind with --base-config.",
    )


def _network_size(file: Path) -> int:
    """Count the parameters of the network in a checkpoint by its header."""
    from safetensors import safe_open

    with safe_open(file, "pt") as tensors:
        keys = [key for key in tensors.keys() if key.startswith(NETWORKS)]  # noqa: SIM118
        return sum(math.prod(tensors.get_slice(key).get_shape()) for key in keys)


def _size_of(configuration: Configuration) -> int:
    module = _part(configuration, next(name for name in ("unet", "transformer") if name in configuration))
    return sum(value.numel() for value in module.state_dict().values())


def pipeline_of(configuration: Configuration, dtype: torch.dtype, device: torch.device = META) -> Pipeline:
    """Make a pipeline without tokenizers and whatever else has no weights.

    Args:
        configuration: of all its parts.
        dtype: of network and text encoders.
        device: where its parts are; they have no values, or random ones.
    """
    import diffusers

    index = configuration["model_index"]
    name = str(index.get("_class_name"))
    if name not in ARCHITECTURES:
        raise D3POError(f"A {name} is not supported.", f"Supported are {', '.join(ARCHITECTURES)}.")
    kind = getattr(diffusers, name)
    made: dict[str, Any] = {
        part: _part(configuration, part, dtype, device) for part in WEIGHTED if part in configuration
    }
    scheduler = getattr(diffusers, index["scheduler"][1])
    made["scheduler"] = scheduler.from_config(configuration["scheduler"])
    known = inspect.signature(kind.__init__).parameters
    options = {key: index[key] for key in ("force_zeros_for_empty_prompt",) if key in index and key in known}
    if "requires_safety_checker" in known:
        options["requires_safety_checker"] = False
    absent = {
        key: None
        for key, value in known.items()
        if key not in (*made, "self") and value.default is inspect.Parameter.empty
    }
    return kind(**made, **absent, **options)


def _part(
    configuration: Configuration, name: str, dtype: torch.dtype = torch.float32, device: torch.device = META
) -> nn.Module:
    """Make one part of a pipeline, of a dtype; what its class keeps in float32 stays so."""
    library, class_name = configuration["model_index"][name]
    if library not in ("diffusers", "transformers"):
        raise D3POError(f"Its {name} is of {library}, which is not supported.", "Use another model.")
    kind: Any = getattr(__import__(library), class_name)
    with device:
        if library == "diffusers":
            part = kind.from_config(configuration[name])
        else:
            part = kind(kind.config_class.from_dict(configuration[name]))
    if name != "vae":  # which always computes in float32
        nn.Module.to(part, dtype)  # diffusers' own warns of what is seen to below
    if dtype == torch.float16:
        for kept in getattr(part, "_keep_in_fp32_modules", None) or ():
            for path, module in part.named_modules():
                if kept in path.split("."):
                    module.float()
    return part
