"""ComfyUI from inside: the one file that imports `comfy`. A MODEL and VAE as the core's image model.

Pictures are drawn by the host's own guider and samplers, so whatever the MODEL carries (LoRAs, ControlNet, attention
patches, RescaleCFG, another ModelSampling, masks) has its effect. Training evaluates the same guider, inside one
sampling of the host's that takes as long as the training does; the host loads the models for it and cleans up after it.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.sample
import comfy.samplers
import comfy.utils
import torch
from comfy.k_diffusion import sampling as k_diffusion
from comfy.model_sampling import CONST
from torch import Tensor

from ..d3po_core.denoiser import Conditioning, Family, Prediction
from ..d3po_core.errors import D3POError
from ..d3po_core.rollout import CandidateNoise, Plan, Trajectory
from .conditioning import Cond, key_of, pack, unpack

SCHEDULERS = {"model": {"diffusion": "normal", "flow": "simple"}, "karras": {"diffusion": "karras", "flow": "karras"}}
"""The host's names of our schedules; "model" is what its own KSampler node starts with, or what flow models are used
with."""


class HostDenoiser:
    """A MODEL as the core's `Denoiser`. It can be called inside `host_sampling` only."""

    module: torch.nn.Module
    family: Family

    def __init__(self, patcher: Any) -> None:
        self.patcher = patcher
        self.module = patcher.model.diffusion_model
        self.sampling = patcher.get_model_object("model_sampling")
        self.family = "flow" if isinstance(self.sampling, CONST) else "diffusion"
        self._guider: Any = None
        self._conds: dict[int, dict[str, list[dict[str, Any]]]] = {}

    @property
    def device(self) -> torch.device:
        return self.patcher.load_device

    def sigmas(self, steps: int, schedule: str) -> Tensor:
        """The host's noise levels, float64 (steps + 1,); `schedule` is ours, or any of the host's schedulers."""
        name = SCHEDULERS[schedule][self.family] if schedule in SCHEDULERS else schedule
        return comfy.samplers.calculate_sigmas(self.sampling, name, steps).double().cpu()

    def __call__(
        self, x: Tensor, sigma: Tensor, conditioning: Conditioning, guidance_scale: float, guided: bool = True
    ) -> Prediction:
        """Predict the clean latents, rows of one prompt together."""
        keys = conditioning["key"].flatten().cpu()
        cond, full = torch.empty_like(x), torch.empty_like(x)
        found = []
        for key in dict.fromkeys(keys.tolist()):
            index = (keys == key).nonzero().flatten()
            row = {name: value[index[:1]] for name, value in conditioning.items()}
            at = index.to(x.device)
            found.append((at, self._one_prompt(x[at], sigma[index], row, guidance_scale if guided else 1.0)))
        if len(found) == 1:
            return found[0][1]
        for at, prediction in found:
            cond, full = cond.index_copy(0, at, prediction.cond), full.index_copy(0, at, prediction.guided)
        return Prediction(cond, full)

    def _one_prompt(self, x: Tensor, sigma: Tensor, row: Conditioning, scale: float) -> Prediction:
        guider = self._guider
        guider.conds, guider.cfg = self._processed(row, x), scale
        seen: list[Tensor] = []
        options = _watched(guider.model_options, seen)
        out = guider(x, sigma.to(x), model_options=options, seed=0)
        cond = seen[0]
        if "mask" in row:  # outside of the mask the host puts the original back
            mask, latent = row["mask"].to(x), row["latent"].to(x)
            out, cond = (part * mask + latent * (1 - mask) for part in (out, cond))
        return Prediction(cond, out if scale != 1 else cond)

    def _processed(self, row: Conditioning, x: Tensor) -> dict[str, list[dict[str, Any]]]:
        """The host's own form of a prompt, made once."""
        key = key_of(row)
        if key not in self._conds:
            positive, negative = unpack(row)
            self._conds[key] = _processed(self._guider, positive, negative, x[:1])
        return self._conds[key]

    @contextmanager
    def _inside(self, guider: Any) -> Iterator[None]:
        self._guider, self._conds, own = guider, {}, (guider.conds, guider.cfg)
        try:
            yield
        finally:
            self._guider, self._conds = None, {}
            guider.conds, guider.cfg = own  # the host cleans up after what it prepared


