# ruff: noqa: E402 - the host's modules can be imported only once its folder is known
"""Measures the adapter inside the host's own process: `python inside.py CHECKPOINT` prints JSON.

Compared are the host's own samplers on the same noise, and the host before and after a training.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, os.environ["COMFYUI_DIR"])
checkpoint = sys.argv.pop()

import comfy.cli_args

comfy.cli_args.args.cpu = True

import comfy.samplers
import comfy.sd
import torch
from comfy.k_diffusion import sampling as k_diffusion
from torch import Tensor

import nodes as host_nodes

ROOT = Path(__file__).parents[2]
spec = importlib.util.spec_from_file_location("pack", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
assert spec and spec.loader
pack = importlib.util.module_from_spec(spec)
sys.modules["pack"] = pack
spec.loader.exec_module(pack)

from pack.d3po_core.denoiser import stack
from pack.d3po_core.lora import attach
from pack.d3po_core.rollout import CandidateNoise, make_plan
from pack.d3po_core.settings import LoraSettings, SampleSettings
from pack.nodes.host import HostModel, host_sampling

CANDIDATES, STEPS, SCALE = 3, 5, 3.0
found: dict[str, Any] = {}
with torch.inference_mode():
    patcher, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(checkpoint, output_vae=True, output_clip=True)
    positive, negative = (host_nodes.CLIPTextEncode().encode(clip, text)[0] for text in ("a lake at dawn", "blurry"))
    latent = {"samples": torch.zeros(1, 4, 8, 8)}


def noises(model: HostModel) -> list[CandidateNoise]:
    return [CandidateNoise(0, 0, c, model.latent_shape(), "same") for c in range(CANDIDATES)]


def by_the_host(model: HostModel, function: Any, sigmas: Tensor) -> Tensor:
    """The host's own sampling with the noise that ours takes."""
    drawn = noises(model)
    start = torch.stack([noise.start() for noise in drawn])
    fresh = {"noise_sampler": lambda sigma, sigma_next: torch.stack([noise.step() for noise in drawn])}
    guider = comfy.samplers.CFGGuider(patcher.clone())
    guider.set_conds(positive, negative)
    guider.set_cfg(SCALE)
    sampler = comfy.samplers.KSAMPLER(function, extra_options=fresh)
    return guider.sample(start, torch.zeros_like(start), sampler, sigmas.float(), seed=0)


def window_then_euler(trained: int) -> Any:
    def function(model: Any, x: Tensor, sigmas: Tensor, noise_sampler: Any = None, **options: Any) -> Tensor:
        x = k_diffusion.sample_euler_ancestral(model, x, sigmas[: trained + 1], noise_sampler=noise_sampler, **options)
        return k_diffusion.sample_euler(model, x, sigmas[trained:], **options)

    return function


model = HostModel(patcher, latent, vae, {"lake": (positive, negative)})
rows = model.encode(["lake"]) * CANDIDATES
for name, changes in {"everywhere": {"window": "all", "noise": "all"}, "window": {"window_sigma": 1.0}}.items():
    plan = make_plan(model.denoiser, SampleSettings(steps=STEPS, **changes))
    sigmas = model.denoiser.sigmas(STEPS, "model")
    with torch.inference_mode():
        ours = model.sample(plan, noises(model), rows, SCALE)
        function = k_diffusion.sample_euler_ancestral if name == "everywhere" else window_then_euler(plan.trained)
        theirs = by_the_host(model, function, sigmas)
    found[name] = {
        **{
            "trained": plan.trained,
            "equal": torch.equal(ours.latents, theirs),
            "finite": bool(theirs.isfinite().all()),
        },
        "different": float((theirs[0] - theirs[1]).abs().max()),
    }

kinds = [value.is_inference() for value in patcher.model.parameters()]
steps = plan.steps[torch.arange(plan.trained)]


def train() -> None:
    """A gradient with a LoRA of zero effect, and predictions with it on and off."""
    lora = attach(model.denoiser.module, LoraSettings(), kind="hooks")
    x = ours.x[:, 0]
    sigma = steps.sigma[:1].expand(CANDIDATES)
    try:
        with torch.no_grad(), lora.off():
            off = model.denoiser(x, sigma, stack(rows), SCALE)
        on = model.denoiser(x, sigma, stack(rows), SCALE)
        on.guided.square().mean().backward()
    finally:
        lora.remove()
    found["off"] = {
        "guided": float((off.guided - ours.guided[:, 0]).norm() / ours.guided[:, 0].norm()),
        "cond": float((off.cond - ours.cond[:, 0]).norm() / ours.cond[:, 0].norm()),
        "on": float((on.guided - off.guided).abs().max()),
    }
    found["gradient"] = sum(float(p.grad.abs().sum()) for p in lora.parameters() if p.grad is not None)


def interrupted() -> None:
    raise KeyError("stopped")


host_sampling(model.denoiser, model.encode(["lake"]), model.latent_shape(), train)
for name, work in {"after": lambda: None, "after an exception": interrupted}.items():
    with contextlib.suppress(KeyError):
        host_sampling(model.denoiser, model.encode(["lake"]), model.latent_shape(), work)
    with torch.inference_mode():
        found[name] = torch.equal(by_the_host(model, function, sigmas), theirs)
found["hooks"] = sum(len(module._forward_hooks) for module in patcher.model.modules())
found["kinds"] = kinds == [value.is_inference() for value in patcher.model.parameters()]
found["imported"] = sorted({"peft", "diffusers", "gradio"} & set(sys.modules))
print(json.dumps(found))
