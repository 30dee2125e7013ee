"""What the core needs of a diffusion model: a denoised prediction, and the module that a LoRA attaches to.

Epsilon, v and x0 prediction, SD1.x, SDXL and flow models differ only inside a `Denoiser` and in the three numbers per
step of `steps.py`. There is one implementation for diffusers, one for ComfyUI and one for A1111 and Forge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from ..errors import check_stop

Family = Literal["diffusion", "flow"]
"""How noise is added: diffusion x = x0 + sigma*n (k-diffusion's space), flow x = (1 - sigma)*x0 + sigma*n."""

Conditioning = dict[str, Tensor]
"""The network's inputs for a prompt and its negative. Every tensor has the batch as its first dimension."""


@dataclass(frozen=True)
class Prediction:
    """Denoised predictions of one forward pass, each with the shape of x.

    Attributes:
        cond: the conditional branch D(x, sigma, prompt).
        guided: uncond + guidance_scale * (cond - uncond), or what a host makes of them; the same tensor as `cond`
            without guidance.
        uncond: the negative branch, where it was evaluated.
    """

    cond: Tensor
    guided: Tensor
    uncond: Tensor | None = None


class Denoiser(Protocol):
    """A denoising network with its noise schedule."""

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
            conditioning: B rows, from `ImageModel.encode`.
            guidance_scale: classifier-free guidance (Ho and Salimans 2022, arXiv 2207.12598), or the scale that a
                guidance-distilled network takes as an input.
            guided: False evaluates the conditional branch only; `Prediction.guided` is then that branch too.
        """

    def clean(self, latents: Tensor) -> Tensor:
        """Convert finished latents (B, ...) to the space of x; unless a denoiser says otherwise, they are in it.

        Finished latents are what `ImageModel.sample` returns and a run stores.
        """
        return latents

    def finished(self, x: Tensor) -> Tensor:
        """Convert x at noise level 0 (B, ...) to finished latents, the inverse of `clean`; gradients flow."""
        return x

    def sigmas(self, steps: int, schedule: str) -> Tensor:
        """Return the noise levels of a sampling schedule, descending, float64 (steps + 1,).

        Args:
            steps: number of steps; step i goes from level i to level i + 1.
            schedule: "model" (spacing and end as in the model's own scheduler configuration) or "karras".
        """


def denoise(
    denoiser: Denoiser,
    x: Tensor,
    sigma: Tensor,
    conditioning: Conditioning,
    guidance_scale: float,
    guided: bool = True,
) -> Prediction:
    """Call a denoiser, unless somebody wants to stop: all that is evaluated here is evaluated by this function.

    Args:
        denoiser: the network.
        x, sigma, conditioning, guidance_scale, guided: see `Denoiser`.
    """
    check_stop()
    return denoiser(x, sigma, conditioning, guidance_scale, guided)


def starting_latents(denoiser: Denoiser, noise: Tensor, sigma: float) -> Tensor:
    """Scale unit noise (B, ...) to latents of the highest noise level, in the model family's own space."""
    return noise * (1 + sigma**2) ** 0.5 if denoiser.family == "diffusion" else noise


def noised(denoiser: Denoiser, latents: Tensor, noise: Tensor, ratio: float) -> tuple[Tensor, Tensor]:
    """Noise finished latents (B, ...) to a ratio of noise to signal.

    Returns:
        x (B, ...) in the family's own space, float32 on the denoiser's device, and its noise levels (B,).
    """
    sigma, signal = (ratio / (1 + ratio), 1 / (1 + ratio)) if denoiser.family == "flow" else (ratio, 1.0)
    clean = denoiser.clean(latents).float().to(denoiser.device)
    x = signal * clean + sigma * noise.to(clean)
    return x, torch.full((len(x),), sigma, dtype=torch.float64)


def stack(conditionings: Sequence[Conditioning]) -> Conditioning:
    """Concatenate conditionings of equal `size` to one batch."""
    return {name: torch.cat([c[name] for c in conditionings]) for name in conditionings[0]}


def size(conditioning: Conditioning) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Return names and shapes without the batch, which must be equal within one batch.

    In some hosts a long prompt has more tokens.
    """
    return tuple((name, tuple(tensor.shape[1:])) for name, tensor in sorted(conditioning.items()))
