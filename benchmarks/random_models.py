"""Random Stable-Diffusion UNets, and groups drawn with them: for what costs time or memory, not for what learns.

The networks predict v, so that the denoised latents of a random network stay of unit size and trajectories look like
those of a trained one.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from d3po_core.diffusion.denoiser import Conditioning
from d3po_core.diffusion.rollout import CandidateNoise, make_plan, sample
from d3po_core.diffusion.steps import LinearSteps
from d3po_core.lora import LayerWeights, LoraWeights
from d3po_core.models.architectures import ARCHITECTURES
from d3po_core.models.model import DiffusersDenoiser
from d3po_core.models.schedules import DiffusionSchedule
from d3po_core.picks import Pick, pairs, scores
from d3po_core.settings import LoraSettings, SampleSettings
from d3po_core.training.rows import TrainingGroup

TEXT = 128  # width of the text embeddings
TOKENS = 77
RECORDED = ("x", "cond", "guided", "latents")


def random_unet(channels: tuple[int, ...], side: int, seed: int = 0) -> nn.Module:
    """Make a frozen UNet with attention at every level, for 4-channel latents of this size."""
    from diffusers import UNet2DConditionModel

    torch.manual_seed(seed)
    unet: Any = UNet2DConditionModel(
        sample_size=side,
        block_out_channels=channels,
        down_block_types=("CrossAttnDownBlock2D",) * len(channels),
        up_block_types=("CrossAttnUpBlock2D",) * len(channels),
        layers_per_block=1,
        cross_attention_dim=TEXT,
    )
    frozen: nn.Module = unet.eval().requires_grad_(False)
    return frozen


def scheduler() -> Any:
    """Return Stable Diffusion's noise schedule."""
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="v_prediction",
    )


def denoiser_of(unet: nn.Module) -> DiffusersDenoiser:
    """Return the project's denoiser of a network alone, without text encoder and VAE."""
    architecture = ARCHITECTURES["StableDiffusionPipeline"]
    return DiffusersDenoiser(SimpleNamespace(unet=unet), architecture, DiffusionSchedule(scheduler()))


def random_prompt(seed: int) -> Conditioning:
    """Return random text embeddings of a prompt and of the negative one, one row."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(1, TOKENS, TEXT, generator=generator) for name in ("prompt_embeds", "negative_prompt_embeds")
    }


def random_lora(module: nn.Module, settings: LoraSettings, size: float, seed: int = 1) -> LoraWeights:
    """Attach a LoRA as after some training: its `up` is not zero any more."""
    from d3po_core.lora.targets import initial_weights

    generator = torch.Generator().manual_seed(seed)
    return {
        path: LayerWeights(w.down, size * torch.randn(w.up.shape, generator=generator), w.alpha)
        for path, w in initial_weights(module, settings, None, seed).items()
    }


def draw_group(denoiser: DiffusersDenoiser, side: int, settings: SampleSettings, number: int) -> TrainingGroup:
    """Draw a group of candidates, ranked in the order in which they were drawn, as training sees it."""
    plan = make_plan(denoiser, settings)
    prompt, count = random_prompt(number), settings.candidates
    noises = [CandidateNoise(settings.seed, number, c, (4, side, side), settings.start) for c in range(count)]
    batch = {name: value.expand(count, -1, -1) for name, value in prompt.items()}
    drawn = sample(denoiser, plan, noises, batch, settings.guidance_scale)
    pick = Pick("ranking", tuple(range(count)))
    return TrainingGroup(
        id=f"group {number}",
        pairs=pairs(pick, count),
        scores=scores(pick, count),
        steps=plan.steps[: plan.trained],
        x=drawn.x,
        cond=drawn.cond,
        guided=drawn.guided,
        latents=drawn.latents,
        policy="base",
        conditioning=prompt,
        guidance_scale=settings.guidance_scale,
    )


def save_groups(groups: list[TrainingGroup], path: Path) -> None:
    """Groups for other processes, in full precision."""
    tensors: dict[str, torch.Tensor] = {}
    for i, group in enumerate(groups):
        steps = torch.stack([getattr(group.steps, name) for name in LinearSteps.__dataclass_fields__])
        recorded = {name: getattr(group, name) for name in RECORDED}
        parts = {**recorded, "steps": steps, **group.conditioning}
        tensors |= {f"{i}/{name}": value.contiguous() for name, value in parts.items()}
    save_file(tensors, path, {"guidance_scale": str(groups[0].guidance_scale)})


def load_groups(path: Path, guidance_scale: float) -> list[TrainingGroup]:
    """Load the groups that `save_groups` saved."""
    by_group: dict[str, dict[str, torch.Tensor]] = {}
    for name, value in load_file(path).items():
        number, _, part = name.partition("/")
        by_group.setdefault(number, {})[part] = value
    return [_group(number, parts, guidance_scale) for number, parts in sorted(by_group.items())]


def _group(number: str, parts: dict[str, torch.Tensor], guidance_scale: float) -> TrainingGroup:
    count = len(parts["x"])
    pick = Pick("ranking", tuple(range(count)))
    return TrainingGroup(
        id=number,
        pairs=pairs(pick, count),
        scores=scores(pick, count),
        steps=LinearSteps(*parts["steps"]),
        policy="base",
        conditioning={name: parts[name] for name in ("prompt_embeds", "negative_prompt_embeds")},
        guidance_scale=guidance_scale,
        **{name: parts[name] for name in RECORDED},
    )
