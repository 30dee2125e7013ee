"""What the core knows of a diffusion model: a denoised prediction, and the module that a LoRA attaches to.

Epsilon, v and x0 prediction, SD1.x, SDXL and flow models differ only inside a `Denoiser` and in the three numbers per
step of `steps.py`. diffusers, ComfyUI and A1111 each supply one, in one file each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

Family = Literal["diffusion", "flow"]
"""How noise is mixed in: diffusion x = x0 + sigma*n (k-diffusion's space), flow x = (1 - sigma)*x0 + sigma*n."""

Conditioning = dict[str, Tensor]
"""All that a prompt (and its negative) gives the network. Every tensor has the batch as its first dimension."""


@dataclass(frozen=True)
class Prediction:
    """Denoised predictions of one forward pass, each of the shape of x.

    Attributes:
        cond: the conditional branch D(x, sigma, prompt).
        guided: uncond + guidance_scale * (cond - uncond); the same tensor as `cond` where nothing guides.
    """

    cond: Tensor
    guided: Tensor


class Denoiser(Protocol):
    """A model as the core sees it."""

    module: torch.nn.Module
    """Where a LoRA attaches: the UNet or transformer."""
    family: Family

    @property
    def device(self) -> torch.device: ...

    def __call__(
        self, x: Tensor, sigma: Tensor, conditioning: Conditioning, guidance_scale: float, guided: bool = True
    ) -> Prediction:
        """Predict the clean latents.

        Args:
            x: noisy latents (B, ...), in the family's own space, float32.
            sigma: noise levels (B,), float64 on the CPU; rows may differ.
            conditioning: as `encode` gave it, B rows.
            guidance_scale: classifier-free guidance (Ho and Salimans 2022), or the scale that a guidance-distilled
                network takes as an input.
            guided: False evaluates the conditional branch only, and `Prediction.guided` is that branch too.
        """
        ...

    def clean(self, latents: Tensor) -> Tensor:
        """Finished latents (B, ...), as `ImageModel.sample` gives them and a run keeps them, in the space of x."""
        ...

    def finished(self, x: Tensor) -> Tensor:
        """The inverse of `clean`; gradients flow."""
        ...

    def sigmas(self, steps: int, schedule: str) -> Tensor:
        """Noise levels of a sampling schedule, descending, float64 (steps + 1,): step i goes from i to i + 1.

        Args:
            steps: number of steps.
            schedule: "model" (spacing and end as in the model's own scheduler configuration) or "karras".
        """
        ...


def stack(conditionings: Sequence[Conditioning]) -> Conditioning:
    """Several conditionings as one batch; they must be of one size."""
    return {name: torch.cat([c[name] for c in conditionings]) for name in conditionings[0]}


def size(conditioning: Conditioning) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """What must be equal for conditionings to be one batch: a long prompt's is larger in some hosts."""
    return tuple((name, tuple(tensor.shape[1:])) for name, tensor in sorted(conditioning.items()))
