"""What each kind of work takes in memory, by running it once on a model without values (networks.py).

The functions that run are the program's own: sampling, decoding, the rows of a round, its backward pass, AdamW. Where
one of them would evaluate the network many times alike, only the evaluation that finds most in memory is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from ..diffusion.denoiser import Conditioning, Denoiser, Prediction
from ..diffusion.image_model import ImageModel
from ..diffusion.rollout import CandidateNoise, SamplingPlan, Trajectory, make_plan, sample, to_tensors
from ..lora import Lora, LoraWeights, attach
from ..lora.targets import find_targets, layers, low_rank_shapes
from ..lora.weights import LayerWeights
from ..settings import FilledTrainSettings, LoraSettings, RewardSettings, SampleSettings, TrainSettings, fill_in
from ..training.methods import METHODS
from ..training.passes import BatchLimits, activation_bytes, backward, checkpointing, limits_within, pack_optimizer
from ..training.preference_optimizer import rows_at_once
from ..training.reward_gradient import PromptSample, RewardGradient
from ..training.rows import (
    Reference,
    Rows,
    TrainingGroup,
    group_rows,
    noise_images,
    noise_levels,
    predict,
    with_reference,
)
from .counting import META, counted


class Sparing:
    """A denoiser without values that evaluates its network only where `spare` does not say that it may be left out.

    Args:
        denoiser: on the meta device.
        spare: (number of the call, from 0) to whether its result may be made without the network.
    """

    def __init__(self, denoiser: Denoiser, spare: Callable[[int], bool]) -> None:
        self._denoiser, self._spare, self._calls = denoiser, spare, 0
        self.module, self.family = denoiser.module, denoiser.family
        self.clean, self.finished, self.sigmas = denoiser.clean, denoiser.finished, denoiser.sigmas

    @property
    def device(self) -> torch.device:
        return self._denoiser.device

    def __call__(
        self, x: Tensor, sigma: Tensor, conditioning: Conditioning, guidance_scale: float, guided: bool = True
    ) -> Prediction:
        """See `Denoiser`."""
        self._calls += 1
        if not self._spare(self._calls - 1):
            return self._denoiser(x, sigma, conditioning, guidance_scale, guided)
        one = torch.empty_like(x)
        return Prediction(one, one if guidance_scale == 1 or not guided else torch.empty_like(x))


@dataclass(frozen=True)
class SparingModel:
    """An image model with another denoiser."""

    model: ImageModel
    denoiser: Denoiser

    def decode(self, latents: Tensor) -> Tensor:
        """See `ImageModel.decode`."""
        return self.model.decode(latents)


def drawing(
    model: ImageModel,
    conditioning: Conditioning,
    settings: SampleSettings,
    modules: Sequence[nn.Module],
    decoding: Sequence[nn.Module] | None = None,
) -> tuple[int, int]:
    """Return the peak while a batch is drawn, and while it is decoded, in bytes, weights included.

    Args:
        model: without values.
        conditioning: of one prompt, without values.
        settings: how it is drawn; `batch` images at once.
        modules: the parts that are in memory.
        decoding: those while it is decoded; None for the same.
    """
    plan, shape = make_plan(model.denoiser, settings), model.latent_shape(settings.height, settings.width)
    count = _at_once(settings)
    with torch.no_grad(), counted(modules) as live:
        drawn = _drawn(model.denoiser, plan, shape, conditioning, settings, count)
        stored = to_tensors(drawn, slice(None), plan)
    kept, latents = list(stored.values()), drawn.latents
    del drawn
    with torch.no_grad(), counted(modules if decoding is None else decoding) as later:
        later.hold([*kept, latents])
        model.decode(latents)
    return live.peak, later.peak


def _at_once(settings: SampleSettings) -> int:
    """Return how many images are drawn at once: whole groups as far as a batch takes them."""
    groups = min(settings.groups, max(1, settings.batch // settings.candidates))
    return min(settings.batch, groups * settings.candidates)


def _drawn(
    denoiser: Denoiser,
    plan: SamplingPlan,
    shape: tuple[int, ...],
    conditioning: Conditioning,
    settings: SampleSettings,
    count: int,
) -> Trajectory:
    last = len(plan.steps) - 1  # when all that is recorded is in memory
    noises = [CandidateNoise(0, 0, candidate, shape, settings.start) for candidate in range(count)]
    rows = {name: value.expand(count, *value.shape[1:]) for name, value in conditioning.items()}
    return sample(Sparing(denoiser, lambda call: call != last), plan, noises, rows, settings.guidance_scale)


@dataclass(frozen=True)
class Teaching:
    """What a round takes.

    Attributes:
        peak: bytes, weights included.
        rows: of (image, step), or images of a reward's, in one backward pass.
        kept: bytes that autograd keeps for one of them, where that was needed; else 0.
        lora: bytes of the LoRA's values; its gradient is as large, and AdamW's moments twice as large.
    """

    peak: int
    rows: int
    kept: int
    lora: int


def teaching(
    denoiser: Denoiser,
    conditioning: Conditioning,
    shape: tuple[int, ...],
    sample_settings: SampleSettings,
    settings: TrainSettings,
    lora_settings: LoraSettings,
    modules: Sequence[nn.Module],
    *,
    attachment: str = "peft",
    free: float | None = None,
    on_processor: bool = False,
) -> Teaching:
    """Count a round by picks.

    Args:
        denoiser: without values, its own LoRA detached.
        conditioning: of one prompt, without values.
        shape: of one image's latents.
        sample_settings: how the groups were drawn.
        settings, lora_settings: how it is trained.
        modules: the parts that are in memory.
        attachment: see `lora.attach`.
        free: bytes beside these modules that the trainer finds, to choose how many rows it takes at once; None counts
            the least that works: a row at a time.
        on_processor: whether processors train it.
    """
    filled = fill_in(settings)
    with counted(modules) as live, _attached(denoiser.module, lora_settings.with_targets("all"), attachment) as lora:
        size = sum(p.untyped_storage().nbytes() for p in lora.parameters())
        group = _blank_group(denoiser, conditioning, shape, sample_settings, filled)
        with checkpointing(denoiser.module, filled.checkpointing):
            kept = 0
            if free is None:
                limits = BatchLimits(settings.micro_batch or 1, settings.micro_batch or 1)
            else:
                kept = activation_bytes(denoiser, _rows(denoiser, lora, group, filled)[slice(0, 1)])
                limits = limits_within(free - size, kept, settings.micro_batch, on_processor)
            count = rows_at_once(limits, sample_settings.candidates, len(group.steps), filled)
            optimiser = _after_a_step(lora)
            rows = _take(_rows(denoiser, lora, group, filled), count)
            live.peak = live.live
            _backward(denoiser, rows, filled)
        del optimiser
    return Teaching(live.peak, count, kept, size)


def teaching_by_reward(
    model: ImageModel,
    conditioning: Conditioning,
    sample_settings: SampleSettings,
    settings: RewardSettings,
    lora_settings: LoraSettings,
    modules: Sequence[nn.Module],
    attachment: str = "peft",
) -> Teaching:
    """Count a round by a reward; what the reward's own network takes is left out. See `teaching`."""
    denoiser, shape = model.denoiser, model.latent_shape(sample_settings.height, sample_settings.width)
    steps = make_plan(denoiser, sample_settings).steps
    count = min(settings.micro_batch or settings.batch, settings.batch)
    seen: list[int] = []

    def spare(call: int) -> bool:
        """Leave out evaluations without gradient, but for one."""
        if torch.is_grad_enabled():
            return False
        seen.append(call)
        return len(seen) > 1

    def reward(images: Tensor, prompts: list[str]) -> Tensor:
        return images.flatten(1).mean(1)

    with (
        counted(modules) as live,
        _attached(denoiser.module, lora_settings.with_targets("attention"), attachment) as lora,
    ):
        size = sum(p.untyped_storage().nbytes() for p in lora.parameters())
        optimiser = _after_a_step(lora)
        sparing = cast("ImageModel", SparingModel(model, Sparing(denoiser, spare)))  # what a gradient needs of one
        gradient = RewardGradient(sparing, reward, steps, shape, sample_settings.guidance_scale, settings)
        samples = [PromptSample("", conditioning, number) for number in range(count)]
        live.peak = live.live
        for _ in gradient.passes(samples, 0, count):
            pass
        del optimiser
    return Teaching(live.peak, count, 0, size)


