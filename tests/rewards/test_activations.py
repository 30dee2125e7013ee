"""What the network sees in finished pictures, on tiny networks of every family, beside hooks of the test's own."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from d3po_core.diffusion.rollout import generator
from d3po_core.models import DiffusersModel
from d3po_core.rewards.activations import PLACES, WIDTH, attention_inputs, describe
from tests.tiny_pipelines import tiny_flux, tiny_sd, tiny_sd3, tiny_sdxl
from tests.toy import SHAPE, ToyDenoiser

PROMPTS = ["a cat", "two dogs", "a cat"]


def drawn(pipeline: object) -> tuple[DiffusersModel, Tensor, list[dict[str, Tensor]]]:
    model = DiffusersModel(pipeline)
    latents = torch.randn(3, *model.latent_shape(), generator=torch.Generator().manual_seed(0))
    return model, latents, model.encode(PROMPTS)


@pytest.mark.parametrize("make", [tiny_sd, tiny_sdxl, tiny_sd3, tiny_flux])
def test_every_family_is_heard_and_left_as_it_was(make):
    model, latents, rows = drawn(make())
    found = describe(model.denoiser, latents, rows, 5.0)
    places = len(attention_inputs(model.denoiser.module))
    assert found.shape == (3, 2 * WIDTH * places) and 1 <= places <= PLACES
    assert found.dtype == torch.float32 and found.isfinite().all()
    assert torch.allclose(describe(model.denoiser, latents, rows, 5.0, at_once=3), found, atol=1e-4)
    assert not torch.allclose(found[0], found[2], atol=1e-3)  # the same prompt
    assert not any(module._forward_pre_hooks for module in model.denoiser.module.modules())


def test_it_is_the_means_and_spreads_of_what_enters_attention(monkeypatch):
    """At equal parts of signal and noise, with the picture's prompt, by a forward pass of the pipeline's own UNet."""
    pipeline = tiny_sd()
    model, latents, rows = drawn(pipeline)
    shown: list[Tensor] = []
    predict = type(model.denoiser).__call__
    monkeypatch.setattr(type(model.denoiser), "__call__", lambda *given: (shown.append(given[1]), predict(*given))[1])
    found = describe(model.denoiser, latents, rows, 5.0)
    noises = [x - latent for x, latent in zip(shown, latents, strict=True)]
    assert all(torch.allclose(each, noises[0], atol=1e-5) for each in noises)
    assert float(noises[0].std()) == pytest.approx(1, abs=0.25)

    alphas = pipeline.scheduler.alphas_cumprod
    ratios = ((1 - alphas) / alphas).sqrt()
    after = int((ratios < 1).sum())
    timestep = after - ratios[after].log() / (ratios[after].log() - ratios[after - 1].log())
    entered: dict[str, Tensor] = {}
    paths = attention_inputs(pipeline.unet)
    for path in paths:
        layer = pipeline.unet.get_submodule(path)
        layer.register_forward_pre_hook(lambda module, inputs, path=path: entered.update({path: inputs[0]}))
    prompts = pipeline.encode_prompt(PROMPTS, "cpu", 1, False)[0]
    with torch.no_grad():
        pipeline.unet((latents + noises[0]) / math.sqrt(2), timestep, encoder_hidden_states=prompts)
    for place, path in enumerate(paths):
        rng = generator("activations", place)
        for part, numbers in enumerate((entered[path].mean(1), entered[path].std(1, correction=0))):
            matrix = torch.randn(numbers.shape[1], WIDTH, generator=rng) / WIDTH**0.5
            first = (2 * place + part) * WIDTH
            assert torch.allclose(found[:, first : first + WIDTH], numbers @ matrix, atol=1e-3)


def test_pictures_keep_their_places_where_a_host_evaluates_prompt_by_prompt():
    model, latents, rows = drawn(tiny_sd())
    rows[2] = rows[0]

    class ByPrompt(type(model.denoiser)):
        def __call__(self, x, sigma, conditioning, *rest):
            prompts = next(iter(conditioning.values()))
            order = sorted(range(len(x)), key=lambda i: float(prompts[i].double().sum()))
            return super().__call__(x[order], sigma, {n: v[order] for n, v in conditioning.items()}, *rest)

    expected = describe(model.denoiser, latents, rows, 5.0)
    model.denoiser.__class__ = ByPrompt
    assert torch.allclose(describe(model.denoiser, latents, rows, 5.0, at_once=3), expected, atol=1e-4)


def test_what_is_not_finite_or_has_no_places_is_not_described():
    model, latents, rows = drawn(tiny_sd())
    latents[1, 0, 0, 0] = math.nan
    assert describe(model.denoiser, latents, rows, 5.0) is None
    toy = ToyDenoiser()
    assert describe(toy, torch.randn(2, *SHAPE), [{"prompt": torch.ones(1, 4)}] * 2, 3.0) is None
    toy.module = torch.nn.Linear(3, 3)  # no attention at all
    assert attention_inputs(toy.module) == []
