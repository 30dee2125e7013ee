"""Text, images, sizes and identity of a diffusers model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import EDMEulerScheduler

from d3po_core.diffusion.denoiser import stack
from d3po_core.errors import D3POError
from d3po_core.models import DiffusersModel
from d3po_core.models.model import model_identity
from tests.tiny_pipelines import rows, tiny_flux, tiny_sd, tiny_sd3, tiny_sdxl, tiny_unet, tiny_vae

PROMPTS = ["a red flower", "a", "a small house by the sea, in the evening"]


@pytest.mark.parametrize("make", [tiny_sd, tiny_sdxl, lambda: tiny_sd3(t5=True), tiny_flux])
def test_each_row_is_what_its_prompt_gives_alone(make: Any):
    model = DiffusersModel(make())
    batch = stack(model.encode([*PROMPTS, PROMPTS[0]], "dull"))
    for i, prompt in enumerate([*PROMPTS, PROMPTS[0]]):
        alone = stack(model.encode([prompt], "dull"))
        assert alone.keys() == batch.keys()
        for name, value in rows(batch, torch.tensor([i])).items():
            assert torch.equal(value, alone[name]), name
    assert not torch.equal(batch["prompt_embeds"][0], batch["prompt_embeds"][1])
    assert not torch.equal(
        batch["negative_prompt_embeds"], stack(model.encode([*PROMPTS, PROMPTS[0]]))["negative_prompt_embeds"]
    )


def test_encoding_equals_the_pipelines():
    pipe = tiny_sdxl()
    names = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
    for negative in ("", "dull"):
        got = stack(DiffusersModel(pipe).encode(PROMPTS, negative))
        with torch.no_grad():
            expected = pipe.encode_prompt(PROMPTS, negative_prompt=[negative] * 3 if negative else None)
        for name, value in zip(names, expected, strict=True):
            torch.testing.assert_close(got[name], value, msg=name)
        assert got.keys() == set(names) and not any(value.requires_grad for value in got.values())
    assert not stack(DiffusersModel(pipe).encode(PROMPTS))["negative_prompt_embeds"].any()


@pytest.mark.parametrize("empty", ["", "  \n"])
def test_an_empty_prompt_is_refused(empty: str):
    with pytest.raises(D3POError, match="A prompt is empty"):
        DiffusersModel(tiny_sd()).encode(["a flower", empty])


def test_a_prompt_that_is_too_long_is_refused_by_one_token():
    model = DiffusersModel(tiny_sd())
    model.encode(["x" * 75], "y" * 75)
    with pytest.raises(D3POError, match="has 76 tokens, and this model reads 75"):
        model.encode(["x" * 76])
    with pytest.raises(D3POError, match="too long"):
        model.encode(["x"], "y" * 76)


def test_the_text_encoder_that_reads_most_decides():
    assert DiffusersModel(tiny_sd3(t5=True)).encode(["x" * 254])
    with pytest.raises(D3POError, match="has 255 tokens, and this model reads 254"):
        DiffusersModel(tiny_sd3(t5=True)).encode(["x" * 255])
    with pytest.raises(D3POError, match="reads 75"):
        DiffusersModel(tiny_sd3(t5=False)).encode(["x" * 254])


@pytest.mark.parametrize("make", [tiny_sd, tiny_sd3])
def test_decoding_equals_the_pipelines(make: Any):
    pipe = make()
    model = DiffusersModel(pipe)
    latents = torch.randn(3, *model.latent_shape(), generator=torch.Generator().manual_seed(0))
    config = pipe.vae.config
    with torch.no_grad():
        got = model.decode(latents)
        image = pipe.vae.decode(latents / config.scaling_factor + (config.shift_factor or 0.0)).sample
    expected = pipe.image_processor.postprocess(image, output_type="pt")
    torch.testing.assert_close(got, expected)
    assert got.shape == (3, 3, 16, 16) and got.dtype == torch.float32
    assert 0 <= float(got.min()) < float(got.max()) <= 1


def test_decoding_in_parts_with_statistics_and_gradients(monkeypatch: pytest.MonkeyPatch):
    pipe = tiny_sdxl()
    mean, std = [0.1, -0.2, 0.3, 0.0], [1.5, 1.0, 0.5, 2.0]
    torch.manual_seed(0)
    pipe.vae = tiny_vae(scaling_factor=0.5, latents_mean=mean, latents_std=std)
    model = DiffusersModel(pipe)
    latents = torch.randn(3, 4, 8, 8, requires_grad=True)
    at_once = model.decode(latents)
    monkeypatch.setattr("d3po_core.models.model.DECODE_PIXELS", 300)
    torch.testing.assert_close(model.decode(latents), at_once)
    per_channel = [torch.tensor(v).reshape(1, 4, 1, 1) for v in (mean, std)]
    plain = pipe.vae.decode(latents * per_channel[1] / 0.5 + per_channel[0]).sample
    torch.testing.assert_close(at_once, (plain / 2 + 0.5).clamp(0, 1))
    at_once.sum().backward()
    assert latents.grad is not None and bool(latents.grad.any())


@pytest.mark.parametrize("make", [tiny_sd, tiny_sd3])
def test_encoding_images_equals_the_pipelines(make: Any):
    """The mean of the posterior, scaled as diffusers' own training scripts and image-to-image pipelines scale it."""
    pipe = make()
    model = DiffusersModel(pipe)
    images = torch.rand(3, 3, 32, 16, generator=torch.Generator().manual_seed(0))
    config = pipe.vae.config
    with torch.no_grad():
        posterior = pipe.vae.encode(pipe.image_processor.preprocess(images)).latent_dist
    expected = (posterior.mean - (config.shift_factor or 0.0)) * config.scaling_factor
    got = model.encode_images(images)
    torch.testing.assert_close(got, expected)
    assert got.shape == (3, *model.latent_shape(32, 16)) and not got.requires_grad
    assert torch.equal(got, model.encode_images(images))


