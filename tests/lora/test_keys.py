"""Names of layers in networks and in files: each against names written down by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from d3po_core.lora import LoraWeights, import_lora, model_family, save_lora
from d3po_core.lora.keys import from_file, to_file
from d3po_core.lora.layer_names import layer_names
from d3po_core.settings import LoraSettings
from tests.lora_networks import (
    NETWORKS,
    delta,
    load_with_diffusers,
    network_of,
    relative,
    same,
    tiny_flux,
    tiny_sd1,
    tiny_sd3,
    tiny_sdxl,
    trained,
    warnings_of_diffusers,
)

loader_warnings = pytest.fixture(warnings_of_diffusers)


def test_keys_of_each_family(tmp_path: Path) -> None:
    """Known keys of files by sd-scripts (SD1, SDXL) and by diffusers (SD3, Flux)."""
    known = {
        "sd_v1": "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q.lora_down.weight",
        "sdxl": "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_out_0.lora_up.weight",
        "sd3": "transformer.transformer_blocks.0.attn.add_q_proj.lora_A.weight",
        "flux1": "transformer.single_transformer_blocks.1.attn.to_k.lora_B.weight",
    }
    for family, key in known.items():
        network = NETWORKS[family]()
        tensors = load_file(save_lora(tmp_path / f"{family}.safetensors", trained(network), network))
        assert key in tensors
        assert {value.dtype for value in tensors.values()} == {torch.float32}
        alphas = {float(value) for name, value in tensors.items() if name.endswith(".alpha")}
        assert alphas == ({3.0} if key.startswith("lora_unet") else set())


def test_sdxl_names_on_the_real_layout(tmp_path: Path) -> None:
    """Original names on the real SDXL layout, from the model's published description: where transformers are and how
    deep, and which blocks change the resolution."""
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        network = UNet2DConditionModel(
            block_out_channels=(320, 640, 1280),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 2, 10),
            cross_attention_dim=2048,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=2816,
        )
    original = set(layer_names(network).original)
    depths = {"input_blocks.4": 2, "input_blocks.5": 2, "input_blocks.7": 10, "input_blocks.8": 10}
    depths |= {"output_blocks.0": 10, "output_blocks.1": 10, "output_blocks.2": 10}
    depths |= {"output_blocks.3": 2, "output_blocks.4": 2, "output_blocks.5": 2}
    expected = {f"{b}.1.transformer_blocks.{i}.attn2.to_k" for b, depth in depths.items() for i in range(depth)}
    expected |= {f"middle_block.1.transformer_blocks.{i}.attn2.to_k" for i in range(10)}
    assert {name for name in original if name.endswith("attn2.to_k")} == expected
    resnets = {f"input_blocks.{n}.0" for n in (1, 2, 4, 5, 7, 8)} | {f"output_blocks.{n}.0" for n in range(9)}
    assert {name[: -len(".in_layers.2")] for name in original if name.endswith(".in_layers.2")} == resnets | {
        "middle_block.0",
        "middle_block.2",
    }
    samplers = {"input_blocks.3.0.op", "input_blocks.6.0.op", "output_blocks.2.2.conv", "output_blocks.5.2.conv"}
    assert {name for name in original if name.endswith((".op", ".conv"))} == samplers
    assert original >= {"input_blocks.0.0", "out.2", "label_emb.0.2", "time_embed.0", "middle_block.2.emb_layers.1"}
    assert "output_blocks.6.0.skip_connection" in original and len(original) == len(layer_names(network).own)


# Original names of the tiny networks' blocks, by hand from the layout of CompVis' and Stability's UNets: a number for
# every residual block and every change of resolution, on the way down and on the way up.
SD1_BLOCKS = """
down_blocks.0.resnets.0 input_blocks.1.0    down_blocks.0.attentions.0 input_blocks.1.1
down_blocks.0.resnets.1 input_blocks.2.0    down_blocks.0.attentions.1 input_blocks.2.1
down_blocks.0.downsamplers.0.conv input_blocks.3.0.op
down_blocks.1.resnets.0 input_blocks.4.0    down_blocks.1.resnets.1 input_blocks.5.0
up_blocks.0.resnets.0 output_blocks.0.0     up_blocks.0.resnets.1 output_blocks.1.0
up_blocks.0.resnets.2 output_blocks.2.0     up_blocks.0.upsamplers.0.conv output_blocks.2.1.conv
up_blocks.1.resnets.0 output_blocks.3.0     up_blocks.1.attentions.0 output_blocks.3.1
up_blocks.1.resnets.1 output_blocks.4.0     up_blocks.1.attentions.1 output_blocks.4.1
up_blocks.1.resnets.2 output_blocks.5.0     up_blocks.1.attentions.2 output_blocks.5.1
"""
SDXL_BLOCKS = """
down_blocks.0.resnets.0 input_blocks.1.0    down_blocks.0.resnets.1 input_blocks.2.0
down_blocks.0.downsamplers.0.conv input_blocks.3.0.op
down_blocks.1.resnets.0 input_blocks.4.0    down_blocks.1.attentions.0 input_blocks.4.1
down_blocks.1.resnets.1 input_blocks.5.0    down_blocks.1.attentions.1 input_blocks.5.1
down_blocks.1.downsamplers.0.conv input_blocks.6.0.op
down_blocks.2.resnets.0 input_blocks.7.0    down_blocks.2.attentions.0 input_blocks.7.1
down_blocks.2.resnets.1 input_blocks.8.0    down_blocks.2.attentions.1 input_blocks.8.1
up_blocks.0.resnets.0 output_blocks.0.0     up_blocks.0.attentions.0 output_blocks.0.1
up_blocks.0.resnets.1 output_blocks.1.0     up_blocks.0.attentions.1 output_blocks.1.1
up_blocks.0.resnets.2 output_blocks.2.0     up_blocks.0.attentions.2 output_blocks.2.1
up_blocks.0.upsamplers.0.conv output_blocks.2.2.conv
up_blocks.1.resnets.0 output_blocks.3.0     up_blocks.1.attentions.0 output_blocks.3.1
up_blocks.1.resnets.1 output_blocks.4.0     up_blocks.1.attentions.1 output_blocks.4.1
up_blocks.1.resnets.2 output_blocks.5.0     up_blocks.1.attentions.2 output_blocks.5.1
up_blocks.1.upsamplers.0.conv output_blocks.5.2.conv
up_blocks.2.resnets.0 output_blocks.6.0     up_blocks.2.resnets.1 output_blocks.7.0
up_blocks.2.resnets.2 output_blocks.8.0
"""
BOTH_BLOCKS = """
mid_block.resnets.0 middle_block.0   mid_block.attentions.0 middle_block.1   mid_block.resnets.1 middle_block.2
conv_in input_blocks.0.0   conv_out out.2   time_embedding.linear_1 time_embed.0   time_embedding.linear_2 time_embed.2
add_embedding.linear_1 label_emb.0.0   add_embedding.linear_2 label_emb.0.2
"""
INSIDE = {"conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "conv2": "out_layers.3"}
INSIDE["conv_shortcut"] = "skip_connection"


def original_name(path: str, table: str) -> str:
    words = (table + BOTH_BLOCKS).split()
    for ours, theirs in zip(words[::2], words[1::2], strict=True):
        if path == ours or path.startswith(ours + "."):
            rest = path[len(ours) + 1 :]
            return ".".join(filter(None, (theirs, INSIDE.get(rest, rest))))
    raise AssertionError(path)


def original_network(network: nn.Module, table: str) -> tuple[nn.Module, dict[str, str]]:
    """This network's layers under their original names, and diffusers' name of each."""
    kinds = (nn.Linear, nn.Conv2d)
    by_path = {name: layer for name, layer in network.named_modules() if isinstance(layer, kinds)}
    renamed = {original_name(path, table): path for path in by_path}
    return network_of({name: by_path[path] for name, path in renamed.items()}), renamed


@pytest.mark.parametrize(("make", "table"), [(tiny_sd1, SD1_BLOCKS), (tiny_sdxl, SDXL_BLOCKS)])
def test_unets_with_original_names_write_and_read_the_same_files(make: Any, table: str, tmp_path: Path) -> None:
    network = make()
    host, renamed = original_network(make(), table)
    assert model_family(host) == model_family(network)
    assert layer_names(host).own == {name: (path,) for name, path in renamed.items()} == layer_names(network).original
    weights = trained(host, LoraSettings(rank=4, alpha=3.0, targets="all"))
    file = save_lora(tmp_path / "host.safetensors", weights, host)
    assert same(import_lora(file, host), weights)
    read = import_lora(file, network)
    assert len(weights) == len(read) and same(read, {renamed[path]: w for path, w in weights.items()})
    assert load_file(file).keys() == load_file(save_lora(tmp_path / "own.safetensors", read, network)).keys()


# The original transformers keep q, k and v (in Flux's single blocks the feed-forward's entrance too) in one layer.
QKV, ADDED = "attn.to_q attn.to_k attn.to_v", "attn.add_q_proj attn.add_k_proj attn.add_v_proj"
SD3_LAYERS = {
    "joint_blocks.{}.x_block.attn.qkv": QKV,
    "joint_blocks.{}.x_block.attn.proj": "attn.to_out.0",
    "joint_blocks.{}.x_block.attn2.qkv": "attn2.to_q attn2.to_k attn2.to_v",
    "joint_blocks.{}.x_block.attn2.proj": "attn2.to_out.0",
    "joint_blocks.{}.x_block.mlp.fc1": "ff.net.0.proj",
    "joint_blocks.{}.x_block.mlp.fc2": "ff.net.2",
    "joint_blocks.{}.context_block.attn.qkv": ADDED,
    "joint_blocks.{}.context_block.attn.proj": "attn.to_add_out",
    "joint_blocks.{}.context_block.mlp.fc1": "ff_context.net.0.proj",
    "joint_blocks.{}.context_block.mlp.fc2": "ff_context.net.2",
}
FLUX_LAYERS = {
    "double_blocks.{}.img_attn.qkv": QKV,
    "double_blocks.{}.img_attn.proj": "attn.to_out.0",
    "double_blocks.{}.img_mlp.0": "ff.net.0.proj",
    "double_blocks.{}.img_mlp.2": "ff.net.2",
    "double_blocks.{}.txt_attn.qkv": ADDED,
    "double_blocks.{}.txt_attn.proj": "attn.to_add_out",
    "double_blocks.{}.txt_mlp.0": "ff_context.net.0.proj",
    "double_blocks.{}.txt_mlp.2": "ff_context.net.2",
    "single_blocks.{}.linear1": f"{QKV} proj_mlp",
    "single_blocks.{}.linear2": "proj_out",
}


def original_transformer(network: nn.Module, table: dict[str, str]) -> tuple[nn.Module, dict[str, list[str]]]:
    """A network with original names and this one's sizes, and diffusers' names of what each of its layers holds."""
    linear = {path: layer for path, layer in network.named_modules() if isinstance(layer, nn.Linear)}
    holds, made = {}, {}
    for name, parts in table.items():
        blocks = "single_transformer_blocks" if name.startswith("single") else "transformer_blocks"
        for i in range(2):
            paths = [f"{blocks}.{i}.{part}" for part in parts.split()]
            if paths[0] in linear:
                holds[name.format(i)] = paths
                outputs = sum(linear[path].out_features for path in paths)
                made[name.format(i)] = nn.Linear(linear[paths[0]].in_features, outputs)
    if table is FLUX_LAYERS:  # which later models with blocks of the same names lack
        made |= {"txt_in": nn.Linear(8, 16), "vector_in.in_layer": nn.Linear(8, 16)}
    return network_of(made), holds


@pytest.mark.parametrize(("make", "table"), [(tiny_sd3, SD3_LAYERS), (tiny_flux, FLUX_LAYERS)])
def test_fused_layers_split_and_join(
    make: Any, table: dict[str, str], tmp_path: Path, loader_warnings: list[str]
) -> None:
    network = make()
    host, holds = original_transformer(network, table)
    assert model_family(host) == model_family(network)
    weights = trained(host, LoraSettings(rank=4, alpha=3.0, targets="attention+feedforward"))
    assert weights.keys() == holds.keys()
    file = save_lora(tmp_path / "host.safetensors", weights, host)
    split = import_lora(file, network)
    assert len(split) == sum(len(parts) for parts in holds.values())
    for name, parts in holds.items():
        assert relative(torch.cat([delta(split[part]) for part in parts]), delta(weights[name])) < 1e-6
    joined = import_lora(file, host)
    assert same(joined, weights) and all(w.rank == 4 for w in joined.values()), "a shared down stays shared"
    load_with_diffusers(network, file)
    assert loader_warnings == []


@pytest.mark.parametrize(("make", "table"), [(tiny_sd3, SD3_LAYERS), (tiny_flux, FLUX_LAYERS)])
def test_parts_with_a_down_each_are_joined_block_by_block(make: Any, table: dict[str, str], tmp_path: Path) -> None:
    network = make()
    host, holds = original_transformer(network, table)
    parts = trained(network, LoraSettings(rank=2, alpha=3.0))
    joined = import_lora(save_lora(tmp_path / "a.safetensors", parts, network), host)
    assert {part for name in joined for part in holds[name]} >= parts.keys()
    for name, w in joined.items():
        expected = [
            delta(parts[part]) if part in parts else torch.zeros(network.get_submodule(part).weight.shape)
            for part in holds[name]
        ]
        assert relative(delta(w), torch.cat(expected)) < 1e-6


@st.composite
def unet_layers(draw: st.DrawFn) -> dict[str, nn.Module]:
    """Layers of some UNet by diffusers' names: levels, layers per level, attention per level, transformer depth."""
    levels, depth = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    attends = draw(st.lists(st.booleans(), min_size=levels, max_size=levels))
    per_level = draw(st.integers(1, 3))
    paths = ["conv_in", "conv_out", "time_embedding.linear_1", "mid_block.resnets.0.conv1", "mid_block.resnets.1.conv2"]
    transformer = [f"transformer_blocks.{i}.attn{n}.to_out.0" for i in range(depth) for n in (1, 2)] + ["proj_in"]
    paths += [f"mid_block.attentions.0.{inner}" for inner in transformer]
    for side, number, sampler in (("down", per_level, "downsamplers"), ("up", per_level + 1, "upsamplers")):
        for x in range(levels):
            block = f"{side}_blocks.{x}"
            for i in range(number):
                paths += [f"{block}.resnets.{i}.{inner}" for inner in ("conv1", "conv2", "conv_shortcut")]
                if attends[x if side == "down" else levels - 1 - x]:
                    paths += [f"{block}.attentions.{i}.{inner}" for inner in transformer]
            if x < levels - 1:
                paths.append(f"{block}.{sampler}.0.conv")
    if draw(st.booleans()):
        paths.append("add_embedding.linear_1")
    return {path: nn.Linear(2, 3) if "to_out" in path else nn.Conv2d(2, 3, 1) for path in paths}


