"""The web UI's network as the core's `Denoiser`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from d3po_core.diffusion.denoiser import Conditioning, Family, Prediction
from d3po_core.diffusion.likelihood import per_row
from d3po_core.diffusion.noise_schedule import NoiseSchedule, PredictionType, karras
from d3po_core.errors import D3POError

from . import host


class WebuiDenoiser:
    """See `Denoiser`. What the host adds at generation (scripts, ControlNet, FreeU) is left out.

    Args:
        model: the host's.

    Raises:
        D3POError: its network predicts something that is not supported here.
    """

    family: Family = "diffusion"

    def __init__(self, model: Any) -> None:
        self.model, self.module = model, host.network(model)
        self.watch: Callable[[], None] = lambda: None
        """Called before every evaluation; may raise, to stop what is being done within a step."""
        self.table = NoiseSchedule(*_noise(model))
        self._forge = host.is_forge(model)

    @property
    def device(self) -> torch.device:
        return host.device()

    def clean(self, latents: Tensor) -> Tensor:
        """Finished latents in the space of x: they are."""
        return latents

    def finished(self, x: Tensor) -> Tensor:
        """The inverse of `clean`."""
        return x

    def sigmas(self, steps: int, schedule: str) -> Tensor:
        """The host's own spacing for its Euler samplers ("Automatic"), or karras; float64 (steps + 1,)."""
        levels = self.table.levels(steps)
        return karras(levels[:-1]) if schedule == "karras" else levels

    def __call__(
        self, x: Tensor, sigma: Tensor, conditioning: Conditioning, guidance_scale: float, guided: bool = True
    ) -> Prediction:
        """Predict the clean latents: both branches in one forward pass where their texts are of one length."""
        self.watch()
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
        return Prediction(cond_d, uncond_d + guidance_scale * (cond_d - uncond_d))

    def _branch(self, conditioning: Conditioning, side: str) -> dict[str, Tensor]:
        found = {"context": conditioning[side]}
        if f"{side}.vector" in conditioning:
            found["vector"] = conditioning[f"{side}.vector"]
        return {name: value.to(self.device) for name, value in found.items()}

    def _denoised(self, x: Tensor, sigma: Tensor, branch: dict[str, Tensor]) -> Tensor:
        sigma = sigma.detach().to("cpu", torch.float64)
        scaling = self.table.scaling(sigma)
        timestep = self.table.timestep(sigma)
        if self._forge:  # its networks are told whole timesteps
            timestep = timestep.round()
        inputs = (per_row(scaling.into, x) * x, timestep.to(x.device, torch.float32))
        output = host.evaluate(self.model, *inputs, branch["context"], branch.get("vector"))
        return per_row(scaling.skip, x) * x + per_row(scaling.out, x) * output.float()


def _noise(model: Any) -> tuple[Tensor, PredictionType]:
    """abar at each timestep, and what the network predicts."""
    if told := host.why_not(model):
        raise D3POError(told, CHOOSE)
    if not host.is_forge(model):
        return host.alphas_cumprod(model), "v_prediction" if model.parameterization == "v" else "epsilon"
    kind = predicted(host.predictor(model))
    if not kind:
        raise D3POError("This kind of model cannot be taught in this tab yet.", CHOOSE)
    return host.alphas_cumprod(model), kind


CHOOSE = "Choose a Stable Diffusion 1, 2 or XL checkpoint; later models such as SD3 and Flux can be taught in ComfyUI."


def predicted(predictor: Any) -> PredictionType | None:
    """What the Forge family's networks predict, where it is noise at discrete timesteps.

    Forge tells it in an attribute; the others mix classes when the model is loaded.
    """
    names = {base.__name__ for base in type(predictor).__mro__}
    if "ModelSamplingDiscrete" in names:
        return "v_prediction" if "V_PREDICTION" in names else "epsilon" if "EPS" in names else None
    if "Prediction" not in names:
        return None
    kinds: dict[str, PredictionType] = {"eps": "epsilon", "epsilon": "epsilon", "v_prediction": "v_prediction"}
    return kinds.get(predictor.prediction_type)
