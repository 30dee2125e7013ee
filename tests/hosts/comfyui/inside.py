# ruff: noqa: E402 - the host's modules can be imported only once its folder is known
"""Inside the host's own process: what the scripts `inside_*.py` share.

Each is run by the host's Python as `python inside_....py MODELS`, with COMFYUI_DIR set and the folder that
`tiny_checkpoint.py` wrote into, and prints JSON. Importing this imports the host, and the pack as "pack".
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, os.environ["COMFYUI_DIR"])
models = Path(sys.argv.pop())

import comfy.cli_args

comfy.cli_args.args.cpu = True

import comfy.samplers
import comfy.sd
import torch
from comfy.k_diffusion import sampling as k_diffusion
from torch import Tensor

import nodes as host_nodes

ROOT = Path(__file__).parents[3]
spec = importlib.util.spec_from_file_location("pack", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
assert spec and spec.loader
pack = importlib.util.module_from_spec(spec)
sys.modules["pack"] = pack
spec.loader.exec_module(pack)

from pack.d3po_core.diffusion.rollout import CandidateNoise, SamplingPlan, Trajectory, make_plan
from pack.d3po_core.settings import SampleSettings
from pack.nodes.host.model import HostModel
from pack.nodes.host.types import Cond

CANDIDATES, STEPS, SCALE = 2, 5, 3.0
EVERYWHERE = {"window": "all", "noise": "all"}
Function = Callable[..., Tensor]


class Loaded(NamedTuple):
    """A checkpoint's parts, as the host's loader node gives them, and two prompts."""

    patcher: Any
    clip: Any
    vae: Any
    positive: Cond
    negative: Cond
    latent: dict[str, Tensor]


@cache
def checkpoint(name: str) -> Loaded:
    """One of the tiny checkpoints."""
    file = str(models / "checkpoints" / f"{name}.safetensors")
    with torch.inference_mode():
        patcher, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(file, output_vae=True, output_clip=True)
        channels = patcher.model.latent_format.latent_channels
        latent = {"samples": torch.zeros(1, channels, 8, 8)}
        return Loaded(patcher, clip, vae, prompt(clip, "a lake at dawn"), prompt(clip, "blurry"), latent)


def prompt(clip: Any, text: str) -> Cond:
    return host_nodes.CLIPTextEncode().encode(clip, text)[0]


def seeds(shape: tuple[int, ...], count: int = CANDIDATES) -> list[CandidateNoise]:
    return [CandidateNoise(0, 0, c, shape, "same") for c in range(count)]


def plan_of(model: HostModel, **changes: Any) -> SamplingPlan:
    return make_plan(model.denoiser, SampleSettings(steps=STEPS, **(changes or EVERYWHERE)))


def ours(model: HostModel, plan: SamplingPlan, name: str = "lake", scale: float = SCALE) -> Trajectory:
    """Recorded sampling."""
    with torch.inference_mode():
        return model.sample(plan, seeds(model.latent_shape()), model.encode([name]) * CANDIDATES, scale)


class ByTheHost(NamedTuple):
    """The host's own sampling, and the denoised predictions that it reported at every step (B, S, ...)."""

    latents: Tensor
    denoised: Tensor


def by_the_host(
    patcher: Any,
    positive: Cond,
    negative: Cond,
    latent: dict[str, Tensor],
    sigmas: Tensor,
    function: Function = k_diffusion.sample_euler_ancestral,
    scale: float = SCALE,
) -> ByTheHost:
    """With the noise that ours takes; no line of the pack is involved."""
    image = latent["samples"].repeat(CANDIDATES, *[1] * (latent["samples"].dim() - 1))
    drawn = seeds(tuple(image.shape[1:]))
    start = torch.stack([noise.start() for noise in drawn])
    fresh = {"noise_sampler": lambda sigma, sigma_next: torch.stack([noise.step() for noise in drawn])}
    seen: list[Tensor] = []
    with torch.inference_mode():
        guider = comfy.samplers.CFGGuider(patcher.clone())
        guider.set_conds(positive, negative)
        guider.set_cfg(scale)
        latents = guider.sample(
            *(start, image, comfy.samplers.KSAMPLER(function, extra_options=fresh), sigmas.float()),
            denoise_mask=latent.get("noise_mask"),
            callback=lambda step, denoised, x, total: seen.append(denoised.clone()),
            seed=0,
        )
    return ByTheHost(latents, torch.stack(seen, 1))


def window_then_euler(trained: int) -> Function:
    """The host's `euler_ancestral` on the first steps, its `euler` on the others."""

    def function(model: Any, x: Tensor, sigmas: Tensor, noise_sampler: Any = None, **options: Any) -> Tensor:
        x = k_diffusion.sample_euler_ancestral(model, x, sigmas[: trained + 1], noise_sampler=noise_sampler, **options)
        return k_diffusion.sample_euler(model, x, sigmas[trained:], **options)

    return function


def differs(a: Tensor, b: Tensor) -> float:
    """Relative difference."""
    return float((a - b).norm() / b.norm())


def report(measures: dict[str, Any]) -> None:
    """What the test reads."""
    print(json.dumps(measures))