def _watched(model_options: dict[str, Any], seen: list[Tensor]) -> dict[str, Any]:
    """Model options in which the conditional branch is noted just before guidance is finished."""

    def note(given: dict[str, Any]) -> Tensor:
        seen.append(given["cond_denoised"])
        return given["denoised"]

    options = {**model_options}
    options["sampler_post_cfg_function"] = [note, *options.get("sampler_post_cfg_function", [])]
    return options


def _processed(guider: Any, positive: Cond, negative: Cond, like: Tensor) -> dict[str, list[dict[str, Any]]]:
    import comfy.sampler_helpers

    conds = {
        side: [entry.copy() for entry in comfy.sampler_helpers.convert_cond(cond)]
        for side, cond in (("positive", positive), ("negative", negative))
    }
    comfy.samplers.preprocess_conds_hooks(conds)
    comfy.samplers.filter_registered_hooks_on_conds(conds, guider.model_options)
    empty = torch.zeros_like(like)
    return comfy.samplers.process_conds(guider.inner_model, empty, conds, like.device, empty, None, 0)


class _Body(comfy.samplers.Sampler):
    """A "sampler" that does something else while the host believes it is sampling."""

    def __init__(self, denoiser: HostDenoiser, work: Callable[[], None]) -> None:
        self.denoiser, self.work = denoiser, work

    def sample(
        self,
        model_wrap: Any,
        sigmas: Tensor,
        extra_args: dict[str, Any],
        callback: Any,
        noise: Tensor,
        latent_image: Tensor | None = None,
        denoise_mask: Tensor | None = None,
        disable_pbar: bool = False,
    ) -> Tensor:
        model_wrap.model_options = extra_args["model_options"]
        with self.denoiser._inside(model_wrap):
            self.work()
        return noise


def host_sampling(
    denoiser: HostDenoiser, prompts: Sequence[Conditioning], shape: Sequence[int], work: Callable[[], None]
) -> None:
    """Do something that evaluates the model, with gradients if wanted, and leave the host as it was.

    Args:
        denoiser: of the MODEL.
        prompts: all that will be asked for, packed; what they need (ControlNets) is loaded too.
        shape: of one image's latents.
        work: what to do.
    """
    both = [unpack(prompt) for prompt in prompts]
    with torch.inference_mode(False), torch.no_grad(), own_tensors(denoiser.patcher):
        guider = comfy.samplers.CFGGuider(denoiser.patcher)
        guider.set_conds([e for positive, _ in both for e in positive], [e for _, negative in both for e in negative])
        guider.set_cfg(1.0)
        empty = torch.zeros(1, *shape)

        def with_gradients() -> None:
            with torch.enable_grad():
                work()

        guider.sample(empty, empty.clone(), _Body(denoiser, with_gradients), torch.tensor([1.0, 0.0]), seed=0)
    gc.collect()
    comfy.model_management.soft_empty_cache()


@contextmanager
def own_tensors(patcher: Any) -> Iterator[None]:
    """Weights that autograd may look at.

    The host makes its weights in inference mode, and such tensors can take no part in gradients. For a while each is
    replaced by an ordinary tensor on the same storage, which takes no memory; then every one is put back.
    """
    comfy.model_management.load_models_gpu([patcher], force_full_load=True)
    before: list[tuple[dict[str, Any], str, Tensor]] = []
    try:
        for module in patcher.model.modules():
            for store in (module._parameters, module._buffers):
                for name, value in store.items():
                    if value is not None and value.is_inference():
                        before.append((store, name, value))
                        store[name] = _alias(value)
        yield
    finally:
        for store, name, value in before:
            store[name] = value


def _alias(value: Tensor) -> Tensor:
    other = torch.empty(0, dtype=value.dtype, device=value.device)
    other.set_(value.untyped_storage(), value.storage_offset(), value.shape, value.stride())
    return torch.nn.Parameter(other, requires_grad=False) if isinstance(value, torch.nn.Parameter) else other


