"""Noise levels, timesteps and preconditioning of a pipeline, from its own scheduler and its configuration."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..diffusion.denoiser import Family
from ..diffusion.noise_schedule import NoiseSchedule, Scaling, sigma_of
from ..errors import D3POError

Scheduler = Any
"""A diffusers scheduler, with its configuration."""

TABULATED = ("DDIMScheduler", "DDIMParallelScheduler", "DDPMScheduler", "DDPMParallelScheduler", "PNDMScheduler")
DISTILLED = ("LCMScheduler", "TCDScheduler")
"""Schedulers that visit timesteps of the training schedule; the second kind those of a distillation."""
CONTINUOUS = (
    *("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler", "LMSDiscreteScheduler"),
    *("KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler", "DPMSolverSDEScheduler", "DEISMultistepScheduler"),
    *("DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "UniPCMultistepScheduler", "SASolverScheduler"),
)
"""Schedulers that choose noise levels, which settings such as `use_karras_sigmas` change."""
FLOWS = ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler", "FlowMatchLCMScheduler")
REFUSED = ("invert_sigmas", "stochastic_sampling", "scale_factors")
"""Settings of flow schedulers that turn the levels round, add noise, or change the image's size on the way."""
SUPPORTED = (*TABULATED, *DISTILLED, *CONTINUOUS, *FLOWS)


def check_scheduler(scheduler: Scheduler) -> None:
    """Raise a D3POError unless this is a scheduler whose noise levels are known here."""
    name, config = type(scheduler).__name__, scheduler.config
    prediction = config.get("prediction_type", "epsilon")
    if name not in SUPPORTED:
        raise D3POError(f"This model's scheduler, {name}, is not supported.", "Give it one that is usual for its kind.")
    if name not in FLOWS and (config.get("use_flow_sigmas") or "sigma_data" in config or prediction not in PREDICTIONS):
        raise D3POError(
            f"This model's {name} with prediction type '{prediction}' is not supported.",
            "Use a model that predicts epsilon, v or x0.",
        )
    unknown = next((setting for setting in REFUSED if config.get(setting)), None)
    if name in FLOWS and unknown:
        raise D3POError(f"This model's {name} has {unknown}, which is not supported.", "Use one without.")


PREDICTIONS = ("epsilon", "v_prediction", "sample")


class DiffusionSchedule(NoiseSchedule):
    """The schedule of a diffusion network that predicts epsilon, v or x0.

    Clipping of x0, an option of DDIM, is left out: diffusers' latent pipelines switch it off, and a clipped step is not
    Gaussian in D.

    Args:
        scheduler: of the pipeline, see `check_scheduler`.
    """

    family: Family = "diffusion"

    def __init__(self, scheduler: Scheduler) -> None:
        check_scheduler(scheduler)
        kind = type(scheduler)
        halves = {"skip_prk_steps": True} if kind.__name__ == "PNDMScheduler" else {}  # its first steps go to and fro
        self._scheduler = kind.from_config(scheduler.config, **halves)
        super().__init__(self._scheduler.alphas_cumprod, scheduler.config.get("prediction_type", "epsilon"))

    def sigmas(self, steps: int) -> Tensor:
        """Return the levels that the scheduler visits, then its end, float64 (steps + 1,).

        Levels that a scheduler of the second order visits twice, or puts between two others, count once. The end of
        those that visit timesteps is sigma at t = 0 with `set_alpha_to_one=False`, else 0. If the last level is the end
        already, a step to it would change nothing; it goes to 0 instead.

        Raises:
            D3POError: the scheduler has fewer timesteps.
        """
        try:
            self._scheduler.set_timesteps(steps)
            levels = self._visited(steps)
        except (ValueError, IndexError, ZeroDivisionError) as error:
            raise D3POError(f"This model has no schedule of {steps} steps.", "Choose fewer steps.") from error
        if len(levels) < steps:
            raise D3POError(f"This model has no schedule of {steps} steps.", "Choose fewer steps.")
        end = self._end()
        return torch.cat([levels[:steps], torch.where(end < levels[steps - 1], end, 0.0).reshape(1)])

    def _visited(self, steps: int) -> Tensor:
        """Return the levels of the scheduler's steps, descending."""
        if type(self._scheduler).__name__ not in CONTINUOUS:
            return self.table[torch.unique_consecutive(_falling(self._scheduler.timesteps)).long()]
        levels = torch.as_tensor(self._scheduler.sigmas, dtype=torch.float64, device="cpu")
        return torch.unique_consecutive(levels)[:steps]

    def _end(self) -> Tensor:
        """Return the level after the last step."""
        if type(self._scheduler).__name__ in CONTINUOUS:
            return torch.as_tensor(self._scheduler.sigmas[-1], dtype=torch.float64, device="cpu")
        return sigma_of(torch.as_tensor(getattr(self._scheduler, "final_alpha_cumprod", 1.0)))


def _falling(timesteps: Tensor) -> Tensor:
    """Return the timesteps of a scheduler that goes back now and then (PNDM warms up so), descending."""
    return torch.as_tensor(timesteps).unique().flip(0)


class FlowSchedule:
    """The schedule of a rectified flow, x = (1 - sigma)*x0 + sigma*n, whose network predicts n - x0.

    Args:
        scheduler: of the pipeline, a flow-matching one.
        tokens: number of image tokens at the native size, for schedules that shift with it.
        even: whether the pipeline spaces levels evenly before shifting, as Flux's does.
    """

    family: Family = "flow"

    def __init__(self, scheduler: Scheduler, tokens: int, even: bool) -> None:
        from diffusers import FlowMatchEulerDiscreteScheduler

        check_scheduler(scheduler)
        self._scheduler = FlowMatchEulerDiscreteScheduler.from_config(scheduler.config)
        self._tokens, self._even = tokens, even

    def timestep(self, sigma: Tensor) -> Tensor:
        """Return the network's timestep at noise levels (B,), float64."""
        return sigma * self._scheduler.config.num_train_timesteps

    def scaling(self, sigma: Tensor) -> Scaling:
        """Return the preconditioning at noise levels (B,)."""
        return Scaling(torch.ones_like(sigma), torch.ones_like(sigma), -sigma)

    def sigmas(self, steps: int) -> Tensor:
        """Return the levels that the scheduler visits, shifted by its configuration, then 0: float64 (steps + 1,)."""
        config, options = self._scheduler.config, {}
        if config.use_dynamic_shifting:  # a straight line in the number of tokens, as in diffusers' calculate_shift
            tokens = config.max_image_seq_len - config.base_image_seq_len
            slope = (config.max_shift - config.base_shift) / tokens if tokens else 0.0
            options["mu"] = config.base_shift + slope * (self._tokens - config.base_image_seq_len)
        if self._even:
            self._scheduler.set_timesteps(sigmas=[1 - i / steps for i in range(steps)], **options)
        else:
            self._scheduler.set_timesteps(steps, **options)
        return self._scheduler.sigmas.double()


Schedule = DiffusionSchedule | FlowSchedule
