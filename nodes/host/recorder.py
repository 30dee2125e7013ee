"""Sampling by the host's own functions, with every step that training needs noted on the way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from comfy.k_diffusion import sampling as k_diffusion
from torch import Tensor

from ...d3po_core.diffusion.rollout import CandidateNoise, SamplingPlan, Trajectory


class Seen(NamedTuple):
    """One evaluation of the network: what went in, and the conditional branch of what came out."""

    x: Tensor
    cond: Tensor


def watched(model_options: dict[str, Any], seen: list[Seen], guided: bool = True) -> dict[str, Any]:
    """Model options in which evaluations are noted just before guidance is finished.

    Args:
        model_options: the host's.
        seen: where to.
        guided: False leaves out what only guidance needs (RescaleCFG, the extra branch of perturbed attention).
    """

    def note(given: dict[str, Any]) -> Tensor:
        seen.append(Seen(given["input"], given["cond_denoised"]))
        return given["denoised"]

    options = {**model_options}
    finish = options.get("sampler_post_cfg_function", [])
    if not guided:
        finish = []
        options.pop("sampler_cfg_function", None)
    options["sampler_post_cfg_function"] = [note, *finish]
    return options


def mask_at(guider: Any, sigma: Tensor, sigmas: Tensor, mask: Tensor) -> Tensor:
    """The mask of what is drawn anew, which nodes such as Differential Diffusion change with the noise level."""
    function = guider.model_options.get("denoise_mask_function")
    return function(sigma, mask, extra_options={"model": guider, "sigmas": sigmas}) if function else mask


class Recorder:
    """Draws with the host's sampler functions and notes what training needs.

    Args:
        plan: steps and window.
        noises: one for each image.
        eta: amount of noise in the noisy steps.
    """

    def __init__(self, plan: SamplingPlan, noises: Sequence[CandidateNoise], eta: float) -> None:
        self.plan, self.noises, self.eta = plan, noises, eta
        self.x: list[Tensor] = []
        self.cond: list[Tensor] = []
        self.guided: list[Tensor] = []
        self._seen: list[Seen] = []

    def watch(self, model_options: dict[str, Any]) -> dict[str, Any]:
        """Model options that let the conditional branch be noted."""
        return watched(model_options, self._seen)

    def sample(
        self, model: Any, x: Tensor, sigmas: Tensor, extra_args: Any = None, callback: Any = None, disable: Any = None
    ) -> Tensor:
        """A sampler function of the host's kind: its `euler_ancestral` where there is noise, then its `euler`."""
        last = len(sigmas) - 1
        noisy = int((self.plan.steps.std > 0).sum())
        if noisy == last - 1:
            noisy = last  # the ancestral sampler adds none in the last step either
        noted = _Noted(self, model, sigmas, extra_args)

        def fresh(sigma: Tensor, sigma_next: Tensor) -> Tensor:
            return torch.stack([noise.step() for noise in self.noises]).to(x)

        options = {"extra_args": extra_args, "callback": callback, "disable": disable}
        x = k_diffusion.sample_euler_ancestral(
            noted, x, sigmas[: noisy + 1], eta=self.eta, noise_sampler=fresh, **options
        )
        return x if noisy == last else k_diffusion.sample_euler(noted, x, sigmas[noisy:], **options)

    def note(self, denoised: Tensor, mask: Tensor | None, around: Tensor) -> None:
        """Keep a step: what the network saw, and what it foretold."""
        seen = self._seen.pop()
        if len(self.x) <= self.plan.trained:  # what a trained step led to is what the next one begins with
            self.x.append(_kept(seen.x))
        if len(self.cond) < self.plan.trained:
            self.cond.append(_kept(seen.cond if mask is None else seen.cond * mask + around * (1 - mask)))
            self.guided.append(_kept(denoised))

    def trajectory(self, latents: Tensor) -> Trajectory:
        """What was noted, on the CPU; nothing where no step was noisy."""
        if not self.cond:
            nothing = latents[:, None][:, :0]
            return Trajectory(nothing, nothing, nothing, latents)
        return Trajectory(torch.stack(self.x, 1), torch.stack(self.cond, 1), torch.stack(self.guided, 1), latents)


class _Noted:
    """The host's model function, with every call noted."""

    def __init__(self, recorder: Recorder, model: Any, sigmas: Tensor, extra_args: dict[str, Any]) -> None:
        self.recorder, self.model, self.sigmas, self.mask = recorder, model, sigmas, extra_args.get("denoise_mask")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def __call__(self, x: Tensor, sigma: Tensor, **kwargs: Any) -> Tensor:
        denoised = self.model(x, sigma, **kwargs)
        mask = self.mask
        if mask is not None:  # the host puts the original back around what is drawn
            mask = mask_at(self.model.inner_model, sigma, self.sigmas, mask)
        self.recorder.note(denoised, mask, self.model.latent_image)
        return denoised


def _kept(value: Tensor) -> Tensor:
    """An ordinary tensor on the CPU; the host's are inference tensors."""
    with torch.inference_mode(False):
        return value.detach().to("cpu", torch.float32, copy=True)
