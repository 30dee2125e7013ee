"""Seconds of one step, measured on a loaded model."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from ..diffusion.denoiser import Conditioning, denoise
from ..lora import attach
from ..models.model import DiffusersModel
from ..settings import LoraSettings, SampleSettings, TrainSettings
from ..training.passes import checkpointing
from .networks import blank_conditioning


def seconds_per_step(model: DiffusersModel, sample: SampleSettings, train: TrainSettings) -> tuple[float, float]:
    """Return seconds of one picture's step of drawing, and of one row's forward and backward pass.

    Each is done twice, and the second time counts: the first one loads kernels. The LoRA is taken off again.

    Args:
        model: loaded.
        sample, train: how it is drawn and taught.
    """
    device, denoiser = model.denoiser.device, model.denoiser
    row: Conditioning = {
        name: torch.zeros(value.shape, dtype=value.dtype) for name, value in blank_conditioning(model).items()
    }
    x = torch.randn(1, *model.latent_shape(sample.height, sample.width), device=device)
    sigma = denoiser.sigmas(sample.steps, sample.schedule)[:1]
    scale = sample.guidance_scale

    @torch.no_grad()
    def draw() -> None:
        denoise(denoiser, x, sigma, row, scale)

    def teach() -> None:
        prediction = denoise(denoiser, x, sigma, row, scale, train.guided_loss)
        (prediction.guided if train.guided_loss else prediction.cond).square().mean().backward()

    drawing = _seconds(draw, device)
    lora = attach(denoiser.module, LoraSettings().with_targets("all"))
    try:
        with checkpointing(denoiser.module, train.checkpointing):
            return drawing, _seconds(teach, device)
    finally:
        lora.remove()


def _seconds(work: Callable[[], None], device: torch.device) -> float:
    """Return the seconds of a piece of work, done for the second time."""
    for _ in range(2):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    return time.perf_counter() - start
