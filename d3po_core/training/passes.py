"""One update: how many rows to evaluate at once, the gradient in parts that fit into memory, and the step of AdamW."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ..diffusion.denoiser import Denoiser
from ..diffusion.losses import kl, log_ratio
from ..errors import D3POError
from ..processes import Processes
from .rows import Rows, TrainingGroup, group_rows, predict

MEMORY_SHARE = 0.5
"""Of the free memory, what activations may take."""
PROCESSOR_BYTES = 2**29
"""Activations that a processor has at once, where it has the choice: larger batches gain it nothing, and moving their
memory costs."""


def activation_bytes(denoiser: Denoiser, rows: Rows) -> int:
    """Count the bytes that autograd keeps for one row's backward pass, without parameters, in one forward pass."""
    kept: dict[int, int] = {}
    parameters = {p.untyped_storage()._cdata for p in denoiser.module.parameters()}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in parameters:  # its address in memory is 0 on the meta device
            kept[storage._cdata] = storage.nbytes()
        return tensor.detach()  # an operation that kept its own result would hold itself, and its memory, for ever

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        ratios = row_log_ratios(denoiser, rows[slice(0, 1)])
    del ratios
    return sum(kept.values())


def free_bytes(device: torch.device) -> int:
    """Return how much memory can still be taken on a device."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    import psutil  # every host has it; the standalone extra lists it

    return psutil.virtual_memory().available


def fit_batch_limits(denoiser: Denoiser, rows: Rows, micro_batch: int = 0, processes: int = 1) -> BatchLimits:
    """Return how many rows fit on the denoiser's device.

    Args:
        denoiser: the policy.
        rows: at least one, of the kind to be evaluated.
        micro_batch: rows per backward pass as somebody chose them, for which nothing is measured on a graphics card;
            0 takes what fits into free memory.
        processes: how many share a processor's memory.
    """
    on_processor = denoiser.device.type == "cpu"
    if micro_batch and not on_processor:
        return BatchLimits(micro_batch, micro_batch)
    # Of a network that accelerate has divided, the fullest card decides.
    devices = {torch.device(each) for each in getattr(denoiser.module, "hf_device_map", {}).values()}
    free = min(map(free_bytes, devices or {denoiser.device})) / (processes if on_processor else 1)
    return limits_within(free, activation_bytes(denoiser, rows), micro_batch, on_processor)


def limits_within(free: float, each: int, micro_batch: int, on_processor: bool) -> BatchLimits:
    """Return how many rows fit into free memory.

    Args:
        free: bytes.
        each: bytes of one row's activations.
        micro_batch: see `fit_batch_limits`.
        on_processor: whether a processor evaluates them.
    """
    size = max(1, each)
    backward = micro_batch or max(1, int(MEMORY_SHARE * free / size))
    quick = max(1, PROCESSOR_BYTES // size) if on_processor else backward
    return BatchLimits(backward, min(backward, quick), each)


@runtime_checkable
class Checkpointable(Protocol):
    """A module of diffusers that can recompute activations in the backward pass."""

    is_gradient_checkpointing: bool

    def enable_gradient_checkpointing(self) -> None: ...

    def disable_gradient_checkpointing(self) -> None: ...


@contextmanager
def checkpointing(module: object, on: bool) -> Iterator[None]:
    """Switch gradient checkpointing on by the module's own switch, if it has one (diffusers); hosts bring their own."""
    if not on or not isinstance(module, Checkpointable) or module.is_gradient_checkpointing:
        yield
        return
    module.enable_gradient_checkpointing()
    try:
        yield
    finally:
        module.disable_gradient_checkpointing()


@dataclass(frozen=True)
class BatchLimits:
    """Numbers of (image, step) rows to evaluate at once.

    Attributes:
        backward: as many graphs fit in memory; a loss that joins more rows takes two passes.
        forward: rows in one batch where no graph is kept, or where the rows' losses are independent.
        each: bytes that autograd keeps for a row; 0 where that was not measured.
    """

    backward: int
    forward: int
    each: int = field(default=0, compare=False)


def row_log_ratios(denoiser: Denoiser, rows: Rows) -> Tensor:
    """Return log pi_theta - log pi_ref of every row, mean over latent elements that all weigh alike, (R,)."""
    return log_ratio(predict(denoiser, rows), rows.ref, rows.z, rows.steps) / rows.x[0].numel()


