"""What the LoRA tests share: tiny networks of every family with one input each, networks made of names alone, and
diffusers' own loader."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from d3po_core.lora import LayerWeights, Lora, LoraWeights, attach, model_family
from d3po_core.settings import LoraSettings

UNET = {"sample_size": 8, "in_channels": 4, "out_channels": 4, "norm_num_groups": 4, "cross_attention_dim": 8}


def tiny_sd1(**changes: Any) -> nn.Module:
    from diffusers import UNet2DConditionModel

    config = {
        **UNET,
        "block_out_channels": (8, 16),
        "layers_per_block": 2,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "attention_head_dim": 4,
    }
    torch.manual_seed(0)
    return UNet2DConditionModel(**{**config, **changes}).eval()


def tiny_sdxl() -> nn.Module:
    return tiny_sd1(
        block_out_channels=(8, 16, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 1, 2),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=32,
    )


def tiny_sd3() -> nn.Module:
    from diffusers import SD3Transformer2DModel

    torch.manual_seed(0)
    return SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=8,
        caption_projection_dim=16,
        pooled_projection_dim=8,
        out_channels=4,
        pos_embed_max_size=8,
        dual_attention_layers=(0,),
    ).eval()


def tiny_flux() -> nn.Module:
    from diffusers import FluxTransformer2DModel

    torch.manual_seed(0)
    return FluxTransformer2DModel(
        patch_size=1,
        in_channels=4,
        num_layers=1,
        num_single_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=8,
        pooled_projection_dim=8,
        axes_dims_rope=(2, 2, 4),
    ).eval()


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "sd_v1": tiny_sd1,
    "sdxl": tiny_sdxl,
    "sd3": tiny_sd3,
    "flux1": tiny_flux,
}


def predict(network: nn.Module, dtype: torch.dtype = torch.float32) -> Tensor:
    """The network's output on its one input."""
    g = torch.Generator().manual_seed(1)

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=g).to(dtype)

    kind = type(network).__name__
    if kind == "FluxTransformer2DModel":
        arguments: dict[str, Any] = {
            "hidden_states": noise(2, 6, 4),
            "encoder_hidden_states": noise(2, 3, 8),
            "pooled_projections": noise(2, 8),
            "timestep": torch.tensor([0.3, 0.9]),
            "img_ids": torch.arange(18).reshape(6, 3) % 3,
            "txt_ids": torch.zeros(3, 3),
        }
    elif kind == "SD3Transformer2DModel":
        arguments = {
            "hidden_states": noise(2, 4, 8, 8),
            "encoder_hidden_states": noise(2, 3, 8),
            "pooled_projections": noise(2, 8),
            "timestep": torch.tensor([300, 900]),
        }
    else:
        arguments = {
            "sample": noise(2, 4, 8, 8),
            "encoder_hidden_states": noise(2, 3, 8),
            "timestep": torch.tensor([300, 900]),
            "added_cond_kwargs": {"text_embeds": noise(2, 8), "time_ids": noise(2, 6)},
        }
    output = network(**arguments, return_dict=False)[0]
    assert isinstance(output, Tensor)
    return output


def filled(weights: LoraWeights, size: float = 0.1, seed: int = 2) -> LoraWeights:
    """The LoRA with random `up`, so that it does something."""
    g = torch.Generator().manual_seed(seed)
    return {k: LayerWeights(w.down, size * torch.randn(w.up.shape, generator=g), w.alpha) for k, w in weights.items()}


def fill(lora: Lora, size: float = 0.1, seed: int = 2) -> None:
    lora.load(filled(lora.weights(), size, seed))


def delta(w: LayerWeights) -> Tensor:
    """What a LoRA adds to a layer's weight, computed plainly, in float64."""
    return w.alpha / w.rank * w.up.flatten(1).double() @ w.down.flatten(1).double()


def relative(a: Tensor, b: Tensor) -> float:
    return float(((a - b).norm() / b.norm()).detach())


def network_of(found: dict[str, nn.Module]) -> nn.Module:
    """A network that has these layers at these paths, and no forward."""
    root = nn.Module()
    for path, layer in found.items():
        *blocks, name = path.split(".")
        place = root
        for block in blocks:
            if block not in place._modules:
                place.add_module(block, nn.Module())
            place = place.get_submodule(block)
        place.add_module(name, layer)
    return root


def snapshot(network: nn.Module) -> object:
    """Everything about a network that a LoRA could leave a trace in."""
    return (
        [
            (name, id(m), type(m), len(m._forward_hooks), len(m._forward_pre_hooks))
            for name, m in network.named_modules()
        ],
        [(name, id(p), p.requires_grad, p._version) for name, p in network.named_parameters()],
        list(network.state_dict()),
        sorted(network.__dict__),
    )


def trained(network: nn.Module, settings: LoraSettings | None = None) -> LoraWeights:
    """A LoRA that does something, no longer attached; rank 4 and alpha 3 unless the settings say otherwise."""
    lora = attach(network, settings or LoraSettings(rank=4, alpha=3.0), kind="hooks")
    lora.remove()
    return filled(lora.weights())


def active_adapters(network: nn.Module) -> set[str]:
    """The names of the adapters that are on, as PEFT's own layers have them."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return {name for m in network.modules() if isinstance(m, BaseTunerLayer) for name in m.active_adapters}


def same(a: LoraWeights, b: LoraWeights, tolerance: float = 1e-6) -> bool:
    """Whether two LoRAs do the same to every layer."""
    return a.keys() == b.keys() and all(relative(delta(a[k]), delta(b[k])) < tolerance for k in a)


def to_load(file: Path) -> dict[str, str]:
    """Arguments of diffusers' loaders that name a file. Offline, older ones want its folder and its name apart."""
    return {"pretrained_model_name_or_path_or_dict": str(file.parent), "weight_name": file.name}


def load_with_diffusers(network: nn.Module, file: Path) -> None:
    """What `pipe.load_lora_weights(file)` does to the pipeline's network."""
    from diffusers import loaders

    base = model_family(network)
    if base in ("sd_v1", "sdxl"):
        mixin: Any = (
            loaders.StableDiffusionXLLoraLoaderMixin if base == "sdxl" else loaders.StableDiffusionLoraLoaderMixin
        )
        config = {"unet_config": network.config} if base == "sdxl" else {}
        tensors, alphas = mixin.lora_state_dict(**to_load(file), **config)
        mixin.load_lora_into_unet(tensors, alphas, network)
    elif base == "sd3":
        tensors = loaders.SD3LoraLoaderMixin.lora_state_dict(**to_load(file))
        assert all("lora" in key for key in tensors), "diffusers refuses the file otherwise"
        loaders.SD3LoraLoaderMixin.load_lora_into_transformer(tensors, network)
    else:
        tensors, alphas = loaders.FluxLoraLoaderMixin.lora_state_dict(**to_load(file), return_alphas=True)
        loaders.FluxLoraLoaderMixin.load_lora_into_transformer(tensors, alphas, network)


def warnings_of_diffusers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A fixture: whatever diffusers' loaders warn of."""
    from diffusers.utils import logging

    messages: list[str] = []
    for module in ("peft", "lora_base", "lora_pipeline", "lora_conversion_utils"):
        logger = logging.get_logger(f"diffusers.loaders.{module}")
        monkeypatch.setattr(logger, "warning", lambda message, *_, **__: messages.append(message))
    yield messages
