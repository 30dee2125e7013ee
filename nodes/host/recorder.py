"""Sampling by the host's own functions, with every step that training needs noted on the way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from comfy.k_diffusion import sampling as k_diffusion
from torch import Tensor

from ...d3po_core.diffusion.rollout import CandidateNoise, SamplingPlan, Trajectory
from .types import Guider, Options, SampledModel


class Seen(NamedTuple):
    """One evaluation of the network: what went in, and both branches of what came out; without guidance the negative
    one means nothing."""

    x: Tensor
    cond: Tensor
    uncond: Tensor | None


def watched(model_options: Options, seen: list[Seen], guided: bool = True) -> Options:
    """Return model options in which evaluations are noted just before guidance is finished.

    Args:
        model_options: the host's.
        seen: where to.
        guided: False leaves out what only guidance needs (RescaleCFG, the extra branch of perturbed attention).
    """

    def note(evaluation: dict[str, Tensor]) -> Tensor:
        seen.append(Seen(evaluation["input"], evaluation["cond_denoised"], evaluation.get("uncond_denoised")))
        return evaluation["denoised"]

    options = {**model_options}
    finish = options.get("sampler_post_cfg_function", [])
    if not guided:
        finish = []
        options.pop("sampler_cfg_function", None)
    options["sampler_post_cfg_function"] = [note, *finish]
    return options


def mask_at(guider: Guider, sigma: Tensor, sigmas: Tensor, mask: Tensor) -> Tensor:
    """Return the mask of what is drawn anew, which nodes such as Differential Diffusion change with the noise level."""
    function = guider.model_options.get("denoise_mask_function")
    return function(sigma, mask, extra_options={"model": guider, "sigmas": sigmas}) if function else mask


class Recorder:
    """Draws with the host's sampler functions and notes what training needs."""

    def __init__(self, plan: SamplingPlan, noises: Sequence[CandidateNoise], eta: float) -> None:
        self.plan, self.noises, self.eta = plan, noises, eta
        self.x: list[Tensor] = []
        self.cond: list[Tensor] = []
        self.guided: list[Tensor] = []
        self._seen: list[Seen] = []

    def watch(self, model_options: Options) -> Options:
        """Return model options that let the conditional branch be noted."""
        return watched(model_options, self._seen)

    def sample(
        self,
        model: SampledModel,
        x: Tensor,
        sigmas: Tensor,
        extra_args: Options | None = None,
        callback: Callable[..., None] | None = None,
        disable: bool | None = None,
    ) -> Tensor:
        """Sample as a function of the host's kind: its `euler_ancestral` where there is noise, then its `euler`."""
        last = len(sigmas) - 1
        noisy = int((self.plan.steps.std > 0).sum())
        if noisy == last - 1:
            noisy = last  # the ancestral sampler adds none in the last step either
        noted = _Noted(self, model, sigmas, (extra_args or {}).get("denoise_mask"))

        def fresh(sigma: Tensor, sigma_next: Tensor) -> Tensor:
            return torch.stack([noise.step() for noise in self.noises]).to(x)

        options = {"extra_args": extra_args, "callback": callback, "disable": disable}
        x = k_diffusion.sample_euler_ancestral(
            noted, x, sigmas[: noisy + 1], eta=self.eta, noise_sampler=fresh, **options
        )
        return x if noisy == last else k_diffusion.sample_euler(noted, x, sigmas[noisy:], **options)

    def note(self, denoised: Tensor, mask: Tensor | None, around: Tensor) -> None:
        """Keep a step: what the network saw, and what it predicted."""
        seen = self._seen.pop()
        if len(self.x) <= self.plan.trained:  # what a trained step led to is what the next one begins with
            self.x.append(_kept(seen.x))
        if len(self.cond) < self.plan.trained:
            self.cond.append(_kept(seen.cond if mask is None else seen.cond * mask + around * (1 - mask)))
            self.guided.append(_kept(denoised))

    def trajectory(self, latents: Tensor) -> Trajectory:
        """Return what was noted, on the CPU; nothing where no step was noisy."""
        if not self.cond:
            empty = latents[:, None][:, :0]
            return Trajectory(empty, empty, empty, latents)
        return Trajectory(torch.stack(self.x, 1), torch.stack(self.cond, 1), torch.stack(self.guided, 1), latents)


class _Noted:
    """The host's model function, with every call noted."""

    def __init__(self, recorder: Recorder, model: SampledModel, sigmas: Tensor, mask: Tensor | None) -> None:
        self.recorder, self.model, self.sigmas, self.mask = recorder, model, sigmas, mask

    def __getattr__(self, name: str) -> object:
        return getattr(self.model, name)

    def __call__(self, x: Tensor, sigma: Tensor, **kwargs: object) -> Tensor:
        denoised: Tensor = self.model(x, sigma, **kwargs)
        mask = self.mask
        if mask is not None:  # the host puts the original back around what is drawn
            mask = mask_at(self.model.inner_model, sigma, self.sigmas, mask)
        self.recorder.note(denoised, mask, self.model.latent_image)
        return denoised


def _kept(value: Tensor) -> Tensor:
    """Return an ordinary tensor on the CPU; the host's are inference tensors."""
    with torch.inference_mode(False):
        return value.detach().to("cpu", torch.float32, copy=True)