def encoding(encoders: Sequence[nn.Module], tokens: int, modules: Sequence[nn.Module]) -> int:
    """Return the peak while a text is read, in bytes, weights included.

    Args:
        encoders: text encoders without values.
        tokens: of the text, at most.
        modules: the parts that are in memory.
    """
    with torch.no_grad(), counted(modules) as live:
        for encoder in encoders:
            most = getattr(encoder.config, "max_position_embeddings", tokens)
            encoder(torch.empty(1, min(tokens, most), dtype=torch.long, device=META), output_hidden_states=True)
    return live.peak


def blank_lora(module: nn.Module, settings: LoraSettings) -> LoraWeights:
    """Return a LoRA without values on the layers that the settings name."""
    known = layers(module)
    shapes = {path: low_rank_shapes(known[path], settings.rank) for path in find_targets(module, settings.targets)}
    return {
        path: LayerWeights(torch.empty(down, device=META), torch.empty(up, device=META), settings.alpha)
        for path, (down, up) in shapes.items()
    }


@contextmanager
def _attached(module: nn.Module, settings: LoraSettings, attachment: str) -> Iterator[Lora]:
    lora = attach(module, settings, kind=attachment, start=blank_lora(module, settings))
    try:
        yield lora
    finally:
        lora.remove()


