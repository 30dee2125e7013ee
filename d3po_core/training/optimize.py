"""The optimiser of every fit: AdamW after a linear warm-up, clipped, and with a scaled loss where the network is half
precision.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..diffusion.denoiser import Denoiser
from ..errors import D3POError


class LoraOptimizer:
    """One LoRA's.

    Args:
        denoiser: for its device and precision.
        parameters: the LoRA's, float32.
        learning_rate: after warm-up.
        warmup: updates over which it rises.
        grad_clip: largest gradient norm.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        parameters: Sequence[torch.nn.Parameter],
        learning_rate: float,
        warmup: int,
        grad_clip: float,
    ) -> None:
        self._parameters, self._rate, self._warmup, self._clip = list(parameters), learning_rate, warmup, grad_clip
        self.adamw = torch.optim.AdamW(self._parameters, lr=learning_rate, weight_decay=0.0)
        half = next(denoiser.module.parameters()).dtype == torch.float16
        self._scaler = _scaler(denoiser.device.type, half)
        self._scaler.scale(torch.zeros((), device=denoiser.device))  # a scale exists from the first call on

    @property
    def scale(self) -> float:
        """What the loss is multiplied by before its backward pass."""
        return self._scaler.get_scale()

    def zero_grad(self) -> None:
        """Forget what was accumulated."""
        self.adamw.zero_grad(set_to_none=True)

    def step(self, done: int) -> float:
        """Apply the accumulated gradient of the scaled loss.

        Args:
            done: updates before this one.

        Returns:
            The gradient's norm, unscaled, before it was clipped.

        Raises:
            D3POError: it is not a number; the parameters are as they were. (Of a scaled loss it may be: then this step
                is left out, and the scale falls.)
        """
        self._scaler.unscale_(self.adamw)
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, self._clip)
        if not norm.isfinite() and not self._scaler.is_enabled():
            raise D3POError(
                "Training has run away: the gradient is not a number any more.",
                "Lower the learning rate, or choose another reward, and start the round anew.",
                "Your picks and the last good state are saved.",
            )
        for item in self.adamw.param_groups:
            item["lr"] = self._rate * min(1.0, (done + 1) / max(1, self._warmup))
        self._scaler.step(self.adamw)
        self._scaler.update()
        return float(norm)


def _scaler(device: str, half: bool) -> torch.amp.GradScaler:
    """Keeps gradients through float16 from vanishing; before torch 2.3 there is one for CUDA only."""
    if hasattr(torch.amp, "GradScaler"):
        return torch.amp.GradScaler(device, enabled=half)
    return torch.cuda.amp.GradScaler(enabled=half and device == "cuda")


MOMENTS = ("exp_avg", "exp_avg_sq", "step")


def pack_optimizer(optimizer: torch.optim.Optimizer, parameters: Sequence[torch.nn.Parameter]) -> dict[str, Tensor]:
    """Parameters and moments by number; before the first step there are no moments."""
    tensors = {f"{i}.parameter": p.detach().clone() for i, p in enumerate(parameters)}
    for i, parameter in enumerate(parameters):
        for name in MOMENTS:
            if name in optimizer.state[parameter]:
                tensors[f"{i}.{name}"] = optimizer.state[parameter][name].clone()
    return tensors


@torch.no_grad()
def unpack_parameters(tensors: dict[str, Tensor], parameters: Sequence[torch.nn.Parameter]) -> None:
    """The parameters alone, in place."""
    for i, parameter in enumerate(parameters):
        parameter.copy_(tensors[f"{i}.parameter"])


def unpack_optimizer(
    tensors: dict[str, Tensor], optimizer: torch.optim.Optimizer, parameters: Sequence[torch.nn.Parameter]
) -> None:
    """The inverse of `pack_optimizer`, in place."""
    unpack_parameters(tensors, parameters)
    for i, parameter in enumerate(parameters):
        moments = {name: tensors[f"{i}.{name}"] for name in MOMENTS if f"{i}.{name}" in tensors}
        if moments:
            step = moments.pop("step")
            optimizer.state[parameter] = {"step": step, **{n: m.to(parameter.device) for n, m in moments.items()}}