@dataclass(frozen=True)
class MeanKL:
    """KL of one policy from another, summed over recorded steps, mean over images.

    Attributes:
        per_image: nats.
        per_element: nats per latent element, each image's divided by its own number, as images may differ in size.
    """

    per_image: float
    per_element: float


@torch.no_grad()
def mean_kl(
    denoiser: Denoiser,
    groups: Sequence[TrainingGroup],
    guided: Callable[[TrainingGroup], Tensor],
    batch: int,
    thin: bool = False,
) -> MeanKL:
    """Measure the KL of the active guided policy from another.

    The expectation is taken over the recorded latents, so where the other policy sampled them this is the KL of
    sampler from policy, an estimate without noise of its own.

    Args:
        denoiser: the policy.
        groups: at least one.
        guided: the other policy's guided predictions on a group, (C, K, ...).
        batch: rows per forward pass.
        thin: estimate it on one step of one image of each group, other ones in every group, at a small part of the
            cost.
    """
    by_image, by_element, images = 0.0, 0.0, 0
    for number, group in enumerate(groups):
        (candidates, steps), rows = group.shape, group_rows(group, guided(group), True, denoiser.device)
        if thin:
            place = (number % candidates) * steps + (2 * number + 1) * steps // (2 * len(groups))
            rows, candidates = rows[slice(place, place + 1)], 1
        nats = sum(float(kl(predict(denoiser, part), part.ref, part.steps).sum()) for part in rows.split(batch))
        nats *= steps if thin else 1
        by_image, by_element = by_image + nats, by_element + nats / group.elements
        images += candidates
    return MeanKL(by_image / images, by_element / images)


def backward(
    values_of: Callable[[Rows], Tensor],
    rows: Rows,
    loss_of: Callable[[Tensor], Tensor],
    limits: BatchLimits,
    scale: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Accumulate the gradient of scale * loss_of(values) in the LoRA's parameters.

    Args:
        values_of: what the loss needs of every row, by the trained policy: rows to (R, ...).
        rows: R rows.
        loss_of: values (R, ...) to a scalar.
        limits: rows at once; where R graphs fit it is one pass.
        scale: loss scale, for float16 networks.

    Returns:
        The loss, unscaled, and the values (R, ...), both without gradient.
    """
    if limits.backward >= len(rows):
        values = values_of(rows)
        loss = loss_of(values)
        (loss * scale).backward()
        return loss.detach(), values.detach()
    parts = rows.split(limits.forward)
    with torch.no_grad():
        values = torch.cat([values_of(part) for part in parts])
    leaf = values.requires_grad_()
    loss = loss_of(leaf)
    (weights,) = torch.autograd.grad(loss * scale, leaf)
    for part, weight in zip(parts, weights.split(limits.forward), strict=True):
        if weight.is_meta or weight.any():  # clamped and unpaired rows have no gradient
            (values_of(part) * weight).sum().backward()
    return loss.detach(), leaf.detach()


class LoraOptimizer:
    """AdamW after a linear warm-up, with clipped gradients, and a scaled loss where the network is half precision.

    Args:
        denoiser: for its device and precision.
        parameters: of one LoRA, float32.
        learning_rate: after warm-up.
        warmup: updates over which it rises.
        grad_clip: largest gradient norm.
        decay_over: updates over which it falls in a straight line, to 0 after the last; 0: it does not fall.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        parameters: Sequence[torch.nn.Parameter],
        learning_rate: float,
        warmup: int,
        grad_clip: float,
        decay_over: int = 0,
    ) -> None:
        self._parameters, self._clip = list(parameters), grad_clip
        self._rate, self._warmup, self._decay_over = learning_rate, warmup, decay_over
        self.adamw = torch.optim.AdamW(self._parameters, lr=learning_rate, weight_decay=0.0)
        half = next(denoiser.module.parameters()).dtype == torch.float16
        self._scaler = _scaler(denoiser.device.type, half)
        self._scaler.scale(torch.zeros((), device=denoiser.device))  # a scale exists from the first call on

    @property
    def scale(self) -> float:
        """Return the number that the loss is multiplied by before its backward pass."""
        return self._scaler.get_scale()

    def zero_grad(self) -> None:
        """Forget what was accumulated."""
        self.adamw.zero_grad(set_to_none=True)

    def add_up(self, processes: Processes) -> None:
        """Add up what all processes have accumulated, before a step; one that had nothing to do adds zeros."""
        if processes.size > 1:
            for parameter in self._parameters:
                parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            processes.add_up([parameter.grad for parameter in self._parameters if parameter.grad is not None])

    def step(self, done: int) -> float:
        """Apply the accumulated gradient of the scaled loss.

        Args:
            done: updates before this one.

        Returns:
            The gradient's norm, unscaled, before it was clipped.

        Raises:
            D3POError: the gradient is not a number; the parameters are as they were. With a scaled loss that is no
                error: the step is left out, and the scale falls.
        """
        self._scaler.unscale_(self.adamw)
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, self._clip)
        if not norm.isfinite() and not self._scaler.is_enabled():
            raise D3POError(
                "Training has run away: the gradient is not a number any more.",
                "Lower the learning rate, or choose another reward, and start the round anew.",
                "Your picks and the last good state are saved.",
            )
        left = 1 - done / self._decay_over if self._decay_over else 1.0
        for item in self.adamw.param_groups:
            item["lr"] = self._rate * min(1.0, (done + 1) / max(1, self._warmup)) * max(0.0, left)
        self._scaler.step(self.adamw)
        self._scaler.update()
        return float(norm)


