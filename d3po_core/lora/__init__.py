"""LoRA: what is trained, how it attaches to a network, and its files.

    weights      a LoRA's values apart from any network, and an attached LoRA: `Lora`
    targets      which layers a LoRA attaches to, and its initial values
    attachment   attaches a LoRA in one of two ways: by PEFT, or by forward hooks for modules that a host owns
    peft         attachment by PEFT, for diffusers modules
    layer_names  diffusers' and original names of a network's layers, and its family
    keys         keys of LoRA files, written and read
    file         LoRA files and their metadata, written and read

Nothing here depends on what a LoRA is trained on.
"""

from __future__ import annotations

from .attachment import attach
from .file import import_lora, load_lora, save_lora, unused_path, write_new
from .layer_names import model_family
from .weights import LayerWeights, Lora, LoraWeights

__all__ = [
    "LayerWeights",
    "Lora",
    "LoraWeights",
    "attach",
    "import_lora",
    "load_lora",
    "model_family",
    "save_lora",
    "unused_path",
    "write_new",
]
