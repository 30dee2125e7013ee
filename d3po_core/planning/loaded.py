"""What work takes on a model that is loaded: memory, for which its weights are put aside meanwhile, and time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..app.cost import gigabytes
from ..diffusion.denoiser import Conditioning, denoise
from ..diffusion.trainable import replaced_tensors
from ..lora import attach
from ..models.model import DiffusersModel
from ..settings import LoraSettings, RewardSettings, SampleSettings, TrainSettings
from ..training.passes import checkpointing
from .counting import META
from .networks import blank_conditioning, parts
from .phases import teaching_by_reward


@contextmanager
def without_values(model: DiffusersModel) -> Iterator[None]:
    """Put tensors without values in place of all weights of a model, until the context ends.

    The weights stay where they are, untouched. Nothing else may use the model meanwhile.
    """
    modules = [each for part in parts(model.pipeline).values() for each in part.modules()]
    with replaced_tensors(modules, _blank):
        yield


def _blank(value: Tensor) -> Tensor:
    blank = torch.empty_like(value, device=META)
    return nn.Parameter(blank, requires_grad=False) if isinstance(value, nn.Parameter) else blank


def reward_memory(model: DiffusersModel, sample: SampleSettings, settings: RewardSettings, lora: LoraSettings) -> str:
    """Return what a round by a reward takes in memory, in a sentence; "" where the model cannot be counted.

    Args:
        model: loaded; it is not changed.
        sample: how pictures are drawn.
        settings, lora: how it is trained.
    """
    try:
        with without_values(model):
            held = list(parts(model.pipeline).values())
            teaching = teaching_by_reward(model, blank_conditioning(model), sample, settings, lora, held)
    except (RuntimeError, NotImplementedError, TypeError):  # quantised weights, layers that need values
        return ""
    at_once = f"{teaching.rows} picture{'s' * (teaching.rows > 1)} at once"
    return f"Memory: about {gigabytes(teaching.peak)} GB ({at_once}, without what the reward's own network takes)."


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
