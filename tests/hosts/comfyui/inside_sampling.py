"""Recorded sampling beside the host's own, on the same noise: `python inside_sampling.py MODELS`."""

from __future__ import annotations

from typing import Any

from inside import EVERYWHERE, STEPS, by_the_host, checkpoint, differs, ours, plan_of, report, seeds, window_then_euler

# isort: split
import torch
from comfy.k_diffusion import sampling as k_diffusion
from pack.d3po_core.diffusion.rollout import SamplingPlan, Trajectory
from pack.nodes.host.model import HostModel

measures: dict[str, Any] = {}


def off_the_steps(trajectory: Trajectory, plan: SamplingPlan, shape: tuple[int, ...]) -> float:
    """How far recorded latents are from x_coef * x + denoised_coef * D + std * noise, relative, in the worst step."""
    drawn, worst = seeds(shape), 0.0
    for noise in drawn:
        noise.start()
    for k in range(plan.trained):
        step, noise = plan.steps[slice(k, k + 1)], torch.stack([each.step() for each in drawn])
        x_coef, denoised_coef, std = (float(value) for value in (step.x_coef, step.denoised_coef, step.std))
        expected = x_coef * trajectory.x[:, k] + denoised_coef * trajectory.guided[:, k] + std * noise
        worst = max(worst, differs(trajectory.x[:, k + 1], expected))
    return worst


for kind, window in {"tiny": 1.0, "tiny-sd3": 4.0}.items():
    loaded = checkpoint(kind)
    image = {"samples": torch.randn(loaded.latent["samples"].shape, generator=torch.Generator().manual_seed(1))}
    part = {**image, "noise_mask": torch.zeros(1, 64, 64)}
    part["noise_mask"][:, 16:48, 8:40] = 1
    for canvas, latent in {"empty": loaded.latent, "inpainted": part, "from a picture": image}.items():
        model = HostModel(loaded.patcher, latent, loaded.vae, {"lake": (loaded.positive, loaded.negative)})
        for name, changes in {"everywhere": EVERYWHERE, "window": {"window_sigma": window}}.items():
            plan = plan_of(model, **changes)
            mine = ours(model, plan)
            function = k_diffusion.sample_euler_ancestral if name == "everywhere" else window_then_euler(plan.trained)
            sigmas = model.denoiser.sigmas(STEPS, "model")
            theirs = by_the_host(loaded.patcher, loaded.positive, loaded.negative, latent, sigmas, function)
            measures[f"{kind}, {canvas}, {name}"] = {
                "trained": plan.trained,
                "equal": torch.equal(mine.latents, theirs.latents),
                "finite": bool(theirs.latents.isfinite().all()),
                "different": float((theirs.latents[0] - theirs.latents[1]).abs().max()),
                "predictions": torch.equal(mine.guided, theirs.denoised[:, : plan.trained].cpu()),
                # under a mask the host puts noise of its own around what is drawn
                "off the steps": 0 if canvas == "inpainted" else off_the_steps(mine, plan, model.latent_shape()),
            }
report(measures)
