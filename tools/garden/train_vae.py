"""Stages vae and decoder: an autoencoder of 64x64x3 pictures and 16x16x4 latents, trained by reconstruction alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

from tools.garden.pictures import Scene, centre, radius
from tools.garden.training_tools import Average, TimeBudget, as_tensor, shuffled

SHAPE = {
    "block_out_channels": (16, 32, 64),
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 8,
    "sample_size": 64,
    "mid_block_add_attention": False,
    "force_upcast": False,
}
KL_WEIGHT = 5e-4  # per latent number; 5e-7 per picture's sum
GRADIENT_WEIGHT = 0.5
BLOOM_WEIGHT = 4
LATENT_NOISE = 0.03  # while the decoder is refined, so that it bears the denoiser's small errors


def bloom_weights(scenes: list[Scene]) -> torch.Tensor:
    """Return the weight of each pixel, (B, 1, 64, 64), uint8: more on the bloom, which people look at."""
    row, column = torch.meshgrid(torch.arange(64) + 0.5, torch.arange(64) + 0.5, indexing="ij")
    out = torch.ones(len(scenes), 1, 64, 64, dtype=torch.uint8)
    for weight, scene in zip(out, scenes, strict=True):
        x, y = centre(scene)
        weight[0][(column - x).hypot(row - y) < 1.2 * radius(scene) + 1] = BLOOM_WEIGHT
    return out


def reconstruction_loss(output: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return the L1 loss of pixels, of their differences to the right and below, and of the image at half size.

    Args:
        output, target: (B, 3, 64, 64).
        weight: of pixels, (B, 1, 64, 64).
    """
    error, weight = output - target, weight.to(output.dtype)
    loss = (error.abs() * weight).mean() + 0.5 * F.avg_pool2d(error, 2).abs().mean()
    for axis in (2, 3):
        loss = loss + GRADIENT_WEIGHT * (error.diff(dim=axis).abs() * weight.narrow(axis, 1, 63)).mean()
    return loss


def train_vae(
    scenes: list[Scene], pictures: np.ndarray, out: Path, minutes: float, device: str, seed: int, batch: int = 32
) -> dict:
    """Train, standardise the latents, save to `out`/vae in float32, and return the record of the stage.

    Goes on from `out`/vae-unfinished if an interrupted run left one.
    """
    torch.manual_seed(seed)
    unfinished = out / "vae-unfinished"
    vae = AutoencoderKL.from_pretrained(unfinished) if unfinished.exists() else AutoencoderKL(**SHAPE)
    vae, weights = vae.to(device).train(), bloom_weights(scenes)
    average = Average(vae, 0.998)
    optimiser = torch.optim.AdamW(vae.parameters(), lr=2e-3, betas=(0.9, 0.99), weight_decay=1e-4)
    budget, log, recent = TimeBudget(optimiser, minutes), [], []
    for index in shuffled(len(pictures), batch, seed):
        if not budget.tick():
            break
        images = as_tensor(pictures[index.numpy()]).to(device) * 2 - 1
        with torch.autocast(device, torch.bfloat16):
            posterior = vae.encode(images).latent_dist
            output = vae.decode(posterior.sample()).sample
        loss = reconstruction_loss(output.float(), images, weights[index].to(device))
        loss = loss + KL_WEIGHT * posterior.kl().mean() / posterior.mean[0].numel()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimiser.step()
        average.update(vae)
        recent.append(loss.item())
        if budget.steps % 100 == 0:
            log.append([budget.steps, round(float(np.mean(recent)), 5)])
            print(f"vae {budget.steps} {budget.spent:.0f}s loss {log[-1][1]}", flush=True)
            recent.clear()
            if budget.steps % 1000 == 0:
                average.module.save_pretrained(unfinished)
    vae = average.module
    standardise(vae, as_tensor(pictures[:2000]).to(device))
    vae.save_pretrained(out / "vae")
    return {"steps": budget.steps, "batch": batch, "seconds": round(budget.spent), "seed": seed, "loss": log}


def refine_decoder(
    scenes: list[Scene], pictures: np.ndarray, out: Path, minutes: float, device: str, seed: int, batch: int = 32
) -> dict:
    """Train the decoder alone, which leaves the latents as they are; save in half precision, return the record."""
    torch.manual_seed(seed)
    vae = AutoencoderKL.from_pretrained(out / "vae", torch_dtype=torch.float32).to(device)
    weights, parts = bloom_weights(scenes), torch.nn.ModuleList([vae.decoder, vae.post_quant_conv])
    average = Average(parts, 0.998)
    optimiser = torch.optim.AdamW(parts.parameters(), lr=1.5e-3, betas=(0.9, 0.99), weight_decay=1e-4)
    budget, log, recent = TimeBudget(optimiser, minutes, 30), [], []
    for index in shuffled(len(pictures), batch, seed):
        if not budget.tick():
            break
        images = as_tensor(pictures[index.numpy()]).to(device) * 2 - 1
        with torch.autocast(device, torch.bfloat16):
            with torch.no_grad():
                latents = vae.encode(images).latent_dist.mean
            output = vae.decode(latents + LATENT_NOISE * torch.randn_like(latents)).sample
        loss = reconstruction_loss(output.float(), images, weights[index].to(device))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parts.parameters(), 1.0)
        optimiser.step()
        average.update(parts)
        recent.append(loss.item())
        if budget.steps % 100 == 0:
            log.append([budget.steps, round(float(np.mean(recent)), 5)])
            print(f"decoder {budget.steps} {budget.spent:.0f}s loss {log[-1][1]}", flush=True)
            recent.clear()
    parts.load_state_dict(average.module.state_dict())
    vae.to("cpu", torch.float16).save_pretrained(out / "vae")
    return {"steps": budget.steps, "batch": batch, "seconds": round(budget.spent), "seed": seed, "loss": log}


@torch.no_grad()
def standardise(vae: AutoencoderKL, images: torch.Tensor) -> None:
    """Fold each latent channel's mean and standard deviation into the 1x1 convolutions, and set the scaling factor."""
    latents = encode(vae, images) / vae.config.scaling_factor
    mean, spread = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    quant, post_quant, n = vae.quant_conv, vae.post_quant_conv, len(mean)
    quant.weight[:n] /= spread[:, None, None, None]
    quant.bias[:n] = (quant.bias[:n] - mean) / spread
    quant.bias[n:] -= 2 * spread.log()
    post_quant.bias += (post_quant.weight[:, :, 0, 0] * mean).sum(1)
    post_quant.weight *= spread[None, :, None, None]
    vae.register_to_config(scaling_factor=1.0)
    vae.register_to_config(scaling_factor=round(1 / encode(vae, images).std().item(), 4))


@torch.no_grad()
def encode(vae: AutoencoderKL, images: torch.Tensor, batch: int = 100) -> torch.Tensor:
    """Return the scaled latents (B, 4, 16, 16), posterior means, of images (B, 3, 64, 64) in [0, 1]."""
    parts = [vae.encode(part * 2 - 1).latent_dist.mean for part in images.split(batch)]
    return torch.cat(parts) * vae.config.scaling_factor


@torch.no_grad()
def reconstruct(vae: AutoencoderKL, images: torch.Tensor, batch: int = 100) -> torch.Tensor:
    """Encode and decode images (B, 3, 64, 64) in [0, 1]."""
    parts = [vae.decode(vae.encode(part * 2 - 1).latent_dist.mean).sample for part in images.split(batch)]
    return (torch.cat(parts) / 2 + 0.5).clamp(0, 1)
