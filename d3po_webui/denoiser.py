"""The web UI's network as the core's `Denoiser`."""

from __future__ import annotations

import torch
from torch import Tensor

from d3po_core.diffusion.denoiser import Conditioning, Denoiser, Family, Prediction
from d3po_core.diffusion.noise_schedule import NoiseSchedule, karras
from d3po_core.diffusion.steps import per_row

from . import flow, host
from .flow_settings import FlowSettings
from .host import HostModel


class WebuiDenoiser(Denoiser):
    """See `Denoiser`. What the host adds at generation (scripts, ControlNet, FreeU) is left out.

    Args:
        model: the host's, which can be taught.
    """

    prediction_type = ""
    """What the network predicts, as LoRA files name it."""

    def __init__(self, model: HostModel) -> None:
        self.model, self.module = model, host.network(model)

    @property
    def device(self) -> torch.device:
        """See `Denoiser.device`."""
        return host.device()

    def _branch(self, conditioning: Conditioning, side: str) -> dict[str, Tensor]:
        """Return one branch of a conditioning, by the host's names."""
        branch = {"crossattn": conditioning[side]}
        for name, value in conditioning.items():
            if name.startswith(f"{side}."):
                branch[name.removeprefix(f"{side}.")] = value
        return {name: value.to(self.device) for name, value in branch.items()}


class DiffusionDenoiser(WebuiDenoiser):
    """A Stable Diffusion network."""

    family: Family = "diffusion"

    def __init__(self, model: HostModel) -> None:
        super().__init__(model)
        prediction = host.prediction_type(model)
        assert prediction is not None, "a reason not to train"
        self.table = NoiseSchedule(host.alphas_cumprod(model), prediction)
        self.prediction_type = "v" if prediction == "v_prediction" else "epsilon"

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
        if cond["crossattn"].shape == uncond["crossattn"].shape:
            both = {name: torch.cat([cond[name], uncond[name]]) for name in cond}
            cond_d, uncond_d = self._denoised(torch.cat([x, x]), torch.cat([sigma, sigma]), both).chunk(2)
        else:
            cond_d, uncond_d = self._denoised(x, sigma, cond), self._denoised(x, sigma, uncond)
        return Prediction(cond_d, uncond_d + guidance_scale * (cond_d - uncond_d), uncond_d)

    def _denoised(self, x: Tensor, sigma: Tensor, branch: dict[str, Tensor]) -> Tensor:
        sigma = sigma.detach().to("cpu", torch.float64)
        scaling, timestep = self.table.scaling(sigma), self.table.timestep(sigma)
        output = host.evaluate(
            self.model, per_row(scaling.into, x) * x, timestep, branch["crossattn"], branch.get("vector")
        )
        return per_row(scaling.skip, x) * x + per_row(scaling.out, x) * output.float()


class FlowDenoiser(WebuiDenoiser):
    """A flow model's network in Forge Neo.

    Args:
        model: the host's, which can be taught.
        settings: shift and spacing of its levels.
        size: height and width of images, in pixels.
    """

    family: Family = "flow"

    def __init__(self, model: HostModel, settings: FlowSettings, size: tuple[int, int]) -> None:
        super().__init__(model)
        self.settings, self.size = settings, size

    def sigmas(self, steps: int, schedule: str) -> Tensor:
        """Return the levels of the schedule type that the taste was begun with; float64 (steps + 1,).

        `schedule` is that of diffusion models, and says nothing here.
        """
        return flow.levels(self.model, steps, self.settings, self.size)

    def __call__(
        self, x: Tensor, sigma: Tensor, conditioning: Conditioning, guidance_scale: float, guided: bool = True
    ) -> Prediction:
        """Predict the clean latents as the host does, both branches in one forward pass where it does so."""
        cond: flow.Branch = self._branch(conditioning, "cond")
        uncond: flow.Branch | None = None
        if guidance_scale != 1:
            cond, uncond = flow.of_one_length(cond, self._branch(conditioning, "uncond"))
        level = sigma.detach().to(x.device, torch.float32)
        cond_d, uncond_d = flow.predict(self.model, x, level, cond, uncond if guided else None)
        if uncond_d is None:
            return Prediction(cond_d, cond_d)
        return Prediction(cond_d, uncond_d + guidance_scale * (cond_d - uncond_d), uncond_d)
