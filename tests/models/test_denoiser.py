"""Denoised predictions against diffusers' own schedulers, and whole samples against diffusers' own pipelines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    LCMScheduler,
    StableDiffusionPipeline,
)
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from torch import Tensor

from d3po_core.diffusion.denoiser import Denoiser, stack
from d3po_core.diffusion.image_model import ImageModel
from d3po_core.diffusion.steps import make_steps
from d3po_core.errors import D3POError
from d3po_core.models import DiffusersModel
from tests.tiny_pipelines import rows, tiny_flux, tiny_sd, tiny_sd3, tiny_sdxl, tiny_unet

PROMPTS = ["a red flower", "a small house by the sea"]
GUIDANCE = 3.0
PIPELINES: dict[str, Callable[[], Any]] = {
    "epsilon": tiny_sd,
    "v": lambda: tiny_sd("v_prediction"),
    "x0": lambda: tiny_sd("sample"),
    "end at zero": lambda: tiny_sd(set_alpha_to_one=True),
    "zero SNR": lambda: tiny_sd("v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing"),
    "sdxl": tiny_sdxl,
    "sd3": lambda: tiny_sd3(t5=True),
    "flux": tiny_flux,
}


def noise(model: DiffusersModel, rows: int = 2, seed: int = 1, size: int = 16) -> Tensor:
    return torch.randn(rows, *model.latent_shape(size, size), generator=torch.Generator().manual_seed(seed))


def raw_output(pipe: Any, x: Tensor, t: Tensor) -> list[Tensor]:
    """The network's output for negative and for prompt, called as the pipelines call it: one timestep for all rows."""
    if isinstance(pipe, StableDiffusionPipeline):
        cond, uncond = pipe.encode_prompt(PROMPTS, "cpu", 1, True)
        return [pipe.unet(x, t, encoder_hidden_states=embeds).sample for embeds in (uncond, cond)]
    if hasattr(pipe, "unet"):
        cond, uncond, pooled, no_pooled = pipe.encode_prompt(PROMPTS, do_classifier_free_guidance=True)
        ids = torch.tensor([[16.0, 16, 0, 0, 16, 16]] * len(x))
        return [
            pipe.unet(x, t, encoder_hidden_states=e, added_cond_kwargs={"text_embeds": p, "time_ids": ids}).sample
            for e, p in ((uncond, no_pooled), (cond, pooled))
        ]
    cond, uncond, pooled, no_pooled = pipe.encode_prompt(PROMPTS, PROMPTS, PROMPTS)
    return [
        pipe.transformer(x, timestep=t.expand(len(x)), encoder_hidden_states=e, pooled_projections=p).sample
        for e, p in ((uncond, no_pooled), (cond, pooled))
    ]


@pytest.mark.parametrize("kind", ["epsilon", "v", "x0", "sdxl"])
@torch.no_grad()
def test_prediction_equals_ddim_and_euler(kind: str):
    pipe = PIPELINES[kind]()
    model = DiffusersModel(pipe)
    ddim, euler = pipe.scheduler, EulerDiscreteScheduler.from_config(pipe.scheduler.config, timestep_spacing="leading")
    ddim.set_timesteps(10)
    euler.set_timesteps(10)
    for i in (0, 4, 8):
        t, sigma = ddim.timesteps[i], model.denoiser.sigmas(10, "model")[i].repeat(2)
        x = noise(model) * (1 + float(sigma[0]) ** 2) ** 0.5
        got = model.denoiser(x, sigma, stack(model.encode(PROMPTS)), GUIDANCE)
        vp = x / (1 + float(sigma[0]) ** 2) ** 0.5
        uncond, cond = raw_output(pipe, vp, t)
        for output, ours in ((cond, got.cond), (uncond + GUIDANCE * (cond - uncond), got.guided)):
            torch.testing.assert_close(ours, ddim.step(output, t, vp).pred_original_sample, rtol=1e-4, atol=5e-5)
            if kind != "x0":  # diffusers' Euler does not do x0 prediction
                euler._step_index = i
                expected = euler.step(output, euler.timesteps[i], x).pred_original_sample
                torch.testing.assert_close(ours, expected, rtol=1e-4, atol=5e-5)


