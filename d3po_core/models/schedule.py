"""Noise levels, timesteps and preconditioning from a pipeline's own scheduler configuration."""

from __future__ import annotations

import torch
from torch import Tensor

from ..diffusion.denoiser import Family
from ..diffusion.noise_schedule import NoiseSchedule, Scaling, sigma_of
from ..errors import D3POError
from .architectures import Scheduler


class DiffusionSchedule(NoiseSchedule):
    """The schedule of a diffusion network that predicts epsilon, v or x0.

    Clipping of x0, an option of DDIM, is left out: diffusers' latent pipelines switch it off, and a clipped step is not
    Gaussian in D.

    Args:
        scheduler: of the pipeline. Its configuration is used with DDIM or, for a consistency model, with LCM.

    Raises:
        D3POError: the prediction type is not one of the three.
    """

    family: Family = "diffusion"

    def __init__(self, scheduler: Scheduler) -> None:
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
        """Return the levels at the timesteps that the scheduler visits, then its end, float64 (steps + 1,).

        The end is sigma at t = 0 with `set_alpha_to_one=False`, else 0. If the last timestep is that end already,
        DDIM's last step would change nothing; it goes to 0 instead.

        Raises:
            D3POError: the scheduler has fewer timesteps.
        """
        try:
            self._scheduler.set_timesteps(steps)
            levels = self.table[self._scheduler.timesteps[:steps]]
        except (ValueError, IndexError) as error:
            raise D3POError(f"This model has no schedule of {steps} steps.", "Choose fewer steps.") from error
        end = sigma_of(self._scheduler.final_alpha_cumprod)
        return torch.cat([levels, torch.where(end < levels[-1], end, 0.0).reshape(1)])


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
            slope = (config.max_shift - config.base_shift) / (config.max_image_seq_len - config.base_image_seq_len)
            options["mu"] = config.base_shift + slope * (self._tokens - config.base_image_seq_len)
        if self._even:
            self._scheduler.set_timesteps(sigmas=[1 - i / steps for i in range(steps)], **options)
        else:
            self._scheduler.set_timesteps(steps, **options)
        return self._scheduler.sigmas.double()


Schedule = DiffusionSchedule | FlowSchedule
