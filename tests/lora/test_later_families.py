"""LoRAs on later models, by the names of their layers alone: taken down from the networks that ComfyUI has for them.

Whether ComfyUI's loader really takes the files is tested in `tests/hosts/comfyui/test_later_models.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from d3po_core.errors import D3POError
from d3po_core.lora import attach, import_lora, load_lora, model_family, save_lora
from d3po_core.lora.targets import find_targets
from d3po_core.settings import LoraSettings
from tests.lora_networks import network_of, relative, same, trained

# For each model: what attention is, what the feed-forward is, and some of what is left out.
QWEN_ATTENTION = "transformer_blocks.0.attn: to_q to_k to_v add_q_proj add_k_proj add_v_proj to_out.0 to_add_out"
FLUX_ATTENTION = (
    "double_blocks.0.img_attn: qkv proj; double_blocks.0.txt_attn: qkv proj; single_blocks.0: linear1; "
    "single_blocks.1: linear1"
)
FLUX_FEEDFORWARD = (
    "double_blocks.0.img_mlp: 0 2; double_blocks.0.txt_mlp: 0 2; single_blocks.0: linear2; single_blocks.1: linear2"
)
MODELS = {
    "Flux.2": (
        FLUX_ATTENTION,
        FLUX_FEEDFORWARD,
        "double_stream_modulation_img.lin single_stream_modulation.lin img_in txt_in time_in.in_layer",
    ),
    "Chroma": (FLUX_ATTENTION, FLUX_FEEDFORWARD, "distilled_guidance_layer.layers.0.in_layer img_in txt_in"),
    "HunyuanImage": (
        FLUX_ATTENTION,
        FLUX_FEEDFORWARD,
        "txt_in.individual_token_refiner.blocks.0.self_attn.qkv txt_in.individual_token_refiner.blocks.0.mlp.0 "
        "vector_in.in_layer double_blocks.0.img_mod.lin",
    ),
    "Qwen-Image": (
        QWEN_ATTENTION,
        "transformer_blocks.0.img_mlp.net: 0.proj 2; transformer_blocks.0.txt_mlp.net: 0.proj 2",
        "transformer_blocks.0.img_mod.1 img_in txt_in proj_out norm_out.linear",
    ),
    "Z-Image": (
        "layers.0.attention: qkv out; noise_refiner.0.attention: qkv out; context_refiner.0.attention: qkv out",
        "layers.0.feed_forward: w1 w2 w3; noise_refiner.0.feed_forward: w1 w2 w3; context_refiner.0.feed_forward: w1",
        "layers.0.adaLN_modulation.0 x_embedder cap_embedder.1 t_embedder.mlp.0 final_layer.linear",
    ),
    "HiDream": (
        "double_stream_blocks.0.block.attn1: to_q to_out to_q_t to_out_t; single_stream_blocks.0.block.attn1: to_k",
        "double_stream_blocks.0.block.ff_i: experts.0.w1 shared_experts.w2; double_stream_blocks.0.block.ff_t: w3",
        "double_stream_blocks.0.block.adaLN_modulation.1 caption_projection.0.linear",
    ),
    "AuraFlow": (
        "double_layers.0.attn: w1q w2o; single_layers.0.attn: w1k",
        "double_layers.0.mlpC: c_fc1 c_proj; double_layers.0.mlpX: c_fc2; single_layers.0.mlp: c_fc1",
        "double_layers.0.modC.1 t_embedder.mlp.0 init_x_linear",
    ),
    "PixArt": (
        "blocks.0.attn: qkv proj; blocks.0.cross_attn: q_linear kv_linear proj",
        "blocks.0.mlp: fc1 fc2",
        "ar_embedder.mlp.0 y_embedder.y_proj.fc1 t_block.1",
    ),
    "OmniGen2": (
        "layers.0.attn: to_q to_out.0; ref_image_refiner.0.attn: to_v",
        "layers.0.feed_forward: linear_1 linear_2 linear_3",
        "layers.0.norm1.linear time_caption_embed.caption_embedder.1",
    ),
    "Boogu": (
        "double_stream_layers.0.img_instruct_attn.processor: img_to_q instruct_out; "
        "double_stream_layers.0.img_self_attn: to_q to_out.0",
        "double_stream_layers.0.img_feed_forward: linear_1; double_stream_layers.0.instruct_feed_forward: linear_2",
        "double_stream_layers.0.img_norm1.linear",
    ),
    "Anima": (
        "blocks.0.self_attn: q_proj output_proj; blocks.0.cross_attn: k_proj",
        "blocks.0.mlp: layer1 layer2",
        "llm_adapter.blocks.0.self_attn.q_proj llm_adapter.blocks.0.mlp.0 blocks.0.adaln_modulation_self_attn.1",
    ),
    "Wan": (
        "blocks.0.self_attn: q k v o; blocks.0.cross_attn: q o",
        "blocks.0.ffn: 0 2",
        "text_embedding.0 time_projection.1 head.head",
    ),
    "Krea 2": (
        "blocks.0.attn: wq wk wv wo gate",
        "blocks.0.mlp: gate up down",
        "txtfusion.refiner_blocks.0.attn.wq txtmlp.1 tmlp.0",
    ),
    "HiDream-O1": (
        "language_model.layers.0.self_attn: q_proj o_proj",
        "language_model.layers.0.mlp: gate_proj",
        "visual.blocks.0.attn.qkv x_embedder.proj1",
    ),
}


def paths(table: str) -> list[str]:
    blocks = [entry.split(":") for entry in table.split(";")]
    return [f"{block.strip()}.{layer}" for block, inside in blocks for layer in inside.split()]


def network(model: str, width: int = 8) -> nn.Module:
    attention, feedforward, rest = MODELS[model]
    names = [*paths(attention), *paths(feedforward), *rest.split()]
    return network_of({path: nn.Linear(width, 3 * width if "qkv" in path else width) for path in names})


@pytest.mark.parametrize("model", MODELS)
def test_what_a_lora_attaches_to(model: str) -> None:
    attention, feedforward, _ = MODELS[model]
    later = network(model)
    assert model_family(later) == "other"
    assert set(find_targets(later, "attention")) == set(paths(attention))
    both = {*paths(attention), *paths(feedforward)}
    assert set(find_targets(later, "attention+feedforward")) == both == set(find_targets(later, "all"))


@pytest.mark.parametrize("model", MODELS)
def test_the_file_has_the_hosts_names_and_comes_back(model: str, tmp_path: Path) -> None:
    later = network(model)
    weights = trained(later, LoraSettings(rank=4, alpha=2.0, targets="attention+feedforward"))
    file = save_lora(tmp_path / "later.safetensors", weights, later, base_name="later.safetensors")
    keys = {f"diffusion_model.{path}.lora_{half}.weight" for path in weights for half in "AB"}
    tensors, metadata = load_lora(file)
    assert tensors.keys() == keys, "and no alpha"
    for path, w in weights.items():
        down, up = (tensors[f"diffusion_model.{path}.lora_{half}.weight"] for half in "AB")
        assert relative(up @ down, 0.5 * w.up @ w.down) < 1e-6
    assert same(import_lora(file, later), weights)
    assert metadata["ss_network_alpha"] == "4" and metadata["ss_sd_model_name"] == "later.safetensors"
    unknown = {"ss_base_model_version", "modelspec.architecture", "modelspec.implementation"}
    assert not (unknown | {"modelspec.sai_model_spec"}) & metadata.keys(), "unknown values are left out"


def kohya(path: str) -> str:
    return "lora_unet_" + path.replace(".", "_")


FORMS: dict[str, Any] = {
    "kohya": (lambda path: kohya(path) + ".lora_down.weight", lambda path: kohya(path) + ".lora_up.weight"),
    "bare": ("{}.lora_A.weight".format, "{}.lora_B.weight".format),
    "diffusers": ("transformer.{}.lora_A.weight".format, "transformer.{}.lora_B.weight".format),
    "kohya's halves": ("diffusion_model.{}.lora_down.weight".format, "diffusion_model.{}.lora_up.weight".format),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("model", ["Qwen-Image", "Chroma", "Boogu"])
def test_other_trainers_files_are_read(model: str, form: str, tmp_path: Path) -> None:
    later, (down, up) = network(model), FORMS[form]
    weights = trained(later, LoraSettings(rank=4, alpha=4.0))
    tensors: dict[str, Tensor] = {}
    for path, w in weights.items():
        tensors |= {down(path): w.down, up(path): w.up}
    save_file(tensors, tmp_path / "a.safetensors")
    assert same(import_lora(tmp_path / "a.safetensors", later), weights)


def test_a_lora_of_another_model_is_refused(tmp_path: Path) -> None:
    qwen, chroma, wide = network("Qwen-Image"), network("Chroma"), network("Flux.2", 16)
    file = save_lora(tmp_path / "chroma.safetensors", trained(chroma), chroma)
    with pytest.raises(D3POError, match="do not exist in this model"):
        import_lora(file, qwen)
    with pytest.raises(D3POError, match="another base model"):
        import_lora(file, wide)


def test_flux1_files_keep_their_names_and_are_refused_by_later_models(tmp_path: Path) -> None:
    """Their blocks have the same names; Flux.1 is recognised by its text inputs."""
    attention, feedforward, _ = MODELS["Chroma"]
    marks = ["txt_in", "vector_in.in_layer"]
    sizes = {"qkv": 24, "linear1": 24 + 32}
    flux1 = network_of(
        {
            path: nn.Linear(8, sizes.get(path.rpartition(".")[2], 8))
            for path in [*paths(attention), *paths(feedforward), *marks]
        }
    )
    assert model_family(flux1) == "flux1"
    file = save_lora(tmp_path / "flux.safetensors", trained(flux1), flux1)
    assert "transformer.single_transformer_blocks.1.proj_mlp.lora_B.weight" in load_file(file)
    with pytest.raises(D3POError, match="do not exist in this model"):
        import_lora(file, network("Chroma"))


def test_diffusers_own_later_networks_are_refused(tmp_path: Path) -> None:
    """Their loaders would not take a host's names; and Qwen-Image's layers are called as SD3's are."""
    import diffusers

    if not hasattr(diffusers, "QwenImageTransformer2DModel"):
        pytest.skip("this diffusers does not have them: since 0.35")
    from diffusers import ChromaTransformer2DModel, QwenImageTransformer2DModel

    with torch.device("meta"):
        later = [
            QwenImageTransformer2DModel(num_layers=1, attention_head_dim=16, num_attention_heads=2),
            ChromaTransformer2DModel(num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2),
        ]
    for transformer in later:
        weights = trained(transformer)
        with pytest.raises(D3POError, match="no known model family"):
            save_lora(tmp_path / "a.safetensors", weights, transformer)
    assert not list(tmp_path.iterdir())