def _after_a_step(lora: Lora) -> object:
    """Return what is in memory beside a LoRA after its first step: AdamW's moments, and the saved state."""
    parameters = lora.parameters()
    adamw = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.0)
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    adamw.step()
    adamw.zero_grad(set_to_none=True)
    return adamw, pack_optimizer(adamw, parameters)


def _blank_group(
    denoiser: Denoiser,
    conditioning: Conditioning,
    shape: tuple[int, ...],
    settings: SampleSettings,
    train: FilledTrainSettings,
) -> TrainingGroup:
    """Return an empty group, on the CPU as training loads it."""
    plan, candidates = make_plan(denoiser, settings), settings.candidates
    steps = plan.steps[: plan.trained]
    recorded = torch.zeros(candidates, plan.trained, *shape)
    return TrainingGroup(
        id="0",
        pairs=[],
        scores=[0.0] * candidates,
        steps=steps,
        x=torch.zeros(candidates, plan.trained + 1, *shape),
        cond=recorded,
        guided=recorded,
        latents=torch.zeros(candidates, *shape),
        policy="base",
        conditioning=conditioning,
        guidance_scale=settings.guidance_scale,
    )


def _rows(denoiser: Denoiser, lora: Lora, group: TrainingGroup, settings: FilledTrainSettings) -> Rows:
    """Return the rows of a group, as `PreferenceOptimizer` makes them."""
    if METHODS[settings.method].rows == "images":
        rng = torch.Generator().manual_seed(0)
        noised = noise_images(group, noise_levels(denoiser, settings.lowest_sigma), settings.draws, rng, denoiser)
        spared = Sparing(denoiser, lambda call: True)
        return with_reference(noised, Reference("base", spared, lora.off, len(noised)))
    guided = settings.guided_loss
    to_picture = settings.method == "d3po" and settings.credit == "picture"
    clean = denoiser.clean(group.latents) if to_picture else None
    return group_rows(group, group.guided if guided else group.cond, guided, denoiser.device, clean=clean)


def _take(rows: Rows, count: int) -> Rows:
    """Return this many rows, some of them more than once where there are fewer."""
    return rows[torch.arange(count) % len(rows)]


def _backward(denoiser: Denoiser, rows: Rows, settings: FilledTrainSettings) -> None:
    """Do a backward pass on all rows; the sum is taken for the loss, which is a few numbers a row."""
    method = METHODS[settings.method]
    backward(
        lambda part: method.values(predict(denoiser, part), part, settings),
        rows,
        lambda values: values.sum(),
        BatchLimits(len(rows), len(rows)),
    )
