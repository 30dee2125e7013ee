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

Family = Literal["diffusion", "flow"]
"""How noise is added: diffusion x = x0 + sigma*n (k-diffusion's space), flow x = (1 - sigma)*x0 + sigma*n."""

Conditioning = dict[str, Tensor]
"""The network's inputs for a prompt and its negative. Every tensor has the batch as its first dimension."""


@dataclass(frozen=True)
class Prediction:
    """Denoised predictions of one forward pass, each with the shape of x.

    Attributes:
        cond: the conditional branch D(x, sigma, prompt).
        guided: uncond + guidance_scale * (cond - uncond); the same tensor as `cond` without guidance.
    """

    cond: Tensor
    guided: Tensor


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
        ...

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
        ...


def starting_latents(denoiser: Denoiser, noise: Tensor, sigma: float) -> Tensor:
    """Scale unit noise (B, ...) to latents of the highest noise level, in the model family's own space."""
    return noise * (1 + sigma**2) ** 0.5 if denoiser.family == "diffusion" else noise


def stack(conditionings: Sequence[Conditioning]) -> Conditioning:
    """Concatenate conditionings of equal `size` to one batch."""
    return {name: torch.cat([c[name] for c in conditionings]) for name in conditionings[0]}


def size(conditioning: Conditioning) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Return names and shapes without the batch, which must be equal within one batch.

    In some hosts a long prompt has more tokens.
    """
    return tuple((name, tuple(tensor.shape[1:])) for name, tensor in sorted(conditioning.items()))


ADHERENCE_RATIOS = (1.0, 2.5, 5.0)
"""Ratios of noise to signal at which a prompt's content is decided, and adherence to it is measured."""


@torch.no_grad()
def prompt_adherence(
    denoiser: Denoiser,
    latents: Tensor,
    conditioning: Conditioning,
    draws: int = 2,
    batch: int = 32,
    seed: int = 0,
) -> Tensor:
    """Measure how much a prompt helps the model to denoise each image: E |D_uncond - x0|^2 - E |D_cond - x0|^2.

    This is the diffusion classifier (Li et al. 2023, arXiv 2303.16203, eq. 6) between a prompt and its negative. It
    falls as an image loses what its prompt says. The difference is not divided by the error, because that would
    confound it with how busy an image is.

    Args:
        denoiser: the base model, no LoRA active.
        latents: finished, (B, ...).
        conditioning: of each image's prompt, B rows.
        draws: noises at each of `ADHERENCE_RATIOS`. All images get the same ones.
        batch: rows per forward pass.
        seed: of the noises.

    Returns:
        (B,), float32 on the CPU, mean over draws, levels and latent elements. 0 for a network without a second branch.
    """
    clean, rng = denoiser.clean(latents.to(denoiser.device)).float(), torch.Generator().manual_seed(seed)
    total = torch.zeros(len(latents))
    for ratio in ADHERENCE_RATIOS:
        flow = denoiser.family == "flow"
        sigma, signal = (ratio / (1 + ratio), 1 / (1 + ratio)) if flow else (ratio, 1.0)
        for _ in range(draws):
            x = signal * clean + sigma * torch.randn(clean.shape[1:], generator=rng).to(clean)
            for first in range(0, len(x), batch):
                part = slice(first, first + batch)
                rows = {name: value[part].to(clean.device) for name, value in conditioning.items()}
                level = torch.full((len(x[part]),), sigma, dtype=torch.float64)
                prediction = denoiser(x[part], level, rows, guidance_scale=0.0)  # guided by 0: the negative alone
                errors = [(each - clean[part]).flatten(1).square().mean(1) for each in vars(prediction).values()]
                total[part] += (errors[1] - errors[0]).float().cpu()
    return total / (len(ADHERENCE_RATIOS) * draws)
