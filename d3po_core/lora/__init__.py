"""LoRA: what is trained, how it attaches to a network, and the files it lives in."""

from __future__ import annotations

from .attaching import attach
from .file import import_lora, load_lora, save_lora, unused_path, write_new
from .interface import Lora
from .naming import Base, base_model
from .weights import LayerWeights, LoraWeights

__all__ = [
    "Base",
    "LayerWeights",
    "Lora",
    "LoraWeights",
    "attach",
    "base_model",
    "import_lora",
    "load_lora",
    "save_lora",
    "unused_path",
    "write_new",
]
