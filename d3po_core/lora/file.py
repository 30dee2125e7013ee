"""LoRA files: safetensors that diffusers, ComfyUI, A1111 and Forge load.

Values are stored in float32: the file is small anyway, and a loaded LoRA then predicts as the trained one did. Float16
costs about 3e-4 of what the LoRA changes, measured as 2e-5 of a prediction that it changes by 8% and 1e-4 of one that
it changes by 40%.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..errors import D3POError
from .keys import from_file, is_lora_key, one_alpha, to_file
from .layer_names import model_family
from .metadata import Description, describe, hashes
from .weights import LoraWeights

if TYPE_CHECKING:
    from typing_extensions import Unpack  # in typing since Python 3.11

PARTIAL_SUFFIX = ".part"
"""Ending of the names of files that are still being written."""
MAX_NAME_BYTES = 150
"""Longest stem of a file's name; systems allow 255, of which endings and temporary names need some."""
ABANDONED_SECONDS = 600.0
"""Age from which a partial file counts as abandoned."""


def save_lora(
    path: Path | str,
    weights: LoraWeights,
    module: nn.Module,
    *,
    dtype: torch.dtype = torch.float32,
    extra: Mapping[str, object] | None = None,
    **description: Unpack[Description],
) -> Path:
    """Write a LoRA file atomically, under a name that is still free (see `unused_path`): hosts cache LoRAs by name.

    Args:
        path: ends in .safetensors.
        weights: by the network's own paths.
        module: the network, which decides the form of the keys.
        dtype: float32, or float16 for half the size.
        extra: more metadata, each stored as `d3po_<key>`.
        description: the metadata that `Description` lists.

    Returns:
        The path.

    Raises:
        D3POError: the name is taken, the folder cannot be written, or the network is of no known family.
    """
    from safetensors.torch import save

    path = Path(path)
    base = model_family(module)
    tensors = to_file(weights, module)
    tensors = {key: value if key.endswith(".alpha") else value.to(dtype) for key, value in tensors.items()}
    metadata = describe(one_alpha(weights, base), base, path.stem, extra=extra, **description)
    content = save(tensors, {"format": "pt", **metadata, **hashes(tensors, metadata)})
    write_new(path, content)
    return path


def write_new(path: Path, content: bytes) -> None:
    """Write a file atomically under a name that is still free; remove what killed writers left in the folder.

    Raises:
        D3POError: the name is taken, or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{PARTIAL_SUFFIX}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path.parent)
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        _publish(temporary, path)
    except OSError as error:
        raise D3POError(
            f"The LoRA could not be written to {path.parent}: {error.strerror or error}.",
            "Free some space or choose another folder, then export again.",
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def _remove_abandoned(folder: Path) -> None:
    """Remove what killed writers left in a folder. Younger files may be another process's, still writing."""
    for path in folder.glob(f".*.safetensors.*{PARTIAL_SUFFIX}"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > ABANDONED_SECONDS:
                path.unlink()


def _publish(temporary: Path, path: Path) -> None:
    """Give the finished file its name, by a link: unlike a rename it refuses a taken name on every system."""
    try:
        os.link(temporary, path)
        return
    except FileExistsError:
        taken = True
    except OSError:  # a file system without links
        taken = path.exists()
    if taken:
        raise D3POError(f"There is a file called {path.name} already.", "Choose another name.")
    os.rename(temporary, path)


def unused_path(folder: Path | str, stem: str, taken: Collection[str] = ()) -> Path:
    """Choose a path for a new LoRA file: the stem, or the stem with the first number that is free.

    Characters that are not allowed in file names or `<lora:...>` tags become dashes.

    Args:
        folder: of the file; it need not exist.
        stem: the preferred name, without its ending.
        taken: stems that are not free although no such file is in the folder.
    """
    reserved = {name.casefold() for name in taken}  # many file systems ignore case
    stem = re.sub(r"[^\w.-]+", "-", stem).strip(".-") or "lora"
    stem = stem.encode()[:MAX_NAME_BYTES].decode(errors="ignore") if len(stem.encode()) > MAX_NAME_BYTES else stem
    path, number = Path(folder) / f"{stem}.safetensors", 1
    while path.exists() or path.stem.casefold() in reserved:
        number += 1
        path = path.with_name(f"{stem}-{number}.safetensors")
    return path


def load_lora(path: Path | str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a LoRA file's tensors, unconverted, and its metadata.

    Raises:
        D3POError: the file is missing, damaged, not a safetensors file, or not a LoRA.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise D3POError(f"There is no LoRA file {path}.", "Check the name.")
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        raise D3POError(
            f"{path.name} is damaged or no safetensors file ({error}).",
            "Use another copy of it; other formats are not read.",
        ) from error
    if not any(is_lora_key(key) for key in tensors):
        raise D3POError(f"{path.name} is not a LoRA.", "Choose a LoRA file, not a checkpoint or an embedding.")
    return tensors, metadata


def import_lora(path: Path | str, module: nn.Module, *, skip_text_encoder: bool = False) -> LoraWeights:
    """Read a LoRA file for a network, to continue its training or as a reference.

    Args:
        path: the file, in any form that `keys` reads.
        module: the network.
        skip_text_encoder: leave out layers of text encoders, instead of refusing the file.

    Returns:
        Weights by the network's paths, float32.

    Raises:
        D3POError: as in `load_lora`; the file is not a plain LoRA, or was made for another base model.
    """
    tensors, metadata = load_lora(path)
    return from_file(tensors, module, metadata, skip_text_encoder)


def policy_id(path: Path) -> str:
    """Compute the id of the policy that a LoRA file makes: 16 hexadecimal digits of the file's SHA-256."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
