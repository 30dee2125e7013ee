"""Models without values: from names, folders and headers of checkpoints; and what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from d3po_core.embedded import GARDEN_FOLDER
from d3po_core.errors import D3POError
from d3po_core.models import load_model
from d3po_core.planning.counting import META, module_bytes
from d3po_core.planning.loaded import without_values
from d3po_core.planning.networks import (
    NAMES,
    blank_conditioning,
    configuration_of,
    parts,
    unloaded_model,
    weight_bytes,
)

PUBLISHED = {"sd15": 859_520_964, "sdxl": 2_567_463_684, "sd35-medium": 2_243_171_520, "flux-dev": 11_901_408_320}
"""Parameters of each network, as published (of SD3.5-M without its table of places)."""


@pytest.mark.parametrize("name", NAMES)
def test_known_models_have_their_published_size_and_no_values(name: str) -> None:
    model = unloaded_model(name, dtype="bfloat16")
    network = model.denoiser.module
    assert sum(parameter.numel() for parameter in network.parameters()) == PUBLISHED[name]
    for part in parts(model.pipeline).values():
        assert {value.device for value in [*part.parameters(), *part.buffers()]} == {META}
    assert next(network.parameters()).dtype == torch.bfloat16 and model.pipeline.vae.dtype == torch.float32
    assert weight_bytes(model)["vae"] == 4 * sum(p.numel() for p in model.pipeline.vae.parameters())


@pytest.mark.skipif(not (GARDEN_FOLDER / "unet").exists(), reason="the embedded model is not there")
def test_a_folder_is_as_large_as_it_is_when_loaded() -> None:
    model, loaded = unloaded_model("garden"), load_model("garden", device="cpu")
    assert weight_bytes(model) == {name: module_bytes(part) for name, part in parts(loaded.pipeline).items()}
    encoded = loaded.encode(["a red tulip by day"])[0]
    shapes = {name: (value.shape, value.dtype) for name, value in encoded.items()}
    assert shapes == {name: (value.shape, value.dtype) for name, value in blank_conditioning(model).items()}


@pytest.mark.skipif(not (GARDEN_FOLDER / "unet").exists(), reason="the embedded model is not there")
def test_a_loaded_model_is_as_before_after_its_weights_stood_aside() -> None:
    model = load_model("garden", device="cpu")
    before = {name: (id(value), value.clone()) for name, value in model.denoiser.module.named_parameters()}
    with without_values(model):
        assert model.denoiser.device == META
    for name, value in model.denoiser.module.named_parameters():
        assert id(value) == before[name][0] and torch.equal(value, before[name][1])


def checkpoint(path: Path, numbers: int) -> Path:
    """Write a checkpoint of Stable Diffusion's kind whose network has this many parameters: a header, and a hole."""
    shapes = {
        "model.diffusion_model.input_blocks.0.0.weight": [320, 4, 3, 3],
        "model.diffusion_model.others": [numbers - 320 * 4 * 9],
        "first_stage_model.weight": [1],
        "cond_stage_model.weight": [1],
    }
    header, at = {}, 0
    for name, shape in shapes.items():
        end = at + 2 * torch.Size(shape).numel()
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + at)
    return path


def test_a_checkpoint_is_known_by_its_size(tmp_path: Path) -> None:
    known = checkpoint(tmp_path / "mine.safetensors", PUBLISHED["sd15"])
    assert configuration_of(str(known)) == configuration_of("sd15")
    other = checkpoint(tmp_path / "other.safetensors", 700_000_000)
    with pytest.raises(D3POError, match=r"of 0\.70 billion parameters, and the configuration of such a one"):
        configuration_of(str(other))
    assert configuration_of(str(other), str(GARDEN_FOLDER)) == configuration_of("garden")


def test_bad_models_are_refused_in_a_sentence(tmp_path: Path) -> None:
    index = tmp_path / "model_index.json"
    (tmp_path / "weights.ckpt").write_text("")
    cases = {
        "nowhere": "There is no model 'nowhere'",
        str(tmp_path): "is not a diffusers pipeline folder",
        str(tmp_path / "weights.ckpt"): "is not a .safetensors file",
    }
    for source, message in cases.items():
        with pytest.raises(D3POError, match=message):
            unloaded_model(source)
    index.write_text("{")
    with pytest.raises(D3POError, match="is damaged"):
        unloaded_model(str(tmp_path))
    index.write_text('{"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"]}')
    with pytest.raises(D3POError, match="lacks the configuration of its unet"):
        unloaded_model(str(tmp_path))
    with pytest.raises(D3POError, match="dtype is 'int8'"):
        unloaded_model("sd15", dtype="int8")
