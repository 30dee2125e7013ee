"""Loading a model from disk: a diffusers pipeline folder, or a single .safetensors checkpoint.

Only safetensors and JSON are read. What is wrong with the files is reported before anything large is loaded, as far as
file names and headers show it.
"""

from __future__ import annotations

import inspect
import json
import os
from pathlib import Path

import torch

from ..embedded import GARDEN, GARDEN_FOLDER
from ..errors import D3POError
from .architectures import ARCHITECTURES, Pipeline
from .model import DiffusersModel

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
WEIGHTED = ("unet", "transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3")
"""Parts of a pipeline that have weights."""
UNUSED = ("safety_checker", "feature_extractor", "image_encoder")
"""Parts of a pipeline that drawing from a prompt does not need."""
ABSENT = [None, None]
"""Entry in a pipeline's index for a part that it does not have."""
Index = dict[str, object]
"""A pipeline's model_index.json: its class, and the class of each of its parts."""


def load_model(
    path: str | Path, *, base_config: str | Path | None = None, dtype: str = "float32", device: str | None = None
) -> DiffusersModel:
    """Load a model.

    Args:
        path: a pipeline folder, a .safetensors checkpoint, or "garden" for the embedded model.
        base_config: for a checkpoint, a pipeline folder of the same kind with configuration and tokenizer (its weights
            are not used). Without it diffusers asks the Hugging Face hub for the standard ones.
        dtype: of network and text encoders, "float32", "float16" or "bfloat16". The VAE is always float32.
        device: such as "cuda:1"; None takes the GPU if there is one.

    Raises:
        D3POError: the model is missing, damaged, not in safetensors, or of an unknown kind.
    """
    if dtype not in DTYPES:
        raise D3POError(f"dtype is '{dtype}'.", f"Choose one of {', '.join(DTYPES)}.")
    source = GARDEN_FOLDER if str(path) == GARDEN else Path(os.path.expanduser(path))
    if not source.exists():
        raise D3POError(f"There is no model at '{source}'.", "Give a pipeline folder or a .safetensors checkpoint.")
    if source.is_dir():
        pipeline = _from_folder(source, DTYPES[dtype])
    else:
        pipeline = _from_file(source, Path(os.path.expanduser(base_config)) if base_config else None, DTYPES[dtype])
    for name, part in pipeline.components.items():
        if isinstance(part, torch.nn.Module) and any(parameter.is_meta for parameter in part.parameters()):
            raise D3POError(f"'{source}' lacks some weights of its {name}.", "Get the model anew.")
    return DiffusersModel(pipeline.to(device or _default_device()))


def _default_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _from_folder(folder: Path, dtype: torch.dtype) -> Pipeline:
    index = _read_index(folder)
    kind = _pipeline_class(folder, index)
    weighted = [name for name in WEIGHTED if name in index and index[name] != ABSENT]
    variants = {_check_weights(folder / name) for name in weighted}
    options = _left_out(kind, index) | ({"variant": "fp16"} if "fp16" in variants else {})
    try:
        return kind.from_pretrained(str(folder), dtype=dtype, use_safetensors=True, local_files_only=True, **options)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # diffusers and transformers raise errors of many kinds on bad files
        raise D3POError(f"'{folder}' could not be loaded: {_reason(error)}", "Get the model anew.") from error


