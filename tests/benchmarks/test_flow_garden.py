"""The embedded model as a flow: the same network in other terms, against Euler steps along its velocity."""

from __future__ import annotations

import torch

from benchmarks.flow_garden import HIGHEST, FlowDenoiser
from d3po_core.diffusion.denoiser import stack
from d3po_core.diffusion.rollout import CandidateNoise, make_plan
from d3po_core.models import load_model
from d3po_core.settings import SampleSettings


def test_a_picture_in_a_flows_terms_is_the_diffusions() -> None:
    base = load_model("garden").denoiser
    flow, rng = FlowDenoiser(base), torch.Generator().manual_seed(0)
    clean, noise = (torch.randn(2, 4, 16, 16, generator=rng) for _ in range(2))
    rows = stack(load_model("garden").encode(["a red tulip at night", "a white daisy"]))
    sigma = torch.tensor([0.8, 0.25], dtype=torch.float64)
    x = torch.stack([0.2 * clean[0] + 0.8 * noise[0], 0.75 * clean[1] + 0.25 * noise[1]])
    noisy = torch.stack([clean[0] + 4 * noise[0], clean[1] + noise[1] / 3])  # 0.8 / 0.2 and 0.25 / 0.75
    expected = base(noisy, torch.tensor([4.0, 1 / 3], dtype=torch.float64), rows, 2.5)
    found = flow(x, sigma, rows, 2.5)
    assert torch.allclose(found.guided, expected.guided, atol=1e-4)
    assert torch.allclose(found.cond, expected.cond, atol=1e-4)


def test_noise_alone_is_asked_for_at_the_highest_level_that_the_network_knows() -> None:
    base = load_model("garden").denoiser
    rows = load_model("garden").encode(["a red tulip at night"])[0]
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    expected = base(HIGHEST * noise, torch.tensor([HIGHEST], dtype=torch.float64), rows, 2.5).guided
    assert torch.allclose(FlowDenoiser(base)(noise, torch.ones(1), rows, 2.5).guided, expected, atol=1e-3)


def test_a_flow_draws_with_noise_in_its_first_steps_and_is_deterministic_for_a_seed() -> None:
    model = load_model("garden")
    flow, settings = FlowDenoiser(model.denoiser), SampleSettings(steps=8, guidance_scale=2.5)
    plan = make_plan(flow, settings)
    assert 1 <= plan.trained < 8
    model.denoiser = flow  # type: ignore[assignment]  # what a model uses of it is in both
    rows = model.encode(["a red tulip at night"])
    drawn = [
        model.sample(plan, [CandidateNoise(seed, 0, 0, (4, 16, 16), "same")], rows, 2.5).latents for seed in (0, 0, 1)
    ]
    assert torch.equal(drawn[0], drawn[1]) and not torch.allclose(drawn[0], drawn[2])
    assert model.decode(drawn[0]).isfinite().all()