@settings(deadline=None, max_examples=40)
@given(unet_layers(), st.integers(1, 3), st.floats(0.1, 100))
def test_every_unets_names_go_both_ways(layers: dict[str, nn.Module], rank: int, alpha: float) -> None:
    network = network_of(layers)
    there = layer_names(network)
    assert sorted(parts[0] for parts in there.original.values()) == sorted(layers), "no name is lost or used twice"
    host = network_of({name: layers[parts[0]] for name, parts in there.original.items()})
    back = layer_names(host)
    assert back.own == back.original == there.original and back.base == there.base
    weights = trained(network, LoraSettings(rank=rank, alpha=alpha, targets="all"))
    tensors = to_file(weights, network)
    assert same(from_file(tensors, network, {}), weights)
    moved = from_file(tensors, host, {})
    assert same({there.original[name][0]: w for name, w in moved.items()}, weights)
    assert to_file(moved, host).keys() == tensors.keys()


def kohya(weights: LoraWeights, rename: Any = None) -> dict[str, Tensor]:
    """sd-scripts' keys, written here from its documentation and not with the code under test."""
    tensors = {}
    for path, w in weights.items():
        name = "lora_unet_" + (rename(path) if rename else path).replace(".", "_")
        tensors |= {f"{name}.lora_down.weight": w.down, f"{name}.lora_up.weight": w.up}
        tensors[f"{name}.alpha"] = torch.tensor(float(w.alpha))
    return tensors