def _from_file(file: Path, base_config: Path | None, dtype: torch.dtype) -> Pipeline:
    import diffusers

    if file.suffix != ".safetensors":
        raise D3POError(
            f"'{file.name}' is not a .safetensors file; other formats can run code when they are opened.",
            "Convert it to .safetensors, or get it in that format.",
        )
    keys = _keys(file)
    kind = getattr(diffusers, _kind_of_checkpoint(file, keys))
    index: Index = {}
    if base_config is not None:
        index = _read_index(base_config)
        expected = _pipeline_class(base_config, index)
        if expected is not kind:
            raise D3POError(
                f"'{file.name}' is a {ARCHITECTURES[kind.__name__].label} checkpoint, but '{base_config}' is a "
                f"{ARCHITECTURES[expected.__name__].label} pipeline.",
                "Give a base configuration of the same kind.",
            )
    if "text_encoder_3" in index and not any(".t5xxl." in key for key in keys):
        # SD3 works without its T5, and is often shared without it.
        index |= {"text_encoder_3": ABSENT, "tokenizer_3": ABSENT}
    config = {} if base_config is None else {"config": str(base_config), "local_files_only": True}
    try:
        return kind.from_single_file(str(file), dtype=dtype, **config, **_left_out(kind, index))
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # diffusers, transformers and the hub's client raise errors of many kinds
        if base_config is None:
            raise D3POError(
                f"The configuration for '{file.name}' is not on this machine and could not be downloaded.",
                "Give a pipeline folder of the same kind as base configuration.",
            ) from error
        raise D3POError(
            f"'{file.name}' could not be loaded with the configuration in '{base_config}': {_reason(error)}",
            "Give the base configuration of the model that it was made from.",
        ) from error


def _read_index(folder: Path) -> Index:
    index = folder / "model_index.json"
    if not index.is_file():
        raise D3POError(
            f"'{folder}' is not a diffusers pipeline folder: it has no model_index.json.",
            "Give such a folder, or a .safetensors checkpoint itself.",
        )
    try:
        return json.loads(index.read_text(encoding="utf-8"))
    except ValueError as error:
        raise D3POError(f"'{index}' is damaged.", "Get the model anew.") from error


def _pipeline_class(folder: Path, index: Index) -> type[Pipeline]:
    import diffusers

    name = str(index.get("_class_name"))
    if name not in ARCHITECTURES:
        raise D3POError(
            f"'{folder}' is a {name}, which is not supported.", f"Supported are {', '.join(ARCHITECTURES)}."
        )
    return getattr(diffusers, name)


def _left_out(kind: type[Pipeline], index: Index) -> dict[str, object]:
    """Return arguments that keep parts that are unneeded or absent from being loaded or required."""
    known = inspect.signature(kind.__init__).parameters
    options: dict[str, object] = {name: None for name in known if name in UNUSED or index.get(name) == ABSENT}
    return {**options, "requires_safety_checker": False} if "requires_safety_checker" in known else options


def _check_weights(folder: Path) -> str | None:
    """Return the variant of a part's weights to load: "fp16" if there is no other, else None.

    Raises:
        D3POError: the weights are missing, damaged, or in pickle files only.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        if any(file.suffix in (".bin", ".ckpt", ".pt", ".pth") for file in folder.glob("*")):
            raise D3POError(
                f"The weights in '{folder}' are not in .safetensors; other formats can run code when they are opened.",
                "Convert them, or get the model in that format.",
            )
        raise D3POError(f"There are no weights in '{folder}'.", "Get the model anew.")
    for file in files:
        _keys(file)
    return None if any(".fp16." not in file.name for file in files) else "fp16"


def _kind_of_checkpoint(file: Path, keys: list[str]) -> str:
    """Name the pipeline class that a checkpoint's keys belong to."""
    if any("lora_" in key for key in keys):
        raise D3POError(f"'{file.name}' is a LoRA, not a model.", "Give the model that it was made for.")
    for name, architecture in ARCHITECTURES.items():
        if architecture.mark is not None and any(architecture.mark in key for key in keys):
            return name
    raise D3POError(f"'{file.name}' is not a model of a known kind.", "Give a whole checkpoint, or a pipeline folder.")


def _keys(file: Path) -> list[str]:
    """Name a file's tensors, from its header; check the file's length against it."""
    from safetensors import safe_open

    try:
        with safe_open(file, "pt") as tensors:
            return list(tensors.keys())
    except Exception as error:  # safetensors has its own error class, and raises OSError too
        raise D3POError(f"'{file}' is damaged or incomplete.", "Get the file anew.") from error


def _reason(error: Exception) -> str:
    """Put an error of diffusers or transformers into one line."""
    if isinstance(error, NotImplementedError):  # torch raises it for parameters without values
        return "some weights are missing."
    return (str(error).strip() or type(error).__name__).splitlines()[0]
