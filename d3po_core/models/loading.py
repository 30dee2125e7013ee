"""Loading a model from disk: a diffusers pipeline folder, or a single .safetensors checkpoint.

Only safetensors and JSON are read. What is wrong with the files is reported before anything large is loaded, as far as
file names and headers show it.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from ..embedded import GARDEN, GARDEN_FOLDER
from ..errors import D3POError
from ..textfiles import decode
from .architectures import ARCHITECTURES, Pipeline
from .checkpoints import kind_of, read_header, scheduler_settings
from .model import DiffusersModel
from .placement import devices_of, place

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
WEIGHTED = ("unet", "transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3")
"""Parts of a pipeline that have weights."""
UNUSED = ("safety_checker", "feature_extractor", "image_encoder")
"""Parts of a pipeline that drawing from a prompt does not need."""
ABSENT = [None, None]
"""Entry in a pipeline's index for a part that it does not have."""
VARIANT = re.compile(r"\.(\w+?)(?:-\d+-of-\d+)?\.safetensors$")
"""The variant in a file's name: model.fp16.safetensors, diffusion_pytorch_model.non_ema-00001-of-00002.safetensors."""
VARIANTS = ("fp16", "bf16", "non_ema")
"""Variants that are taken before others."""
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
        device: such as "cuda:1"; None takes the GPU if there is one. Several, separated by commas, share the network's
            layers.

    Raises:
        D3POError: the model is missing, damaged, not in safetensors, or of an unknown kind; there is no such device.
    """
    if dtype not in DTYPES:
        raise D3POError(f"dtype is '{dtype}'.", f"Choose one of {', '.join(DTYPES)}.")
    devices = devices_of(device)
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
    return DiffusersModel(place(pipeline, devices))


def check_base_config(folder: str) -> None:
    """Check that a folder is a pipeline's, as far as its index shows it.

    Raises:
        D3POError: it isn't.
    """
    _read_index(Path(os.path.expanduser(folder)))


def _from_folder(folder: Path, dtype: torch.dtype) -> Pipeline:
    index = _read_index(folder)
    kind = _pipeline_class(folder, index)
    weighted = [name for name in WEIGHTED if name in index and index[name] != ABSENT]
    variants = {_check_weights(folder / name) for name in weighted} - {None}
    if len(variants) > 1:
        raise D3POError(
            f"The parts of '{folder}' are of different variants: {', '.join(sorted(map(str, variants)))}.",
            "Get the model anew, all parts of one.",
        )
    options = _left_out(kind, index) | ({"variant": variants.pop()} if variants else {})
    try:
        return kind.from_pretrained(
            str(folder), use_safetensors=True, local_files_only=True, **_dtype_option(dtype), **options
        )
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # diffusers and transformers raise errors of many kinds on bad files
        raise D3POError(f"'{folder}' could not be loaded: {_reason(error)}", "Get the model anew.") from error


def _from_file(file: Path, base_config: Path | None, dtype: torch.dtype) -> Pipeline:
    import diffusers

    if file.suffix.lower() != ".safetensors":
        raise D3POError(
            f"'{file.name}' is not a .safetensors file; other formats can run code when they are opened.",
            "Convert it to .safetensors, or get it in that format.",
        )
    header = read_header(file)
    kind, asked = getattr(diffusers, kind_of(file.name, header)), scheduler_settings(file.name, header)
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
    if "text_encoder_3" in index and not any(".t5xxl." in key for key in header.keys):
        # SD3 works without its T5, and is often shared without it.
        index |= {"text_encoder_3": ABSENT, "tokenizer_3": ABSENT}
    config = {} if base_config is None else {"config": str(base_config), "local_files_only": True}
    try:
        with _in_small_letters(file) as path:
            pipeline = kind.from_single_file(str(path), **_dtype_option(dtype), **config, **_left_out(kind, index))
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
    config = pipeline.scheduler.config
    if changes := {name: value for name, value in asked.items() if config.get(name) != value}:
        own = type(pipeline.scheduler)
        obeys = changes.keys() <= inspect.signature(own.__init__).parameters.keys()
        pipeline.scheduler = (own if obeys else diffusers.DDIMScheduler).from_config(config, **changes)
    return pipeline


@contextmanager
def _in_small_letters(file: Path) -> Iterator[Path]:
    """Give a file a path that ends in .safetensors: what ends in .SAFETENSORS diffusers would open as a pickle."""
    if file.suffix == ".safetensors":
        yield file
        return
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"{file.stem}.safetensors"
        try:
            path.symlink_to(file.resolve())
        except OSError:  # Windows lets only some people do so
            shutil.copyfile(file, path)
        yield path


def _read_index(folder: Path) -> Index:
    index = folder / "model_index.json"
    if not index.is_file():
        raise D3POError(
            f"'{folder}' is not a diffusers pipeline folder: it has no model_index.json.",
            "Give such a folder, or a .safetensors checkpoint itself.",
        )
    try:
        return json.loads(decode(index.read_bytes()))
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


def _dtype_option(dtype: torch.dtype) -> dict[str, torch.dtype]:
    """Return a dtype under the name by which this diffusers takes it: one does not know the other's, and ignores it."""
    import diffusers

    older = tuple(map(int, diffusers.__version__.split(".")[:2])) < (0, 40)
    return {"torch_dtype" if older else "dtype": dtype}


def _check_weights(folder: Path) -> str | None:
    """Return the variant of a part's weights to load, such as "fp16" where there is no other; None for the usual one.

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
        read_header(file)
    found = {match[1] for file in files if (match := VARIANT.search(file.name))}
    usual = [file for file in files if not VARIANT.search(file.name)]
    return None if usual else min(found, key=lambda each: (each not in VARIANTS, each))


def _reason(error: Exception) -> str:
    """Put an error of diffusers or transformers into one line."""
    if isinstance(error, NotImplementedError):  # torch raises it for parameters without values
        return "some weights are missing."
    return (str(error).strip() or type(error).__name__).splitlines()[0]
