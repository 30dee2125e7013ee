"""The web UI's network as the core's `Denoiser`."""

from __future__ import annotations

import torch
from torch import Tensor

from d3po_core.diffusion.denoiser import Conditioning, Denoiser, Family, Prediction
from d3po_core.diffusion.noise_schedule import NoiseSchedule, karras
from d3po_core.diffusion.steps import per_row
from d3po_core.errors import D3POError

from . import host
from .host import HostModel

CHOOSE = "Choose a Stable Diffusion 1, 2 or XL checkpoint; later models such as SD3 and Flux can be taught in ComfyUI."


class WebuiDenoiser(Denoiser):
    """See `Denoiser`. What the host adds at generation (scripts, ControlNet, FreeU) is left out.

    Args:
        model: the host's.

    Raises:
        D3POError: the network predicts something that is not supported here.
    """

    family: Family = "diffusion"

    def __init__(self, model: HostModel) -> None:
        self.model, self.module = model, host.network(model)
        if reason := host.why_not(model):
            raise D3POError(reason, CHOOSE)
        prediction = host.prediction_type(model)
        assert prediction is not None, "a reason not to train"
        self.table = NoiseSchedule(host.alphas_cumprod(model), prediction)

    @property
    def device(self) -> torch.device:
        """See `Denoiser.device`."""
        return host.device()

    def sigmas(self, steps: int, schedule: str) -> Tensor:
        """Return the host's own spacing for its Euler samplers ("Automatic"), or karras; float64 (steps + 1,)."""
        levels = self.table.levels(steps)
        return karras(levels[:-1]) if schedule == "karras" else levels

    def __call__(
        self, x: Tensor, sigma: Tensor, conditioning: Conditioning, guidance_scale: float, guided: bool = True
    ) -> Prediction:
        """Predict the clean latents: both branches in one forward pass where their texts are of one length."""
        cond = self._branch(conditioning, "cond")
        if not guided or guidance_scale == 1:
            denoised = self._denoised(x, sigma, cond)
            return Prediction(denoised, denoised)
        uncond = self._branch(conditioning, "uncond")
        if cond["context"].shape == uncond["context"].shape:
            both = {name: torch.cat([cond[name], uncond[name]]) for name in cond}
            cond_d, uncond_d = self._denoised(torch.cat([x, x]), torch.cat([sigma, sigma]), both).chunk(2)
        else:
            cond_d, uncond_d = self._denoised(x, sigma, cond), self._denoised(x, sigma, uncond)
        return Prediction(cond_d, uncond_d + guidance_scale * (cond_d - uncond_d), uncond_d)

    def _branch(self, conditioning: Conditioning, side: str) -> dict[str, Tensor]:
        branch = {"context": conditioning[side]}
        if f"{side}.vector" in conditioning:
            branch["vector"] = conditioning[f"{side}.vector"]
        return {name: value.to(self.device) for name, value in branch.items()}

    def _denoised(self, x: Tensor, sigma: Tensor, branch: dict[str, Tensor]) -> Tensor:
        sigma = sigma.detach().to("cpu", torch.float64)
        scaling, timestep = self.table.scaling(sigma), self.table.timestep(sigma)
        output = host.evaluate(
            self.model, per_row(scaling.into, x) * x, timestep, branch["context"], branch.get("vector")
        )
        return per_row(scaling.skip, x) * x + per_row(scaling.out, x) * output.float()