class HostModel:
    """MODEL, VAE and prompts as the core's `ImageModel`.

    Args:
        patcher: the MODEL.
        latent: LATENT of one image or more, of which the first is used; a `noise_mask` in it keeps the rest.
        vae: decodes; None where no picture is needed.
        prompts: CONDITIONING by the text that stands for it.
        eta: amount of noise, as in the settings that the plan was made with.
    """

    def __init__(
        self,
        patcher: Any,
        latent: dict[str, Any] | None = None,
        vae: Any = None,
        prompts: dict[str, tuple[Cond, Cond]] | None = None,
        eta: float = 1.0,
    ) -> None:
        self.patcher, self.vae, self.prompts, self.eta = patcher.clone(), vae, prompts or {}, eta
        self.denoiser = HostDenoiser(self.patcher)
        self.image = comfy.sample.fix_empty_latent_channels(self.patcher, latent["samples"])[:1] if latent else None
        self.mask = latent.get("noise_mask") if latent else None
        self.identity = checkpoint(patcher) or "unknown"

    def encode(self, prompts: list[str], negative: str = "") -> list[Conditioning]:
        """The prompts' CONDITIONING, packed."""
        return [self._with_mask(pack(*self.prompts[prompt])) for prompt in prompts]

    def _with_mask(self, row: Conditioning) -> Conditioning:
        if self.mask is None or self.image is None:
            return row
        shape = (1, *self.image.shape[1:])
        mask = comfy.utils.reshape_mask(self.mask[:1], shape).expand(shape).float()
        latent = self.patcher.model.process_latent_in(self.image.float())
        return {**row, "mask": mask.cpu().clone(), "latent": latent.cpu().clone()}

    def sample(
        self, plan: Plan, noises: Sequence[CandidateNoise], conditioning: Sequence[Conditioning], guidance_scale: float
    ) -> Trajectory:
        """Draw one image for each noise; images of one prompt are one batch of the host's."""
        parts: dict[int, Trajectory] = {}
        keys = [key_of(row) for row in conditioning]
        for key in dict.fromkeys(keys):
            index = [i for i, other in enumerate(keys) if other == key]
            found = self._sample_prompt(plan, [noises[i] for i in index], conditioning[index[0]], guidance_scale)
            parts |= {i: _row(found, n) for n, i in enumerate(index)}
        names = ("x", "cond", "guided", "latents")
        return Trajectory(*(torch.cat([getattr(parts[i], name) for i in range(len(noises))]) for name in names))

    def _sample_prompt(
        self, plan: Plan, noises: Sequence[CandidateNoise], row: Conditioning, guidance_scale: float
    ) -> Trajectory:
        assert self.image is not None
        recorder = Recorder(plan, noises, self.eta)
        guider = comfy.samplers.CFGGuider(self.patcher)
        guider.set_conds(*unpack(row))
        guider.set_cfg(guidance_scale)
        guider.model_options = recorder.watch(guider.model_options)
        noise = torch.stack([noise.start() for noise in noises])
        image = comfy.utils.repeat_to_batch_size(self.image, len(noises))
        sampler = comfy.samplers.KSAMPLER(recorder.sample)
        sigmas = torch.cat([plan.steps.sigma, plan.steps.sigma_next[-1:]]).float()

        def callback(step: int, denoised: Tensor, x: Tensor, steps: int) -> None:
            comfy.model_management.throw_exception_if_processing_interrupted()

        latents = guider.sample(noise, image, sampler, sigmas, denoise_mask=self.mask, callback=callback, seed=0)
        return recorder.trajectory(latents.cpu())

    def decode(self, latents: Tensor) -> Tensor:
        """Latents as `sample` gave them to images (B, 3, H, W) in [0, 1] on the CPU, by the VAE."""
        if self.vae is None:
            raise D3POError("There is no VAE to turn what was drawn into pictures.", "Connect one.")
        return self.vae.decode(latents).movedim(-1, 1)[:, :3].float().cpu().clamp(0, 1)

    def latent_shape(self, height: int = 0, width: int = 0) -> tuple[int, ...]:
        """Of the LATENT that was given; sizes are its business."""
        if self.image is None:
            raise D3POError("There is no latent to draw on.", "Connect an Empty Latent Image.")
        return tuple(self.image.shape[1:])


