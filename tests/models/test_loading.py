"""Models from disk: pipeline folders and single-file checkpoints, whole and broken, without a network."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler
from safetensors.torch import load_file, save_file

from d3po_core.diffusion.denoiser import stack
from d3po_core.errors import D3POError
from d3po_core.models import DiffusersModel, load_model, loading
from tests.ldm_layout import ldm_state_dict, sd3_state_dict, sdxl_state_dict
from tests.tiny_pipelines import tiny_sd, tiny_sd3, tiny_sdxl


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "sd"
    tiny_sd().save_pretrained(path)
    return path


@pytest.fixture
def broken(folder: Path, tmp_path: Path) -> Path:
    """A copy of the folder to break."""
    return Path(shutil.copytree(folder, tmp_path / "sd"))


def same_weights(one: Any, two: Any) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_a_folder(folder: Path):
    model, pipe = load_model(folder, device="cpu"), tiny_sd()
    for part in ("unet", "vae", "text_encoder"):
        assert same_weights(getattr(model.pipeline, part).state_dict(), getattr(pipe, part).state_dict()), part
    assert stack(model.encode(["a flower"]))["prompt_embeds"].shape == (1, 77, 16)
    assert load_model(str(folder), dtype="bfloat16").denoiser.module.dtype == torch.bfloat16


def test_the_embedded_model_has_a_name(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(loading, "GARDEN_FOLDER", folder)
    assert load_model("garden").identity == load_model(folder).identity


@pytest.mark.parametrize("make", [tiny_sdxl, tiny_sd3])
def test_folders_of_other_kinds(make: Any, tmp_path: Path):
    pipe = make()
    pipe.save_pretrained(tmp_path)
    model = load_model(tmp_path)
    x, conditioning = torch.ones(1, *model.latent_shape()), stack(model.encode(["a flower"]))
    with torch.no_grad():
        assert model.denoiser(x, torch.ones(1), conditioning, 2.0).guided.isfinite().all()
    assert same_weights(
        model.denoiser.module.state_dict(), (getattr(pipe, "unet", None) or pipe.transformer).state_dict()
    )


def test_a_folder_with_half_precision_files_only(tmp_path: Path):
    tiny_sd().to(torch.float16).save_pretrained(tmp_path, variant="fp16")
    assert load_model(tmp_path).denoiser.module.dtype == torch.float32


@pytest.mark.parametrize(
    ("make", "layout", "parts"),
    [
        (tiny_sd, ldm_state_dict, ("unet", "vae", "text_encoder")),
        (tiny_sdxl, sdxl_state_dict, ("unet", "vae", "text_encoder", "text_encoder_2")),
        (tiny_sd3, sd3_state_dict, ("transformer", "vae", "text_encoder_2")),
        (lambda seed=0: tiny_sd3(seed, t5=True), sd3_state_dict, ("transformer", "vae", "text_encoder_2")),
    ],
    ids=["sd", "sdxl", "sd3", "sd3 without its T5"],
)
def test_a_single_file(make: Any, layout: Any, parts: tuple[str, ...], tmp_path: Path):
    pipe, file = make(seed=5), tmp_path / "model.safetensors"
    save_file(layout(pipe), file)
    make().save_pretrained(tmp_path / "base")
    model = load_model(file, base_config=tmp_path / "base")
    for part in parts:
        assert same_weights(getattr(model.pipeline, part).state_dict(), getattr(pipe, part).state_dict()), part
    assert model.identity == DiffusersModel(pipe).identity != load_model(tmp_path / "base").identity
    assert torch.equal(model.denoiser.sigmas(5, "model"), DiffusersModel(pipe).denoiser.sigmas(5, "model"))
    assert stack(model.encode(["a flower"]))["prompt_embeds"].isfinite().all()
    half = load_model(file, base_config=tmp_path / "base", dtype="bfloat16")
    assert half.denoiser.module.dtype == torch.bfloat16


def test_a_single_file_without_its_configuration(tmp_path: Path):
    file = tmp_path / "model.safetensors"
    save_file(ldm_state_dict(tiny_sd()), file)
    with pytest.raises(D3POError, match="Give a pipeline folder of the same kind as base configuration"):
        load_model(file)


def test_a_single_file_with_the_configuration_of_another_kind(tmp_path: Path, folder: Path):
    file = tmp_path / "model.safetensors"
    save_file(ldm_state_dict(tiny_sd()), file)
    tiny_sdxl().save_pretrained(tmp_path / "xl")
    with pytest.raises(D3POError, match=r"a Stable Diffusion checkpoint, but .* is a SDXL pipeline"):
        load_model(file, base_config=tmp_path / "xl")
    config = tmp_path / "other" / "unet" / "config.json"
    shutil.copytree(folder, tmp_path / "other")
    config.write_text(config.read_text().replace('"cross_attention_dim": 16', '"cross_attention_dim": 24'))
    with pytest.raises(D3POError, match="could not be loaded with the configuration in"):
        load_model(file, base_config=tmp_path / "other")
    with pytest.raises(D3POError, match=r"no model_index\.json"):
        load_model(file, base_config=tmp_path)


@pytest.mark.parametrize(
    ("lacking", "message"),
    [
        ("cond_stage", "lacks its text encoder"),
        ("first_stage", "lacks its VAE"),
        (("first_stage", "cond_stage"), "holds only the image network"),
        ("model.diffusion_model.out.2", "some weights are missing|lacks some weights of its unet"),
        ("cond_stage_model.transformer.text_model.final", "lacks some weights of its text_encoder"),
    ],
)
def test_a_single_file_that_lacks_parts(lacking: str | tuple[str, ...], message: str, tmp_path: Path, folder: Path):
    file = tmp_path / "model.safetensors"
    weights = ldm_state_dict(tiny_sd())
    save_file({name: value for name, value in weights.items() if not name.startswith(lacking)}, file)
    with pytest.raises(D3POError, match=message):
        load_model(file, base_config=folder)


def test_files_that_are_no_checkpoint(tmp_path: Path, folder: Path):
    save_file({"lora_unet_x.lora_down.weight": torch.zeros(2, 2)}, tmp_path / "lora.safetensors")
    with pytest.raises(D3POError, match="is a LoRA, not a model"):
        load_model(tmp_path / "lora.safetensors", base_config=folder)
    save_file({"weight": torch.zeros(2, 2)}, tmp_path / "other.safetensors")
    with pytest.raises(D3POError, match="not a model of a known kind"):
        load_model(tmp_path / "other.safetensors", base_config=folder)


@pytest.mark.parametrize("name", ["model.ckpt", "model.bin", "model.pt"])
def test_pickles_are_refused_unopened(name: str, tmp_path: Path):
    (tmp_path / name).write_bytes(b"anything")
    with pytest.raises(D3POError, match=r"not a \.safetensors file"):
        load_model(tmp_path / name)


def test_folders_of_pickles_are_refused(broken: Path):
    (broken / "vae" / "diffusion_pytorch_model.safetensors").rename(broken / "vae" / "diffusion_pytorch_model.bin")
    with pytest.raises(D3POError, match=r"not in \.safetensors"):
        load_model(broken)


def test_a_missing_path(tmp_path: Path):
    with pytest.raises(D3POError, match="There is no model at"):
        load_model(tmp_path / "nothing")


def test_a_folder_that_is_no_pipeline(tmp_path: Path):
    with pytest.raises(D3POError, match="not a diffusers pipeline folder"):
        load_model(tmp_path)


@pytest.mark.parametrize(("content", "message"), [("{", "is damaged"), ('{"_class_name": "Odd"}', "is a Odd, which")])
def test_an_index_that_cannot_be_used(broken: Path, content: str, message: str):
    (broken / "model_index.json").write_text(content)
    with pytest.raises(D3POError, match=message):
        load_model(broken)


def test_missing_weights(broken: Path):
    shutil.rmtree(broken / "text_encoder")
    with pytest.raises(D3POError, match=r"no weights in .*text_encoder"):
        load_model(broken)


@pytest.mark.parametrize("part", ["header", "end"])
def test_damaged_weights(broken: Path, part: str):
    file = broken / "unet" / "diffusion_pytorch_model.safetensors"
    content = file.read_bytes()
    file.write_bytes(b"\xff" * 64 + content[64:] if part == "header" else content[: len(content) // 2])
    with pytest.raises(D3POError, match=r"diffusion_pytorch_model\.safetensors' is damaged or incomplete"):
        load_model(broken)


def test_a_damaged_single_file(tmp_path: Path, folder: Path):
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"")
    with pytest.raises(D3POError, match="damaged"):
        load_model(file, base_config=folder)


def test_weights_that_do_not_fit_their_configuration(broken: Path):
    config = json.loads((broken / "unet" / "config.json").read_text())
    (broken / "unet" / "config.json").write_text(json.dumps({**config, "cross_attention_dim": 24}))
    with pytest.raises(D3POError, match="could not be loaded"):
        load_model(broken)


def test_weights_that_are_incomplete(broken: Path):
    file = broken / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    del weights["conv_out.weight"]
    save_file(weights, file)
    with pytest.raises(D3POError, match=r"lacks some weights of its unet|following keys are missing"):
        load_model(broken)


def test_unknown_dtype(folder: Path):
    with pytest.raises(D3POError, match="dtype is 'int8'"):
        load_model(folder, dtype="int8")


def written(file: Path, marks: dict[str, torch.Tensor] | None = None, **metadata: str) -> Path:
    """A checkpoint of Stable Diffusion with further tensors and metadata."""
    save_file({**ldm_state_dict(tiny_sd()), **(marks or {})}, file, metadata or None)
    return file


EMPTY = torch.zeros(0)


@pytest.mark.parametrize(
    ("marks", "metadata"),
    [
        ({"v_pred": EMPTY, "ztsnr": EMPTY}, {}),
        ({}, {"modelspec.prediction_type": "v", "ss_zero_terminal_snr": "True"}),
        ({"ztsnr": EMPTY}, {"ss_v_parameterization": "True"}),
        ({"v_pred": EMPTY, "ztsnr": EMPTY}, {"modelspec.prediction_type": "epsilon"}),
    ],
)
def test_a_checkpoint_that_says_what_it_predicts(marks: Any, metadata: Any, tmp_path: Path, folder: Path):
    model = load_model(written(tmp_path / "v.safetensors", marks, **metadata), base_config=folder)
    assert model.prediction_type == "v"
    assert float(model.denoiser.sigmas(5, "model")[0]) == pytest.approx(4096)


def test_metadata_is_above_the_base_configuration(tmp_path: Path):
    tiny_sd("v_prediction").save_pretrained(tmp_path / "base")
    file = written(tmp_path / "eps.safetensors", **{"modelspec.prediction_type": "epsilon"})
    assert load_model(file, base_config=tmp_path / "base").prediction_type == "epsilon"
    assert load_model(written(file), base_config=tmp_path / "base").prediction_type == "v"  # it does not say


@pytest.mark.parametrize("mark", ["edm_vpred.sigma_max", "edm_mean"])
def test_edm_models_are_refused(mark: str, tmp_path: Path, folder: Path):
    with pytest.raises(D3POError, match="an EDM model, whose noise schedule is not supported"):
        load_model(written(tmp_path / "edm.safetensors", {mark: torch.ones(1)}), base_config=folder)


def test_an_ending_in_capitals_is_no_pickle(tmp_path: Path, folder: Path):
    file = written(tmp_path / "MODEL.SAFETENSORS")
    assert load_model(file, base_config=folder).identity == DiffusersModel(tiny_sd()).identity


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["model.diffusion_model.input_blocks.0.0.weight"], "holds only the image network"),
        (["input_blocks.0.0.weight"], "holds only the image network"),
        (["down_blocks.0.resnets.0.conv1.weight"], "holds only the image network"),
        (["conditioner.embedders.0.model.ln_final.weight", "model.diffusion_model.out.2.weight"], "an SDXL refiner"),
        (["control_model.input_blocks.0.0.weight"], "is a ControlNet, not a whole model"),
        (["decoder.up.0.block.0.conv1.weight"], "is a VAE, not a whole model"),
    ],
)
def test_parts_of_models_say_what_they_are(keys: list[str], message: str, tmp_path: Path, folder: Path):
    save_file({key: torch.zeros(4, 4, 3, 3) for key in keys}, tmp_path / "part.safetensors")
    with pytest.raises(D3POError, match=message):
        load_model(tmp_path / "part.safetensors", base_config=folder)


def test_an_inpainting_checkpoint_is_refused_by_its_header(tmp_path: Path, folder: Path):
    first = "model.diffusion_model.input_blocks.0.0.weight"
    with pytest.raises(D3POError, match="more than a prompt"):
        load_model(written(tmp_path / "in.safetensors", {first: torch.zeros(8, 9, 3, 3)}), base_config=folder)


@pytest.mark.parametrize("variant", ["bf16", "non_ema"])
def test_a_folder_with_one_variant_only(variant: str, tmp_path: Path):
    tiny_sd().save_pretrained(tmp_path, variant=variant)
    assert load_model(tmp_path).identity == DiffusersModel(tiny_sd()).identity


def test_parts_of_different_variants_are_refused(broken: Path):
    for part, variant in (("unet", "bf16"), ("vae", "non_ema")):
        file = broken / part / "diffusion_pytorch_model.safetensors"
        file.rename(file.with_name(f"diffusion_pytorch_model.{variant}.safetensors"))
    with pytest.raises(D3POError, match="of different variants: bf16, non_ema"):
        load_model(broken)


def test_a_checkpoint_that_agrees_with_its_configuration_keeps_the_scheduler(tmp_path: Path):
    """Most say "epsilon"; and zero terminal SNR means nothing for a network that predicts noise."""
    pipe = tiny_sd()
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config, use_karras_sigmas=True)
    pipe.save_pretrained(tmp_path / "base")
    said = {"modelspec.prediction_type": "epsilon", "ss_zero_terminal_snr": "True"}
    model = load_model(written(tmp_path / "a.safetensors", **said), base_config=tmp_path / "base")
    assert torch.equal(model.denoiser.sigmas(5, "model"), DiffusersModel(pipe).denoiser.sigmas(5, "model"))
    turned = load_model(written(tmp_path / "v.safetensors", {"v_pred": EMPTY}), base_config=tmp_path / "base")
    assert turned.prediction_type == "v"
    assert torch.equal(turned.denoiser.sigmas(5, "model"), model.denoiser.sigmas(5, "model"))


@pytest.mark.parametrize("named", ["flow", "x0", "variance"])
def test_an_unknown_prediction_is_refused(named: str, tmp_path: Path, folder: Path):
    file = written(tmp_path / "a.safetensors", **{"modelspec.prediction_type": named})
    with pytest.raises(D3POError, match=f"says that it predicts '{named}'"):
        load_model(file, base_config=folder)