def _scaler(device: str, half: bool) -> torch.amp.GradScaler:
    """Return what keeps gradients through float16 from vanishing; before torch 2.3 there is one for CUDA only."""
    if hasattr(torch.amp, "GradScaler"):
        return torch.amp.GradScaler(device, enabled=half)
    return torch.cuda.amp.GradScaler(enabled=half and device == "cuda")


MOMENTS = ("exp_avg", "exp_avg_sq", "step")


def pack_optimizer(optimizer: torch.optim.Optimizer, parameters: Sequence[torch.nn.Parameter]) -> dict[str, Tensor]:
    """Return parameters and moments by number; before the first step there are no moments."""
    tensors = {f"{i}.parameter": p.detach().clone() for i, p in enumerate(parameters)}
    for i, parameter in enumerate(parameters):
        for name in MOMENTS:
            if name in optimizer.state[parameter]:
                tensors[f"{i}.{name}"] = optimizer.state[parameter][name].clone()
    return tensors


def misfit(tensors: dict[str, Tensor], parameters: Sequence[torch.nn.Parameter]) -> str:
    """Return what is wrong with tensors that are no packed parameters and moments of a LoRA; "" if nothing is."""
    expected = {f"{i}.{name}": parameter for i, parameter in enumerate(parameters) for name in ("parameter", *MOMENTS)}
    if unknown := sorted(tensors.keys() - expected.keys()):
        return f"{unknown[0]} is not of this LoRA"
    for name, parameter in expected.items():
        value = tensors.get(name)
        if value is None:
            number, _, kind = name.partition(".")
            if kind == "parameter" or any(f"{number}.{other}" in tensors for other in MOMENTS):
                return f"{name} is missing"
        elif value.shape != (() if name.endswith(".step") else parameter.shape):
            return f"{name} has the shape {tuple(value.shape)}"
        elif not value.isfinite().all():
            return f"{name} is no number"
    return ""


@torch.no_grad()
def unpack_parameters(tensors: dict[str, Tensor], parameters: Sequence[torch.nn.Parameter]) -> None:
    """Copy packed parameters into the LoRA's, without moments."""
    for i, parameter in enumerate(parameters):
        parameter.copy_(tensors[f"{i}.parameter"])


def unpack_optimizer(
    tensors: dict[str, Tensor], optimizer: torch.optim.Optimizer, parameters: Sequence[torch.nn.Parameter]
) -> None:
    """Copy packed parameters and moments back; the inverse of `pack_optimizer`."""
    unpack_parameters(tensors, parameters)
    for i, parameter in enumerate(parameters):
        moments = {name: tensors[f"{i}.{name}"] for name in MOMENTS if f"{i}.{name}" in tensors}
        if moments:
            step = moments.pop("step")
            optimizer.state[parameter] = {"step": step, **{n: m.to(parameter.device) for n, m in moments.items()}}