class Recorder:
    """Draws with the host's sampler functions and notes what training needs.

    Args:
        plan: steps and window.
        noises: one for each image.
        eta: amount of noise in the noisy steps.
    """

    def __init__(self, plan: Plan, noises: Sequence[CandidateNoise], eta: float) -> None:
        self.plan, self.noises, self.eta = plan, noises, eta
        self.x: list[Tensor] = []
        self.cond: list[Tensor] = []
        self.guided: list[Tensor] = []
        self._seen: list[Tensor] = []

    def watch(self, model_options: dict[str, Any]) -> dict[str, Any]:
        """Model options that let the conditional branch be noted."""
        return _watched(model_options, self._seen)

    def sample(
        self, model: Any, x: Tensor, sigmas: Tensor, extra_args: Any = None, callback: Any = None, disable: Any = None
    ) -> Tensor:
        """A sampler function of the host's kind: its `euler_ancestral` where there is noise, then its `euler`."""
        last = len(sigmas) - 1
        noisy = int((self.plan.steps.std > 0).sum())
        if noisy == last - 1:
            noisy = last  # the ancestral sampler adds none in the last step either
        watched = _Watched(self, model, extra_args)

        def fresh(sigma: Tensor, sigma_next: Tensor) -> Tensor:
            return torch.stack([noise.step() for noise in self.noises]).to(x)

        options = {"extra_args": extra_args, "callback": callback, "disable": disable}
        x = k_diffusion.sample_euler_ancestral(
            watched, x, sigmas[: noisy + 1], eta=self.eta, noise_sampler=fresh, **options
        )
        if len(self.x) == self.plan.trained:
            self.x.append(_kept(watched.state(x, sigmas[noisy])))
        return x if noisy == last else k_diffusion.sample_euler(model, x, sigmas[noisy:], **options)

    def note(self, x: Tensor, denoised: Tensor, blend: Callable[[Tensor], Tensor]) -> None:
        """Keep a step: what the network saw, and what it foretold."""
        cond = self._seen.pop()
        if len(self.x) <= self.plan.trained:
            self.x.append(_kept(x))
        if len(self.cond) < self.plan.trained:
            self.cond.append(_kept(blend(cond)))
            self.guided.append(_kept(denoised))

    def trajectory(self, latents: Tensor) -> Trajectory:
        """What was noted, on the CPU."""
        return Trajectory(torch.stack(self.x, 1), torch.stack(self.cond, 1), torch.stack(self.guided, 1), latents)


class _Watched:
    """The host's model function, with every call noted."""

    def __init__(self, recorder: Recorder, model: Any, extra_args: dict[str, Any]) -> None:
        self.recorder, self.model, self.mask = recorder, model, extra_args.get("denoise_mask")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def __call__(self, x: Tensor, sigma: Tensor, **kwargs: Any) -> Tensor:
        denoised = self.model(x, sigma, **kwargs)
        self.recorder.note(self.state(x, sigma), denoised, self._blend)
        return denoised

    def state(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Latents as the network sees them: under a mask the host puts the noised original around what is drawn."""
        if self.mask is None:
            return x
        model = self.model.inner_model.inner_model
        sigma = sigma.expand(len(x))
        around = model.scale_latent_inpaint(
            x=x, sigma=sigma, noise=self.model.noise, latent_image=self.model.latent_image, denoise_mask=self.mask
        )
        return x * self.mask + around * (1 - self.mask)

    def _blend(self, denoised: Tensor) -> Tensor:
        if self.mask is None:
            return denoised
        return denoised * self.mask + self.model.latent_image * (1 - self.mask)


def _kept(value: Tensor) -> Tensor:
    """An ordinary tensor on the CPU; the host's are inference tensors."""
    with torch.inference_mode(False):
        return value.detach().to("cpu", torch.float32, copy=True)


def _row(found: Trajectory, n: int) -> Trajectory:
    return Trajectory(*(getattr(found, name)[n : n + 1] for name in ("x", "cond", "guided", "latents")))


def checkpoint(patcher: Any) -> str:
    """Name of the file that a MODEL was loaded from; "" where the loader does not tell."""
    made = patcher.cached_patcher_init
    first = made[1][0] if made and made[1] else ""
    return Path(first).stem if isinstance(first, str | Path) else ""


def with_lora(patcher: Any, tensors: dict[str, Tensor]) -> Any:
    """A MODEL with a LoRA at strength 1, put on as the host's own loader does it."""
    import comfy.sd

    return comfy.sd.load_lora_for_models(patcher, None, tensors, 1.0, 0.0)[0]


class Progress:
    """The host's progress bar; every step is a place where the host may interrupt."""

    def __init__(self) -> None:
        self._bar: Any = None

    def at(self, done: int, total: int) -> None:
        """So many steps are done. Raises the host's interruption if the user asked for it."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        if self._bar is None or self._bar.total != total:
            self._bar = comfy.utils.ProgressBar(total)
        self._bar.update_absolute(done, total)
