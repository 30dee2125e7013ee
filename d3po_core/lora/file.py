"""LoRA files: safetensors that diffusers, ComfyUI, A1111 and Forge load.

Values are stored in float32: the file is small anyway, and a loaded LoRA then predicts as the trained one did. Float16
costs about 3e-4 of what the LoRA changes, measured as 2e-5 of a prediction that it changes by 8% and 1e-4 of one that
it changes by 40%.

Metadata are sd-scripts' `ss_*` and `sshs_*` keys, Stability's `modelspec.*`, and our `d3po_*`. A1111 and Forge
recognise the base model by `ss_base_model_version`, `ss_v2` and `modelspec.architecture` (Forge recognises Flux by
`modelspec.implementation`), show `ss_output_name` as the LoRA's name, and index it by `sshs_model_hash`. A later family
has no registered architecture, so its files leave out the keys of the specification that need one. Prompts, people's
names and paths are never included unless a caller passes them.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor, nn

from .. import __version__
from ..errors import D3POError
from ..names import file_stem
from ..textfiles import read_text
from .keys import ADAPTER_METADATA, from_file, is_lora_key, one_alpha, to_file
from .layer_names import ModelFamily, model_family
from .weights import LoraWeights

if TYPE_CHECKING:
    from safetensors import safe_open

PARTIAL_SUFFIX = ".part"
"""Ending of the names of files that are still being written."""
ADAPTER_FILE, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
"""Names in a folder that PEFT writes."""
MAX_NAME_BYTES = 150
"""Longest stem of a file's name; systems allow 255, of which endings and temporary names need some."""
ABANDONED_SECONDS = 600.0
"""Age from which a partial file counts as abandoned."""


def save_lora(
    path: Path | str,
    weights: LoraWeights,
    module: nn.Module,
    *,
    base_name: str = "",
    prediction_type: str = "",
    extra: Mapping[str, object] | None = None,
) -> Path:
    """Write a LoRA file atomically, under a name that is still free (see `unused_path`): hosts cache LoRAs by name.

    Args:
        path: ends in .safetensors.
        weights: by the network's own paths.
        module: the network, which decides the form of the keys.
        base_name: file name of the base model, for the metadata.
        prediction_type: "epsilon", "v" or "", for the metadata.
        extra: more metadata, each stored as `d3po_<key>`.

    Returns:
        The path.

    Raises:
        D3POError: the name is taken, the folder cannot be written, or the network is of no known family.
    """
    from safetensors.torch import save

    path, base, tensors = Path(path), model_family(module), to_file(weights, module)
    metadata = _metadata(one_alpha(weights, base), base, path.stem, base_name, prediction_type)
    metadata |= {f"d3po_{key}": str(value) for key, value in (extra or {}).items()}
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
    stem = file_stem(stem, "lora", MAX_NAME_BYTES)
    path, number = Path(folder) / f"{stem}.safetensors", 1
    while path.exists() or path.stem.casefold() in reserved:
        number += 1
        path = path.with_name(f"{stem}-{number}.safetensors")
    return path


def load_lora(path: Path | str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a LoRA file's tensors, unconverted, and its metadata.

    PEFT writes alpha into a file of its own beside them, which is read as if it were metadata.

    Raises:
        D3POError: the file is missing, damaged, not a safetensors file, or not a LoRA.
    """
    path = Path(path)
    with _opened(path) as file:
        # Cloned: a mapped file that is cut later takes the whole process with it.
        tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
        metadata = file.metadata() or {}
    beside = path.with_name(ADAPTER_CONFIG)
    if path.name == ADAPTER_FILE and beside.is_file() and ADAPTER_METADATA not in metadata:
        metadata = {**metadata, ADAPTER_METADATA: read_text(beside)}
    return tensors, metadata


def lora_metadata(path: Path) -> dict[str, str]:
    """Read a LoRA file's metadata, without its tensors.

    Raises:
        D3POError: the file is missing, cut, not a safetensors file, or not a LoRA.
    """
    with _opened(path) as file:
        return file.metadata() or {}


@contextmanager
def _opened(path: Path) -> Iterator[safe_open]:
    """Open a LoRA file, its header read; see `load_lora` for what is raised."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise D3POError(f"There is no LoRA file {path}.", "Check the name.")
    try:
        with safe_open(path, framework="pt") as file:
            if not any(is_lora_key(key) for key in file.keys()):  # noqa: SIM118
                raise D3POError(f"{path.name} is not a LoRA.", "Choose a LoRA file, not a checkpoint or an embedding.")
            yield file
    except (SafetensorError, OSError, ValueError) as error:
        raise D3POError(
            f"{path.name} is damaged or no safetensors file ({error}).",
            "Use another copy of it; other formats are not read.",
        ) from error


def import_lora(path: Path | str, module: nn.Module) -> LoraWeights:
    """Read a LoRA file, in any form that `keys` reads, as weights by the network's paths, float32.

    Raises:
        D3POError: as in `load_lora`; the file is not a plain LoRA, or was made for another base model.
    """
    tensors, metadata = load_lora(path)
    return from_file(tensors, module, metadata)


FAMILIES: dict[ModelFamily, tuple[str, str, str]] = {
    "sd_v1": ("sd_v1", "stable-diffusion-v1", "diffusers"),
    "sd_v2": ("sd_v2", "stable-diffusion-v2-512", "diffusers"),
    "sdxl": ("sdxl_base_v1-0", "stable-diffusion-xl-v1-base", "https://github.com/Stability-AI/generative-models"),
    "sd3": ("sd3", "stable-diffusion-3", "diffusers"),
    "flux1": ("flux1", "flux-1-dev", "https://github.com/black-forest-labs/flux"),
}
"""`ss_base_model_version`, and architecture and implementation as `modelspec` names them."""


def _metadata(
    weights: LoraWeights, base: ModelFamily, name: str, base_name: str, prediction_type: str
) -> dict[str, str]:
    """Compose the metadata of a LoRA, without the hashes; empty ones are left out.

    Args:
        weights: as in the file, for rank and alpha.
        base: the model family.
        name: the file's name without its ending.
        base_name, prediction_type: as for `save_lora`.
    """
    ranks, alphas = {str(w.rank) for w in weights.values()}, {f"{w.alpha:g}" for w in weights.values()}
    version, architecture, implementation = FAMILIES.get(base, ("", "", ""))
    if base == "sd_v2" and prediction_type == "v":
        architecture = "stable-diffusion-v2-768-v"
    metadata = {
        "ss_network_module": "networks.lora",
        "ss_network_dim": ranks.pop() if len(ranks) == 1 else "Dynamic",
        "ss_network_alpha": alphas.pop() if len(alphas) == 1 else "Dynamic",
        "ss_base_model_version": version,
        "ss_v2": str(base == "sd_v2"),
        "ss_output_name": name,
        "ss_sd_model_name": base_name,
        "modelspec.sai_model_spec": architecture and "1.0.0",
        "modelspec.architecture": architecture and f"{architecture}/lora",
        "modelspec.implementation": implementation,
        "modelspec.title": name,
        "modelspec.date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "modelspec.prediction_type": prediction_type,
        "d3po_version": __version__,
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
