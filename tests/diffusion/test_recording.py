"""Stored trajectories: what is written comes back, and imported images come back without steps."""

from __future__ import annotations

import dataclasses

import torch

from d3po_core.diffusion.rollout import (
    STORE_DTYPE,
    CandidateNoise,
    Trajectory,
    from_tensors,
    make_plan,
    sample,
    to_tensors,
)
from d3po_core.diffusion.steps import LinearSteps
from d3po_core.settings import SampleSettings
from tests.toy import SHAPE, ToyDenoiser


def test_a_stored_group_comes_back() -> None:
    """Two groups of 3 from one batch: latents to float16's precision, the trained steps' numbers exactly."""
    denoiser = ToyDenoiser()
    plan = make_plan(denoiser, SampleSettings(steps=8, window_sigma=4.0))
    noises = [CandidateNoise(7, number, c, SHAPE, "same") for number in range(2) for c in range(3)]
    drawn = sample(denoiser, plan, noises, {"prompt": torch.ones(6, 4)}, 3.0)
    for part in (slice(0, 3), slice(3, 6)):
        tensors = to_tensors(drawn, part, plan)
        assert {tensors[name].dtype for name in ("x", "cond", "guided", "latents")} == {STORE_DTYPE}
        trajectory, steps = from_tensors(tensors)
        for field in dataclasses.fields(Trajectory):
            stored, sampled = getattr(trajectory, field.name), getattr(drawn, field.name)[part]
            assert stored.dtype == torch.float32
            torch.testing.assert_close(stored, sampled, rtol=1e-3, atol=1e-6)
        assert len(steps) == plan.trained
        for field in dataclasses.fields(LinearSteps):
            assert torch.equal(getattr(steps, field.name), getattr(plan.steps, field.name)[: plan.trained])


def test_imported_images_have_no_steps() -> None:
    latents = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(0))
    trajectory, steps = from_tensors({"latents": latents.to(STORE_DTYPE)})
    assert torch.equal(trajectory.latents, latents.to(STORE_DTYPE).float())
    assert len(steps) == 0 and steps.std.dtype == torch.float64
    assert trajectory.x.shape == trajectory.cond.shape == trajectory.guided.shape == (3, 0, *SHAPE)
