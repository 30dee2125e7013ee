"""LoRA by PEFT, for diffusers modules, on top of the LoRAs that the pipeline has loaded already.

PEFT's own switches (`set_adapter`, `disable_adapters`) also change which parameters require gradients, and set one list
of active adapters for all layers. Here each layer's list is set directly: the adapters that were active before stay
active, and ours is added and removed.
"""

from __future__ import annotations

import re
import warnings
from typing import Any

import torch
from torch import nn

from ..errors import D3POError
from .targets import layers
from .weights import LayerWeights, Lora, LoraWeights

TRAINED = "d3po"
REFERENCE = "d3po_reference"
"""Names of our two adapters in PEFT's layers."""
PeftLayer = Any
"""A layer that PEFT has wrapped (`BaseTunerLayer`), with its adapters by name."""


class PeftLora(Lora):
    """See `Lora`."""

    def __init__(self, module: nn.Module, weights: LoraWeights, reference: LoraWeights) -> None:
        self._wrapper = _wrapper_class()
        super().__init__(module)
        self._had_config = hasattr(module, "peft_config")
        self._before = {p: (layer._disable_adapters, list(layer.active_adapters)) for p, layer in self._wrapped()}
        self._check_free()
        self._layers: dict[str, PeftLayer] = {}
        try:
            self._trained = self._inject(TRAINED, weights)
            if reference:
                self._inject(REFERENCE, reference)
        except BaseException:
            self.remove()
            raise
        self._restore_others()
        module.requires_grad_(False)
        for parameter in self.parameters():
            parameter.requires_grad_(True)
        self._apply()

    def _wrapped(self) -> list[tuple[str, PeftLayer]]:
        """List the layers that PEFT has wrapped, with their paths."""
        return [(path, m) for path, m in self._module.named_modules() if isinstance(m, self._wrapper)]

    def _check_free(self) -> None:
        if TRAINED in getattr(self._module, "peft_config", {}):
            raise D3POError("A LoRA is being trained on this model already.", "Remove it first.")
        if any(layer.merged for _, layer in self._wrapped()):
            raise D3POError(
                "A LoRA is fused into this model, which cannot take another one.", "Call unfuse_lora() on the pipeline."
            )

    def _inject(self, name: str, weights: LoraWeights) -> LoraWeights:
        """Add an adapter with these weights, and return its parameters by path.

        PEFT makes all layers with one rank and no memory for values; then the real parameters, whose ranks may differ,
        replace them.
        """
        from peft import LoraConfig, inject_adapter_in_model

        paths = "|".join(re.escape(path) for path in weights)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Already found a `peft_config` attribute")
            inject_adapter_in_model(LoraConfig(target_modules=paths), self._module, name, low_cpu_mem_usage=True)
        known = layers(self._module)
        adapter: LoraWeights = {}
        for path, w in weights.items():
            layer: PeftLayer = self._module.get_submodule(path)
            device = known[path].weight.device
            down, up = (nn.Parameter(t.detach().to(device, torch.float32, copy=True)) for t in (w.down, w.up))
            layer.lora_A[name].weight, layer.lora_B[name].weight = down, up
            layer.r[name], layer.lora_alpha[name], layer.scaling[name] = w.rank, w.alpha, w.alpha / w.rank
            self._layers[path], adapter[path] = layer, LayerWeights(down, up, w.alpha)
        return adapter

    def _apply(self) -> None:
        ours = {"policy": [TRAINED], "reference": [REFERENCE], "off": []}[self._mode]
        for path, layer in self._layers.items():
            disabled, active = self._before.get(path, (False, []))
            layer._disable_adapters = False
            layer._active_adapter = ([] if disabled else active) + ours
        for path, weights in self._trained.items():
            self._layers[path].scaling[TRAINED] = weights.alpha / weights.rank * self._strength

    def _detach(self) -> None:
        self._restore_others()
        for path, layer in self._wrapped():
            if path in self._before:
                layer.delete_adapter(TRAINED)
                layer.delete_adapter(REFERENCE)
            else:
                parent, _, child = path.rpartition(".")
                setattr(self._module.get_submodule(parent), child, layer.base_layer)
        config: dict[str, object] = getattr(self._module, "peft_config", {})
        for name in (TRAINED, REFERENCE):
            config.pop(name, None)
        if not self._had_config and hasattr(self._module, "peft_config"):
            del self._module.peft_config

    def _restore_others(self) -> None:
        """Restore which adapters are active in the layers that PEFT had wrapped before."""
        for path, (disabled, active) in self._before.items():
            layer: PeftLayer = self._module.get_submodule(path)
            layer._disable_adapters, layer._active_adapter = disabled, list(active)


def _wrapper_class() -> type:
    try:
        from peft.tuners.tuners_utils import BaseTunerLayer
    except ImportError as error:
        raise D3POError("The package peft is missing.", "Install it: pip install peft") from error
    return BaseTunerLayer
