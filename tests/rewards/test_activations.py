"""What the network sees in finished pictures, on tiny networks of every family, beside hooks of the test's own."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

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
    """At equal parts of signal and noise, by a forward pass of the pipeline's own UNet; distances are nearly kept."""
    pipeline = tiny_sd()
    model, latents, rows = drawn(pipeline)
    found = describe(model.denoiser, latents, rows, 5.0)
    path = attention_inputs(pipeline.unet)[0]
    entered: list[Tensor] = []
    pipeline.unet.get_submodule(path).register_forward_pre_hook(lambda module, inputs: entered.append(inputs[0]))
    levels = (1 - pipeline.scheduler.alphas_cumprod).div(pipeline.scheduler.alphas_cumprod).sqrt().log()
    after = int((levels < 0).sum())  # log 1
    timestep = after - levels[after] / (levels[after] - levels[after - 1])
    noise = model.denoiser  # the same noise for every picture: it cancels in differences of inputs, which are linear
    recorded: list[Tensor] = []
    original = type(noise).__call__
    monkeypatch.setattr(
        type(noise), "__call__", lambda self, x, *rest: (recorded.append(x), original(self, x, *rest))[1]
    )
    describe(model.denoiser, latents, rows, 5.0)
    entered.clear()
    noises = [x - latent for x, latent in zip(recorded, latents, strict=True)]
    assert all(torch.allclose(each, noises[0], atol=1e-5) for each in noises)
    assert float(noises[0].std()) == pytest.approx(1, abs=0.25)
    with torch.no_grad():
        prompts = torch.cat([row["prompt"] for row in rows]) if "prompt" in rows[0] else None
        if prompts is None:
            prompts = torch.cat([next(v for k, v in sorted(row.items()) if v.dim() == 3) for row in rows])
        pipeline.unet((latents + noises[0]) / math.sqrt(2), timestep, encoder_hidden_states=prompts)
    raw = torch.cat([entered[0].mean(1), entered[0].std(1, correction=0)], 1)
    for pair in ((0, 1), (0, 2), (1, 2)):
        ours = (found[pair[0]] - found[pair[1]])[: 2 * WIDTH].norm()
        theirs = (raw[pair[0]] - raw[pair[1]]).norm()
        assert 0.6 < float(ours / theirs) < 1.5


def test_what_is_not_finite_or_has_no_places_is_not_described():
    model, latents, rows = drawn(tiny_sd())
    latents[1, 0, 0, 0] = math.nan
    assert describe(model.denoiser, latents, rows, 5.0) is None
    toy = ToyDenoiser()
    assert describe(toy, torch.randn(2, *SHAPE), [{"prompt": torch.ones(1, 4)}] * 2, 3.0) is None
    toy.module = torch.nn.Linear(3, 3)  # no attention at all
    assert attention_inputs(toy.module) == []