def test_encoding_images_in_parts_and_with_statistics(monkeypatch: pytest.MonkeyPatch):
    pipe = tiny_sdxl()
    mean, std = [0.1, -0.2, 0.3, 0.0], [1.5, 1.0, 0.5, 2.0]
    torch.manual_seed(0)
    pipe.vae = tiny_vae(scaling_factor=0.5, latents_mean=mean, latents_std=std).requires_grad_(False)
    model = DiffusersModel(pipe)
    images = torch.rand(3, 3, 16, 16)
    at_once = model.encode_images(images)
    monkeypatch.setattr("d3po_core.models.model.DECODE_PIXELS", 300)
    torch.testing.assert_close(model.encode_images(images), at_once)
    per_channel = [torch.tensor(v).reshape(1, 4, 1, 1) for v in (mean, std)]
    plain = pipe.vae.encode(images * 2 - 1).latent_dist.mean
    torch.testing.assert_close(at_once, (plain - per_channel[0]) * 0.5 / per_channel[1])


def test_images_of_unfit_sizes_are_not_encoded():
    model = DiffusersModel(tiny_sd3())
    assert model.unit == 4
    with pytest.raises(D3POError, match=r"18 by 16 pixels.*multiples of 4"):
        model.encode_images(torch.zeros(1, 3, 18, 16))


def test_the_vae_stays_float32():
    pipe = tiny_sd().to(torch.bfloat16)
    model = DiffusersModel(pipe)
    assert pipe.vae.dtype == torch.float32 and pipe.unet.dtype == torch.bfloat16
    assert model.decode(torch.zeros(1, 4, 8, 8)).dtype == torch.float32
    assert stack(model.encode(["a"]))["prompt_embeds"].dtype == torch.bfloat16


def test_sizes():
    model = DiffusersModel(tiny_sd())
    assert model.latent_shape() == (4, 8, 8)
    assert model.latent_shape(height=32) == (4, 16, 8)
    assert DiffusersModel(tiny_sd3()).latent_shape(32, 16) == (16, 16, 8)
    assert DiffusersModel(tiny_flux()).latent_shape(16, 32) == (4, 8, 16)


@pytest.mark.parametrize(("make", "size"), [(tiny_sd, 17), (tiny_sd, -16), (tiny_sd3, 18), (tiny_flux, 2)])
def test_sizes_that_do_not_fit(make: Any, size: int):
    with pytest.raises(D3POError, match="multiples of"):
        DiffusersModel(make()).latent_shape(height=size)