def test_a_network_without_attention_is_refused() -> None:
    plain = network_of({"blocks.0.q": nn.Linear(8, 8), "blocks.0.norm1.linear": nn.Linear(8, 8)})
    with pytest.raises(D3POError, match="no known model family"):
        model_family(plain)
    with pytest.raises(D3POError, match="No layer of this Module is known to be 'attention'"):
        attach(plain, LoraSettings(targets="attention"), kind="hooks")


class AddsInPlace(nn.Module):
    """Like Flux's blocks in ComfyUI: adds in place to the input of a norm, which the backward pass needs."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.attn = nn.LayerNorm(8, elementwise_affine=False), nn.Module()
        self.attn.proj = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        x += self.attn.get_submodule("proj")(self.norm(x))
        return x


def test_gradients_pass_blocks_that_add_in_place() -> None:
    """Against the same blocks that do not."""
    torch.manual_seed(0)
    blocks = nn.ModuleList([AddsInPlace() for _ in range(3)])
    root = nn.Module()
    root.blocks = blocks
    lora = attach(root, LoraSettings(rank=2, alpha=2.0), kind="hooks")
    for parameter in lora.parameters()[1::2]:
        parameter.data.normal_()
    x = torch.randn(2, 5, 8)

    def gradient(through: Any) -> list[Tensor]:
        y = x.clone()
        for block in blocks:
            y = through(block, y)
        return list(torch.autograd.grad(y.square().sum(), lora.parameters()))

    def apart(block: Any, y: Tensor) -> Tensor:
        return y + block.attn.proj(block.norm(y))

    for ours, theirs in zip(gradient(lambda block, y: block(y)), gradient(apart), strict=True):
        assert relative(ours, theirs) < 1e-6
    lora.remove()
    assert not any(module._forward_pre_hooks for module in root.modules())
