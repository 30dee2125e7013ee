"""Noise levels, and what the network is to be told at each of them.

A schedule knows its family's space, the network's timestep at any noise level, and the levels that the pipeline's own
scheduler would visit.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..diffusion.denoiser import Family
from ..diffusion.noise_schedule import NoiseSchedule, Scaling, sigma_of
from ..errors import D3POError


class DiffusionSchedule(NoiseSchedule):
    """Epsilon, v and x0 prediction.

    Clipping of x0, which DDIM's configuration can ask for, is left out: diffusers' latent pipelines switch it off, and
    a clipped step is not Gaussian in D.

    Args:
        scheduler: the pipeline's. Its configuration is used by DDIM or, for a consistency model's, by LCM.

    Raises:
        D3POError: its prediction type is not one of the three.
    """

    family: Family = "diffusion"

    def __init__(self, scheduler: Any) -> None:
        from diffusers import DDIMScheduler, LCMScheduler

        kind = LCMScheduler if isinstance(scheduler, LCMScheduler) else DDIMScheduler
        self._scheduler = kind.from_config(scheduler.config)
        prediction = scheduler.config.get("prediction_type", "epsilon")
        if prediction not in ("epsilon", "v_prediction", "sample") or "sigma_data" in scheduler.config:
            raise D3POError(
                f"This model's {type(scheduler).__name__} with prediction type '{prediction}' is not supported.",
                "Use a model that predicts epsilon, v or x0.",
            )
        super().__init__(self._scheduler.alphas_cumprod, prediction)

    def sigmas(self, steps: int) -> Tensor:
        """The levels at the timesteps that the scheduler visits, then its end: sigma at t = 0 with
        `set_alpha_to_one=False`, else 0. Where the last timestep is already that end, DDIM's last step would do
        nothing; it goes to 0 instead.

        Raises:
            D3POError: there are not as many timesteps.
        """
        try:
            self._scheduler.set_timesteps(steps)
            levels = self.table[self._scheduler.timesteps[:steps]]
        except (ValueError, IndexError) as error:
            raise D3POError(f"This model has no schedule of {steps} steps.", "Choose fewer steps.") from error
        end = sigma_of(self._scheduler.final_alpha_cumprod)
        return torch.cat([levels, torch.where(end < levels[-1], end, 0.0).reshape(1)])


class FlowSchedule:
    """Rectified flow, x = (1 - sigma)*x0 + sigma*n, whose network predicts n - x0.

    Args:
        scheduler: the pipeline's, a flow-matching one.
        tokens: number of image tokens at the native size, for schedules that shift with it.
        even: whether the pipeline asks for evenly spaced levels before shifting, as Flux's does.
    """

    family: Family = "flow"

    def __init__(self, scheduler: Any, tokens: int, even: bool) -> None:
        from diffusers import FlowMatchEulerDiscreteScheduler

        self._scheduler = FlowMatchEulerDiscreteScheduler.from_config(scheduler.config)
        self._tokens, self._even = tokens, even

    def timestep(self, sigma: Tensor) -> Tensor:
        """The network's timestep at noise levels (B,), float64."""
        return sigma * self._scheduler.config.num_train_timesteps

    def scaling(self, sigma: Tensor) -> Scaling:
        """How the network's output becomes D at noise levels (B,)."""
        return Scaling(torch.ones_like(sigma), torch.ones_like(sigma), -sigma)

    def sigmas(self, steps: int) -> Tensor:
        """The levels that the scheduler visits, shifted as its configuration says, then 0."""
        config, options = self._scheduler.config, {}
        if config.use_dynamic_shifting:  # a straight line in the number of tokens, as in diffusers' calculate_shift
            slope = (config.max_shift - config.base_shift) / (config.max_image_seq_len - config.base_image_seq_len)
            options["mu"] = config.base_shift + slope * (self._tokens - config.base_image_seq_len)
        if self._even:
            self._scheduler.set_timesteps(sigmas=[1 - i / steps for i in range(steps)], **options)
        else:
            self._scheduler.set_timesteps(steps, **options)
        return self._scheduler.sigmas.double()


Schedule = DiffusionSchedule | FlowSchedule
