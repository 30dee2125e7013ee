"""A diffusers network as the core's `Denoiser`."""

from __future__ import annotations

import torch
from torch import Tensor

from ..diffusion.denoiser import Conditioning, Denoiser, Prediction
from ..diffusion.noise_schedule import karras
from ..diffusion.steps import per_row
from .architectures import Architecture, Network, Pipeline, Schedule


class DiffusersDenoiser(Denoiser):
    """The UNet or transformer of a pipeline: denoised predictions in float32, whatever the network's dtype.

    A LoRA that is active in the module takes part in the prediction, and gradients flow to its parameters. An autocast
    around a call is respected.
    """

    def __init__(self, pipeline: Pipeline, architecture: Architecture, schedule: Schedule) -> None:
        self._pipeline, self._forward, self._schedule = pipeline, architecture.forward, schedule
        network: Network = getattr(pipeline, architecture.module)
        self.module, self.family, config = network, schedule.family, network.config
        # Guidance-distilled networks take the scale as an input and have no unconditional branch.
        self._distilled = bool(config.get("guidance_embeds") or config.get("time_cond_proj_dim"))

    @property
    def device(self) -> torch.device:
        return next(self.module.parameters()).device

    def __call__(
        self, x: Tensor, sigma: Tensor, conditioning: Conditioning, guidance_scale: float, guided: bool = True
    ) -> Prediction:
        """Predict the clean latents in one forward pass: of 2 B rows with guidance, of B rows without.

        The conditioning may be on any device.
        """
        guided = guided and guidance_scale != 1 and not self._distilled
        sigma = sigma.detach().to("cpu", torch.float64)
        scaling = self._schedule.scaling(sigma)
        dtype = next(self.module.parameters()).dtype
        network_input = (per_row(scaling.into, x) * x).to(dtype)
        timestep = self._schedule.timestep(sigma).to(x.device, torch.float32)
        if guided:
            network_input, timestep = torch.cat([network_input] * 2), torch.cat([timestep] * 2)
        branches = {name: c.to(x.device, dtype) for name, c in _branches(conditioning, guided).items()}
        output = self._forward(self._pipeline, network_input, timestep, branches, guidance_scale).float()
        skipped, scale = per_row(scaling.skip, x) * x, per_row(scaling.out, x)
        if not guided:
            denoised = skipped + scale * output
            return Prediction(denoised, denoised)
        uncond, cond = (skipped + scale * part for part in output.chunk(2))
        return Prediction(cond, uncond + guidance_scale * (cond - uncond))

    def sigmas(self, steps: int, schedule: str) -> Tensor:
        """Return the noise levels of a sampling schedule, descending, float64 (steps + 1,).

        Args:
            steps: number of steps.
            schedule: "model", the levels of the pipeline's own scheduler configuration (with DDIM for diffusion, Euler
                for flow; shifts that depend on the image's size use the native one), or "karras", between the same
                highest and lowest level, then 0.

        Raises:
            D3POError: the model's schedule has fewer steps.
        """
        levels = self._schedule.sigmas(steps)
        return karras(levels[:-1]) if schedule == "karras" else levels


def _branches(conditioning: Conditioning, guided: bool) -> Conditioning:
    """Select the network's rows: prompts alone, or negatives followed by prompts, under the prompts' names."""
    prompts = {name: value for name, value in conditioning.items() if not name.startswith("negative_")}
    if not guided:
        return prompts
    return {name: torch.cat([conditioning[f"negative_{name}"], value]) for name, value in prompts.items()}
