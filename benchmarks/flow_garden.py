"""The embedded model as a flow model: the same network, asked in a rectified flow's terms.

A flow's x_t = (1 - t) x0 + t n is (1 - t) times the diffusion's x0 + sigma n at sigma = t / (1 - t), so the denoised
prediction of one is that of the other (Lipman et al. 2023, arXiv 2210.02747; Esser et al. 2024, arXiv 2403.03206), and
the velocity is (x_t - D) / t. Noise levels go in a straight line from 1 to 0. The network knows no noise above its own
highest, `HIGHEST`, and is asked there at that.
"""

from __future__ import annotations

import torch
from torch import Tensor

from d3po_core.diffusion.denoiser import Conditioning, Denoiser, Prediction
from d3po_core.diffusion.steps import per_row

HIGHEST = 14.6
"""Greatest noise-to-signal ratio that the embedded model was trained at."""


class FlowDenoiser(Denoiser):
    """A diffusion denoiser in a flow's space; see the module."""

    def __init__(self, base: Denoiser) -> None:
        self._base, self.module, self.family = base, base.module, "flow"

    @property
    def device(self) -> torch.device:
        return self._base.device

    def __call__(
        self, x: Tensor, sigma: Tensor, conditioning: Conditioning, guidance_scale: float, guided: bool = True
    ) -> Prediction:
        ratio = (sigma / (1 - sigma).clamp(min=1e-9)).clamp(max=HIGHEST)
        known = ratio / (1 + ratio)  # sigma itself, or that of the highest ratio
        noisy = x * per_row(known / sigma / (1 - known), x)
        return self._base(noisy, ratio, conditioning, guidance_scale, guided)

    def clean(self, latents: Tensor) -> Tensor:
        return self._base.clean(latents)

    def finished(self, x: Tensor) -> Tensor:
        return self._base.finished(x)

    def sigmas(self, steps: int, schedule: str) -> Tensor:
        return torch.linspace(1, 0, steps + 1, dtype=torch.float64)