@torch.no_grad()
def test_flow_prediction_equals_a_step_of_flow_match_euler_to_zero():
    pipe = tiny_sd3(t5=True)
    model = DiffusersModel(pipe)
    x = noise(model)
    for level in (1.0, 0.6, 0.05):
        scheduler = FlowMatchEulerDiscreteScheduler()
        scheduler.set_timesteps(sigmas=[level])  # from this level to 0 in one step, which is D
        t = scheduler.timesteps[0]
        got = model.denoiser(x, scheduler.sigmas[:1].repeat(2), stack(model.encode(PROMPTS)), GUIDANCE)
        uncond, cond = raw_output(pipe, x, t)
        guided = scheduler.step(uncond + GUIDANCE * (cond - uncond), t, x).prev_sample
        torch.testing.assert_close(got.guided, guided, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(got.cond, x - scheduler.sigmas[0] * cond, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def sampled(model: DiffusersModel, start: Tensor, steps: int, guidance: float, negative: str = "") -> Tensor:
    """A deterministic run with the core's steps, in the pipeline's own (variance-preserving) space at the end."""
    plan = make_steps("ancestral", model.denoiser.family, model.denoiser.sigmas(steps, "model"), torch.zeros(steps))
    conditioning = stack(model.encode(PROMPTS, negative))
    diffusion = model.denoiser.family == "diffusion"
    x = start * float((1 + plan.sigma[0] ** 2).sqrt()) if diffusion else start
    for i in range(steps):
        denoised = model.denoiser(x, plan.sigma[i].repeat(len(x)), conditioning, guidance).guided
        x = float(plan.x_coef[i]) * x + float(plan.denoised_coef[i]) * denoised
    return x / float((1 + plan.sigma_next[-1] ** 2).sqrt()) if diffusion else x


@pytest.mark.parametrize("guidance", [1.0, GUIDANCE])
@pytest.mark.parametrize("kind", PIPELINES)
def test_a_whole_run_equals_the_pipeline(kind: str, guidance: float):
    pipe = PIPELINES[kind]()
    if kind == "flux":
        pipe.default_sample_size = 8
    model = DiffusersModel(pipe)
    start = noise(model)
    options: dict[str, Any] = {"guidance_scale": guidance, "height": 16, "width": 16}
    if isinstance(pipe.scheduler, DDIMScheduler):
        options["eta"] = 0.0
    latents = start.clone()
    if kind == "flux":
        options.update(true_cfg_scale=guidance, negative_prompt=["", ""])
        latents = pipe._pack_latents(latents, *latents.shape)
    expected = pipe(PROMPTS, num_inference_steps=8, latents=latents, output_type="latent", **options).images
    if kind == "flux":
        expected = pipe._unpack_latents(expected, 16, 16, pipe.vae_scale_factor)
    tolerance = 1e-3 if kind == "zero SNR" else 1e-4  # its infinite level is capped at 4096
    torch.testing.assert_close(sampled(model, start, 8, guidance), expected, rtol=tolerance, atol=tolerance)


def test_a_negative_prompt_and_another_size_equal_the_pipeline():
    pipe = tiny_sdxl()
    model = DiffusersModel(pipe)
    start = torch.randn(2, *model.latent_shape(24, 16), generator=torch.Generator().manual_seed(3))
    expected = pipe(
        PROMPTS, negative_prompt=["dull"] * 2, num_inference_steps=4, latents=start.clone(), guidance_scale=GUIDANCE,
        output_type="latent", height=24, width=16,
    ).images  # fmt: skip
    torch.testing.assert_close(sampled(model, start, 4, GUIDANCE, "dull"), expected, rtol=1e-4, atol=1e-4)


def test_distilled_guidance_is_an_input():
    pipe = tiny_flux(guidance_embeds=True)
    pipe.default_sample_size = 8
    model = DiffusersModel(pipe)
    start = noise(model)
    packed = pipe._pack_latents(start, *start.shape)
    expected = pipe(
        PROMPTS, num_inference_steps=4, latents=packed, guidance_scale=3.5, output_type="latent", height=16, width=16
    ).images
    got = sampled(model, start, 4, 3.5)
    torch.testing.assert_close(got, pipe._unpack_latents(expected, 16, 16, pipe.vae_scale_factor), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("make", [tiny_sd, tiny_sdxl, tiny_sd3, tiny_flux])
@torch.no_grad()
def test_rows_are_independent_and_calls_repeat_exactly(make: Callable[[], Any]):
    model = DiffusersModel(make())
    denoiser, conditioning = model.denoiser, stack(model.encode(PROMPTS))
    x, sigma = noise(model), torch.tensor([0.9, 0.3])
    both = denoiser(x, sigma, conditioning, GUIDANCE)
    again = denoiser(x, sigma.double(), conditioning, GUIDANCE)
    assert torch.equal(both.guided, again.guided) and torch.equal(both.cond, again.cond)
    for i in range(2):
        alone = denoiser(x[[i]], sigma[[i]], rows(conditioning, torch.tensor([i])), GUIDANCE)
        torch.testing.assert_close(alone.guided, both.guided[[i]], rtol=1e-4, atol=1e-5)
    swapped = stack([rows(conditioning, torch.tensor([1])), rows(conditioning, torch.tensor([0]))])
    assert not torch.allclose(denoiser(x, sigma, swapped, GUIDANCE).cond, both.cond, atol=1e-4)
    assert both.cond.dtype == both.guided.dtype == torch.float32


@torch.no_grad()
def test_one_forward_pass_of_as_few_rows_as_possible():
    model = DiffusersModel(tiny_sd())
    seen: list[int] = []
    model.denoiser.module.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    x, sigma, conditioning = noise(model), torch.ones(2), stack(model.encode(PROMPTS))
    plain = model.denoiser(x, sigma, conditioning, 1.0)
    assert plain.guided is plain.cond
    guided = model.denoiser(x, sigma, conditioning, GUIDANCE)
    assert seen == [2, 4]
    torch.testing.assert_close(plain.cond, guided.cond, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_half_precision_networks_and_autocast_give_float32_predictions():
    pipe = tiny_sd()
    model = DiffusersModel(pipe)
    x, sigma, conditioning = noise(model), torch.ones(2), stack(model.encode(PROMPTS))
    exact = model.denoiser(x, sigma, conditioning, GUIDANCE).guided
    with torch.autocast("cpu", torch.bfloat16):
        cast = model.denoiser(x, sigma, conditioning, GUIDANCE).guided
    pipe.unet.to(torch.bfloat16)
    half = model.denoiser(x, sigma, conditioning, GUIDANCE).guided
    for rough in (cast, half):
        assert rough.dtype == torch.float32
        assert 1e-5 < float((rough - exact).abs().max()) < 0.3


def lora(model: DiffusersModel, seed: int = 0) -> None:
    """Puts a LoRA with random weights into the network, as PEFT does."""
    torch.manual_seed(seed)
    targets = ["to_q", "to_v"]
    model.denoiser.module.add_adapter(LoraConfig(r=2, lora_alpha=2, target_modules=targets, init_lora_weights=False))


def test_gradients_reach_the_lora_and_nothing_else():
    model = DiffusersModel(tiny_sd())
    before = {p.data_ptr() for p in model.denoiser.module.parameters()}
    lora(model)
    parameters = dict(model.denoiser.module.named_parameters())
    trained = {name: p for name, p in parameters.items() if p.requires_grad}
    assert trained and all(".lora_" in name for name in trained)
    x = noise(model)
    with torch.no_grad():
        conditioning = stack(model.encode(PROMPTS))
    prediction = model.denoiser(x, torch.tensor([2.0, 1.0]), conditioning, GUIDANCE)
    (prediction.guided.square().sum() + prediction.cond.square().sum()).backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in trained.values())
    assert before == {p.data_ptr() for name, p in parameters.items() if ".lora_" not in name}  # no second copy


def test_a_loaded_lora_belongs_to_the_base(tmp_path: Path):
    plain = DiffusersModel(tiny_sd())
    donor = DiffusersModel(tiny_sd())
    lora(donor)
    layers = get_peft_model_state_dict(donor.denoiser.module)
    StableDiffusionPipeline.save_lora_weights(tmp_path, unet_lora_layers=layers)
    pipe = tiny_sd()
    pipe.load_lora_weights(tmp_path, weight_name="pytorch_lora_weights.safetensors")
    model = DiffusersModel(pipe)
    x, sigma, conditioning = noise(model), torch.ones(2), stack(model.encode(PROMPTS))
    with torch.no_grad():
        got, expected, without = (m.denoiser(x, sigma, conditioning, 1.0).cond for m in (model, donor, plain))
    torch.testing.assert_close(got, expected)
    assert not torch.allclose(got, without, atol=1e-4)
    assert model.identity == plain.identity == donor.identity
    assert not any(p.requires_grad for p in model.denoiser.module.parameters())


def test_it_is_a_denoiser_and_an_image_model():
    model: ImageModel = DiffusersModel(tiny_sd())
    denoiser: Denoiser = model.denoiser
    assert denoiser.device == torch.device("cpu") and denoiser.family == "diffusion"
    assert DiffusersModel(tiny_sd3()).denoiser.family == "flow"


def test_a_distilled_sdxl_takes_the_guidance_scale_as_an_input():
    """As latent-consistency/lcm-sdxl does; one step of LCM is the prediction itself."""
    pipe = tiny_sdxl()
    pipe.unet = tiny_unet(
        cross_attention_dim=40,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=60,
        time_cond_proj_dim=16,
    )
    pipe.register_modules(unet=pipe.unet)
    pipe.scheduler = LCMScheduler.from_config(pipe.scheduler.config)
    model = DiffusersModel(pipe)
    start, found = noise(model)[:1], []
    for guidance in (1.0, 8.0):
        how = {"guidance_scale": guidance, "latents": start, "height": 16, "width": 16}
        expected = pipe("a fox", num_inference_steps=1, output_type="latent", **how).images
        sigma = model.denoiser.sigmas(1, "model")[:1]
        x = start * (1 + float(sigma) ** 2) ** 0.5
        with torch.no_grad():
            found.append(model.denoiser(x, sigma, stack(model.encode(["a fox"])), guidance).guided)
        torch.testing.assert_close(found[-1], expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(*found)


def test_a_network_that_needs_more_than_a_prompt_is_refused():
    pipe = tiny_sd()
    pipe.unet = tiny_unet(cross_attention_dim=16, class_embed_type="timestep")
    with pytest.raises(D3POError, match="more than a prompt"):
        DiffusersModel(pipe)
