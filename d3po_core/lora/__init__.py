"""LoRA: what is trained, how it attaches to a network, and the files it lives in."""

from __future__ import annotations

from .attach import attach
from .file import import_lora, load_lora, save_lora, unused_path, write_new
from .interface import Lora
from .layer_names import ModelFamily, model_family
from .weights import LayerWeights, LoraWeights

__all__ = [
    "LayerWeights",
    "Lora",
    "LoraWeights",
    "ModelFamily",
    "attach",
    "import_lora",
    "load_lora",
    "model_family",
    "save_lora",
    "unused_path",
    "write_new",
]
