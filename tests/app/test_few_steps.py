"""Which models are distilled, by the names that their files have, and what is said of them before work begins."""

from __future__ import annotations

from pathlib import Path

import pytest

from d3po_core.app.few_steps import (
    drawing_advice,
    guidance_distilled,
    method_warning,
    names_of,
    notices,
    step_distilled,
)
from d3po_core.run import Run
from d3po_core.settings import SampleSettings, TrainSettings
from tests.run_helpers import MODEL

STEP_DISTILLED = (
    *("sd_xl_turbo_1.0_fp16", "sdxl-turbo", "sdxlTurbo", "SDXLTurbo", "sdxlturbo"),
    *("DreamShaperXL_v21TurboDPMSDE", "dreamshaperXL_turbov21"),
    *("sd3.5_large_turbo", "krea2_turbo", "krea_turbo", "z_image_turbo_bf16", "Z-Image-Turbo", "zImageTurbo"),
    *("zit_v1", "myZIT_fp8"),
    *("sdxl_lightning_4step", "juggernautXL_v9Rdphoto2Lightning", "realvisxlV40_v40LightningBakedvae"),
    *("Qwen-Image-Lightning-4steps-V1.0",),
    *("flux1-schnell-fp8", "FLUX.1-schnell", "fluxSchnell", "lcm-lora-sdv1-5", "LCM_Dreamshaper_v7"),
    *("absoluteRealityLCM", "dreamshaper_8LCM"),
    *("dmd2_sdxl_4step_lora", "DMD2", "Hyper-SDXL-8steps-lora", "Hyper-SD15-4steps-lora"),
    *("Hyper-FLUX.1-dev-8steps-lora", "juggernautX_hyper"),
    *("RealVisXL_V5.0_Hyper", "realvis_hyper_8step", "flash-sdxl", "flux-2-klein-4b", "flux2-klein-9b-fp8"),
    *("FLUX.2-klein-9B", "flux2Klein_9b"),
    *("klein-4b", "sana_sprint_1.6b_1024"),
)
ORDINARY = (
    *("sd_xl_base_1.0", "v1-5-pruned-emaonly", "juggernautXL_v9", "dreamshaper_8", "pony_v6", "qwen_image_fp8"),
    *("z_image_bf16", "garden"),
    *("flux-2-klein-base-4b", "FLUX.2-klein-base-9B", "flux1-dev", "flux1-krea-dev"),
    *("hyperrealism", "hyper_realistic_v2", "hyperdetailed_lora", "Hyper3D", "turbocharger", "turbofan_engine"),
    *("turbine", "lightning_bolt"),
    *("lightningstorm_style", "calcmodel", "talcum", "admd", "klein_blue", "yves_klein_style", "kleinkind"),
    *("zitrone", "zitadelle", "schnellboot"),
    *("flash_photography", "sprinter_v2", "model_20steps", "lora_12steps_style"),
)


@pytest.mark.parametrize("name", STEP_DISTILLED)
def test_a_step_distilled_model_is_known_by_its_name(name: str) -> None:
    assert step_distilled(["v1-5-pruned-emaonly", name]) == name


@pytest.mark.parametrize("name", ORDINARY)
def test_an_ordinary_name_is_no_step_distilled_models(name: str) -> None:
    assert step_distilled([name]) == ""


def test_guidance_distilled_models_are_those_that_take_guidance_and_no_few_step_lora() -> None:
    for name in ("flux1-dev-fp8", "FLUX.1-dev", "flux1-krea-dev", "fluxDev", "flux2-dev"):
        assert guidance_distilled([name]) == name
        assert guidance_distilled([name, "Hyper-FLUX.1-dev-8steps-lora"]) == ""
    for name in ("flux1-schnell", "fluxDev_de-distilled", "chroma", "devil_flux", "sd_xl_base_1.0"):
        assert guidance_distilled([name]) == ""


USUAL, FEW = SampleSettings(), SampleSettings(steps=4, guidance_scale=1.0)


def test_diffusion_nft_is_warned_of_where_a_step_distilled_model_draws() -> None:
    by_name = method_warning("diffusion-nft", ["sdxl-turbo"], USUAL)
    assert "sdxl-turbo" in by_name and "2509.16117" in by_name and "d3po" in by_name
    by_settings = method_warning("diffusion-nft", ["mymodel"], FEW)
    assert "4 steps" in by_settings and "2509.16117" in by_settings and "d3po" in by_settings
    at_most = SampleSettings(steps=8, guidance_scale=1.5)
    assert method_warning("diffusion-nft", ["mymodel"], at_most)
    for steps, guidance in ((9, 1.5), (8, 1.6), (20, 7.5)):
        assert method_warning("diffusion-nft", ["mymodel"], SampleSettings(steps=steps, guidance_scale=guidance)) == ""
    for method in ("d3po", "ddpo", "dpok", "diffusion-dpo", "diffusion-kto"):
        assert method_warning(method, ["sdxl-turbo"], FEW) == ""


def test_few_steps_are_advised_where_more_are_drawn() -> None:
    for settings, as_others in (
        (USUAL, True),
        (SampleSettings(steps=13, guidance_scale=1.0), True),
        (SampleSettings(steps=4, guidance_scale=5.0), True),
        (SampleSettings(steps=8, guidance_scale=2.0), False),
        (FEW, False),
    ):
        advice = drawing_advice(["sd_xl_base_1.0", "lcm-lora-sdxl"], settings)
        assert advice.startswith("lcm-lora-sdxl looks like a few-step model" if as_others else "")
        assert advice.count("4 to 8 steps at guidance 1 ") == as_others


def test_guidance_one_is_advised_where_guidance_is_no_input_of_the_network() -> None:
    assert "guidance 1 " in drawing_advice(["flux1-dev"], USUAL)
    assert drawing_advice(["flux1-dev"], USUAL, guidance_is_input=True) == ""
    assert drawing_advice(["flux1-dev"], SampleSettings(guidance_scale=1.0)) == ""
    assert drawing_advice(["sd_xl_base_1.0"], USUAL) == drawing_advice(["sd_xl_base_1.0"], FEW) == ""


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("/models/sdxl-turbo.safetensors", "sdxl-turbo"),
        ("/models/FLUX.1-schnell/", "FLUX.1-schnell"),
        ("C:\\models\\sd3.5_large_turbo.safetensors", "sd3.5_large_turbo"),
        ("C:\\turbo\\ordinary.safetensors", "ordinary"),
    ],
)
def test_a_run_knows_its_model_by_its_file(tmp_path: Path, source: str, name: str) -> None:
    run = Run.create(tmp_path, name="taste", model={**MODEL, "name": "shown", "source": source}, settings={})
    assert names_of(run) == ["shown", name]


def test_what_is_said_when_a_taste_is_begun(tmp_path: Path) -> None:
    def said(name: str, **sections: object) -> list[str]:
        folder = tmp_path / f"{name}-{len(list(tmp_path.iterdir()))}"
        model = {**MODEL, "name": name, "source": name}
        return notices(Run.create(folder, name=name, model=model, settings=sections), guidance_is_input=False)

    nft = {"method": "diffusion-nft"}
    assert said("ordinary") == said("ordinary", train=nft) == []
    (advice,) = said("sdxl-turbo")
    assert advice == drawing_advice(["sdxl-turbo"], USUAL)
    assert said("sdxl-turbo", train=nft) == [advice, method_warning("diffusion-nft", ["sdxl-turbo"], USUAL)]
    assert TrainSettings().method != "diffusion-nft"