FORMS = {
    "diffusers": ("unet.{}.lora_A.weight", "unet.{}.lora_B.weight"),
    "bare": ("{}.lora_A.weight", "{}.lora_B.weight"),
    "peft": ("base_model.model.{}.lora_A.weight", "base_model.model.{}.lora_B.weight"),
    "peft named": ("unet.base_model.model.{}.lora_A.default.weight", "unet.base_model.model.{}.lora_B.default.weight"),
    "diffusers 0.17": ("unet.{}.lora.down.weight", "unet.{}.lora.up.weight"),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("alphas", [False, True])
def test_diffusers_forms_are_read(form: str, alphas: bool, tmp_path: Path) -> None:
    network = tiny_sd1()
    weights = trained(network, LoraSettings(rank=4, alpha=2.0, targets="all"))
    down, up = FORMS[form]
    tensors = {down.format(path): w.down for path, w in weights.items()}
    tensors |= {up.format(path): w.up for path, w in weights.items()}
    if alphas:
        tensors |= {down.format(path).partition(".lora")[0] + ".alpha": torch.tensor(2.0) for path in weights}
    save_file(tensors, tmp_path / "a.safetensors")
    read = import_lora(tmp_path / "a.safetensors", network)
    assert all(w.alpha == (2.0 if alphas else 4.0) for w in read.values())
    assert all(read[path].down.equal(weights[path].down) and read[path].up.equal(weights[path].up) for path in weights)


def test_the_oldest_diffusers_form_is_read(tmp_path: Path) -> None:
    """`attn1.processor.to_q_lora.down.weight`, and to_out without its number."""
    network = tiny_sd1()
    weights = trained(network)
    tensors = {}
    for path, w in weights.items():
        block, _, name = path.removesuffix(".0").rpartition(".")
        tensors[f"unet.{block}.processor.{name}_lora.down.weight"] = w.down
        tensors[f"unet.{block}.processor.{name}_lora.up.weight"] = w.up
    save_file(tensors, tmp_path / "a.safetensors")
    read = import_lora(tmp_path / "a.safetensors", network)
    assert read.keys() == weights.keys() and all(read[path].up.equal(weights[path].up) for path in weights)


def test_kohya_files_are_read_whatever_rank_alpha_and_layer_shape(tmp_path: Path) -> None:
    network = tiny_sd1()
    weights = trained(network, LoraSettings(rank=4, alpha=1.0, targets="all"))
    proj = "mid_block.attentions.0.proj_in"
    assert weights[proj].down.dim() == 4
    tensors = kohya(weights)
    flat = "lora_unet_mid_block_attentions_0_proj_in"
    tensors |= {key: tensors[key].flatten(1) for key in (f"{flat}.lora_down.weight", f"{flat}.lora_up.weight")}
    del tensors[f"{flat}.alpha"]
    tensors[f"{flat}.lora_down.weight"] = torch.cat([tensors[f"{flat}.lora_down.weight"]] * 2)
    tensors[f"{flat}.lora_up.weight"] = torch.cat([tensors[f"{flat}.lora_up.weight"]] * 2, 1)
    save_file({key: value.half() for key, value in tensors.items()}, tmp_path / "a.safetensors")
    read = import_lora(tmp_path / "a.safetensors", network)
    assert read[proj].rank == 8 and read[proj].alpha == 8.0 and read[proj].down.shape == (8, 16, 1, 1)
    assert relative(delta(read.pop(proj)), 8 * delta(weights.pop(proj))) < 1e-2
    assert same(read, weights, 1e-2) and all(w.down.dtype == torch.float32 for w in read.values())


@pytest.mark.parametrize("original", [False, True])
def test_kohya_files_of_sdxl_are_read_with_both_namings(original: bool, tmp_path: Path) -> None:
    network = tiny_sdxl()
    weights = trained(network, LoraSettings(rank=4, alpha=1.0, targets="all"))
    tensors = kohya(weights, (lambda path: original_name(path, SDXL_BLOCKS)) if original else None)
    save_file(tensors, tmp_path / "a.safetensors")
    assert same(import_lora(tmp_path / "a.safetensors", network), weights)