def test_sizes_that_the_model_cannot_place():
    with pytest.raises(D3POError, match="at most 32 pixels"):
        DiffusersModel(tiny_sd3()).latent_shape(64, 32)


def test_everything_is_frozen():
    pipe = tiny_sd()
    pipe.unet.train()
    DiffusersModel(pipe)
    assert not pipe.unet.training
    parts = (pipe.unet, pipe.vae, pipe.text_encoder)
    assert not any(parameter.requires_grad for part in parts for parameter in part.parameters())


def test_identity_tells_models_apart_whatever_their_dtype():
    one, two = tiny_sd(seed=0).unet, tiny_sd(seed=1).unet
    name = model_identity(one)
    assert name == model_identity(tiny_sd(seed=0).unet) != model_identity(two)
    assert name == model_identity(one.to(torch.bfloat16)) == model_identity(tiny_sd(seed=0).unet.to(torch.float16))
    assert name != model_identity(tiny_unet(block_out_channels=(8, 24)))


def test_identity_notices_a_slight_fine_tune():
    unet = tiny_sd().unet
    name = model_identity(unet)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in unet.parameters():
            parameter += 0.003 * parameter.std(correction=0) * torch.randn(parameter.shape, generator=generator)
    assert model_identity(unet) != name


def test_unsupported_pipelines():
    pipe = tiny_sd()
    pipe.unet = tiny_unet(in_channels=9)
    with pytest.raises(D3POError, match="inpainting"):
        DiffusersModel(pipe)
    pipe = tiny_sdxl()
    pipe.scheduler = EDMEulerScheduler()
    with pytest.raises(D3POError, match="EDMEulerScheduler"):
        DiffusersModel(pipe)
    with pytest.raises(D3POError, match="UNet2DConditionModel is not supported"):
        DiffusersModel(tiny_unet())


@pytest.mark.parametrize(
    "spelling",
    [
        *["(red:1.4)", "(a red rose:0.8)", "((red))", "[[red]]", "[red|blue]", "[red:blue:0.5]", "[red:0.5]"],
        *["[red::0.5]", "<lora:ink:0.8>", "embedding:easynegative", "BREAK", "AND", "{red|blue}"],
        *["(girl2:1.3)", "(year 1920:1.2)", "[cat:dog:10]", "(red:-0.5)", "( red : .9 )"],
    ],
)
def test_what_other_programs_obey_is_told_once(spelling: str) -> None:
    prompts = [f"a rose {spelling} in the rain", f"a tulip {spelling} in the rain"]
    assert DiffusersModel.plain_words(prompts) == f"Read as plain words here, unlike in A1111 or ComfyUI: {spelling}"


@pytest.mark.parametrize(
    "prompt",
    [
        *["a (red) rose", "a rose (red, wet)", "[sic] a rose", "rose (at 10:30)", "a photo (ratio 16:9)", "a: b, c: 2"],
        *["hatsune miku \\(vocaloid\\)", "\\(\\(red\\)\\)", "TAKE A BREAK AND REST", "break and rest", "Breakfast"],
        *["a sign that says AND", "embedding: a study", "1 < 2 > 0", "x [1]", "score 3:2", "(psalm 3)", "a | b"],
        *["(happy :3)", "(part two: 2)", "(chapter: 1)", "[vol: 2]", "ROCK AND ROLL poster, neon", "[at 10:30:15]"],
    ],
)
def test_an_ordinary_prompt_raises_no_alarm(prompt: str) -> None:
    assert DiffusersModel.plain_words([prompt]) == ""


@pytest.mark.parametrize("prompt", ["红花 BREAK 蓝天", "红花 AND blue sky", "8K, HDR, BREAK a fox", "1girl BREAK"])
def test_words_that_are_obeyed_stand_out_in_any_script(prompt: str) -> None:
    assert DiffusersModel.plain_words([prompt]).endswith(("ComfyUI: BREAK", "ComfyUI: AND"))


def test_many_spellings_are_cut_short() -> None:
    told = DiffusersModel.plain_words(["(a:1.1) (b:1.2) BREAK c", "[d|e] (f:1.3)"])
    assert told.count(",") == 4 and told.endswith("...")
