"""What following a reward takes in memory, over the number of steps it is followed through: `python -m
benchmarks.draft_memory`.

A random UNet, 20 steps, guidance, one picture, a reward on latents. Every line runs in a process of its own; peak
resident memory is compared with that of drawing the picture without gradient. In the last of these lines stands a D3PO
update of one row, the trainer's smallest.

A VAE adds its own, once, whatever K is: the second table is of one decode in the shape of Stable Diffusion's, random,
of one picture with the gradient followed back to its latents, whole and in overlapping tiles
(tiled_decoding.py) of a part of its side, compared with decoding without gradient.

Seeds: network 0, prompt 0, noise 0, VAE 0.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from fractions import Fraction

import torch
from torch import nn

from benchmarks.memory_use import MIB, module_bytes, peak_resident
from benchmarks.random_models import denoiser_of, draw_group, random_prompt, random_unet
from d3po_core.diffusion.denoiser import starting_latents
from d3po_core.diffusion.draft import renoised, sample_through
from d3po_core.diffusion.rollout import make_plan
from d3po_core.diffusion.tiled_decoding import decode_in_tiles
from d3po_core.lora import attach
from d3po_core.settings import LoraSettings, SampleSettings
from d3po_core.training.passes import row_log_ratios
from d3po_core.training.rows import group_rows

CHANNELS, SIDE, STEPS, GUIDANCE = (64, 128, 256), 32, 20, 5.0
QUICK = (32, 64), 8, 4
LINES = ["sampling", "1", "1 checkpointed", "3", "3 checkpointed", "10", "10 checkpointed"]
LINES += ["20", "20 checkpointed", "LV", "D3PO"]
DECODER, PIXELS = (128, 256, 512, 512), 512
QUICK_DECODER = (32, 32, 64, 64), 128
DECODES = ["without gradient", "whole", "tiles of 5/8", "tiles of 3/8"]


def worker(line: str, channels: tuple[int, ...], side: int, steps: int) -> dict[str, float]:
    """Run one line of the first table in this process; return bytes and seconds."""
    unet = random_unet(channels, side)
    settings = SampleSettings(steps=steps, guidance_scale=GUIDANCE, candidates=2)
    size, begin = module_bytes(unet), time.perf_counter()
    if line == "D3PO":
        _d3po_row(unet, side, settings)
    else:
        _reward(unet, side, settings, line)
    return {"network": size, "peak": peak_resident(), "seconds": time.perf_counter() - begin}


def _reward(unet: nn.Module, side: int, settings: SampleSettings, line: str) -> None:
    denoiser = denoiser_of(unet)
    attach(unet, LoraSettings(targets="attention"))
    plan, prompt = make_plan(denoiser, settings), random_prompt(0)
    torch.manual_seed(0)
    noises = list(torch.randn(settings.steps, 1, 4, side, side))
    x = starting_latents(denoiser, torch.randn(1, 4, side, side), float(plan.steps.sigma[0]))
    if line in ("sampling", "LV"):
        with torch.no_grad():
            x = sample_through(denoiser, plan.steps, x, noises, prompt, GUIDANCE, 1)
        if line == "LV":
            for noise in noises[:2]:
                renoised(denoiser, x, float(plan.steps.sigma[-1]), noise, prompt, GUIDANCE).square().mean().backward()
        return
    last, _, how = line.partition(" ")
    count = min(int(last), settings.steps)
    latents = sample_through(denoiser, plan.steps, x, noises, prompt, GUIDANCE, count, checkpointing=bool(how))
    latents.square().mean().backward()


def _d3po_row(unet: nn.Module, side: int, settings: SampleSettings) -> None:
    denoiser = denoiser_of(unet)
    attach(unet, LoraSettings(targets="attention"))
    group = draw_group(denoiser, side, settings, 0)
    row_log_ratios(denoiser, group_rows(group, group.cond, False, denoiser.device)[slice(0, 1)]).sum().backward()


def decode_worker(line: str, channels: tuple[int, ...], pixels: int) -> dict[str, float]:
    """Run one line of the second table in this process; return bytes and seconds."""
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    blocks = {"down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4}
    vae = AutoencoderKL(block_out_channels=channels, layers_per_block=2, **blocks).eval().requires_grad_(False)
    del vae.encoder
    size, begin = module_bytes(vae), time.perf_counter()
    latents = torch.randn(1, 4, pixels // 8, pixels // 8)
    tile = int(pixels * Fraction(line.split()[-1])) if "/" in line else 0
    with torch.set_grad_enabled(line != "without gradient"):
        image = decode_in_tiles(lambda part: vae.decode(part).sample, latents.requires_grad_(), tile)
        if image.requires_grad:
            image.square().mean().backward()
    return {"network": size, "peak": peak_resident(), "seconds": time.perf_counter() - begin}


def table(lines: list[str], kind: str, quick: bool) -> float:
    """Run all lines, each in a process of its own, and print them beside the first; return the bytes of the network."""
    first = 0.0
    for line in lines:
        command = [sys.executable, "-m", "benchmarks.draft_memory", f"--{kind}", line, *["--quick"] * quick]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr)
        figures = json.loads(done.stdout.splitlines()[-1])
        first = first or figures["peak"]
        over = (figures["peak"] - first) / MIB
        print(f"{line:20}{figures['peak'] / MIB:>11,.0f}{over:>15,.0f}{figures['seconds']:>9.1f}", flush=True)
    return float(figures["network"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tiny network, to see that it works")
    parser.add_argument("--line", help=argparse.SUPPRESS)
    parser.add_argument("--decode", help=argparse.SUPPRESS)
    options = parser.parse_args()
    scale = QUICK if options.quick else (CHANNELS, SIDE, STEPS)
    decoder = QUICK_DECODER if options.quick else (DECODER, PIXELS)
    torch.set_num_threads(2)
    if options.line:
        print(json.dumps(worker(options.line, *scale)))
        return
    if options.decode:
        print(json.dumps(decode_worker(options.decode, *decoder)))
        return
    print(
        f"Random UNet {scale[0]}, latents 4x{scale[1]}x{scale[1]}, {scale[2]} steps, guidance {GUIDANCE:g}, float32\n"
    )
    print(f"{'steps followed':20}{'peak, MiB':>11}{'over sampling':>15}{'seconds':>9}")
    network = table(LINES, "line", options.quick)
    print(f"\nnetwork: {network / MIB:,.0f} MiB\n")
    print(f"Random VAE {decoder[0]}, {decoder[1]} pixels a side, float32\n")
    print(f"{'decoding':20}{'peak, MiB':>11}{'over no grad.':>15}{'seconds':>9}")
    network = table(DECODES, "decode", options.quick)
    print(f"\nnetwork: {network / MIB:,.0f} MiB")


if __name__ == "__main__":
    main()
