"""A MODEL and VAE of ComfyUI's as the core's image model.

Images are drawn by the host's own guider and samplers, so whatever the MODEL carries (LoRAs, ControlNet, attention
patches, RescaleCFG, another ModelSampling, masks) has its effect, and training evaluates the same guider.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import comfy.sample
import comfy.samplers
import comfy.sd
import comfy.utils
import torch
from torch import Tensor

from ...d3po_core.diffusion.denoiser import Conditioning
from ...d3po_core.diffusion.image_model import check_finite
from ...d3po_core.diffusion.rollout import CandidateNoise, SamplingPlan, Trajectory
from ...d3po_core.errors import D3POError
from ...d3po_core.run import Run
from .conditioning import key_of, pack, unpack
from .denoiser import HostDenoiser
from .memory import checkpointed, large_blocks, smallest_blocks
from .process import check_interrupted
from .recorder import Recorder
from .sampling import cleaned_up, host_sampling
from .types import Cond, Latent, Patcher, Vae
from .vae import Decoder

T = TypeVar("T")
PRECISELY = {
    "text encoder": "Start ComfyUI with --bf16-text-enc or --fp32-text-enc",
    "network": "Start ComfyUI with --bf16-unet or --fp32-unet",
    "VAE": "Start ComfyUI with --bf16-vae or --fp32-vae",
}
"""How a part of the model computes in numbers that do not overflow, see `check_finite`."""
SHAPE = "shape"
"""In a run's settings: the shape of an image's latents, if it was known when the run was begun."""


class HostModel:
    """MODEL, VAE and prompts as the core's `ImageModel`.

    Args:
        patcher: the MODEL.
        latent: of one image or more, of which the first is used; a `noise_mask` in it keeps the rest.
        vae: decodes; None where no image is needed.
        prompts: CONDITIONING, positive and negative, by the text that stands for it.
        eta: amount of noise, as in the settings that the plan was made with.
    """

    def __init__(
        self,
        patcher: Patcher,
        latent: Latent | None = None,
        vae: Vae | None = None,
        prompts: dict[str, tuple[Cond, Cond]] | None = None,
        eta: float = 1.0,
    ) -> None:
        self.patcher, self.vae, self.prompts, self.eta = patcher.clone(), vae, prompts or {}, eta
        self.denoiser = HostDenoiser(self.patcher)
        self.image = _fit_to_model(self.patcher, latent)[:1] if latent else None
        mask = latent.get("noise_mask") if latent else None
        self.mask = None if mask is None else mask[:1]
        self.identity = checkpoint(patcher) or "unknown"

    @property
    def beside(self) -> list[Patcher]:
        """Return further networks of the host's that must be loaded to train."""
        return []

    def large_blocks(self) -> list[torch.nn.Module]:
        """Return the blocks whose activations may be computed again in the backward pass."""
        return large_blocks(self.denoiser.module)

    def train(
        self, prompts: Sequence[Conditioning], shape: Sequence[int], checkpointing: bool, work: Callable[[], T]
    ) -> T:
        """Do what needs gradients inside one sampling of the host's, and return its result; see `host_sampling`.

        Args:
            prompts, shape, work: see `host_sampling`.
            checkpointing: compute activations again in the backward pass.
        """

        def with_blocks() -> T:
            with checkpointed(self.large_blocks() if checkpointing else []):
                return work()

        return host_sampling(self.denoiser, prompts, shape, with_blocks, self.beside)

    def evaluate(self, conditioning: Sequence[Conditioning], shape: Sequence[int], work: Callable[[], T]) -> T:
        """Do work that calls the denoiser inside one sampling of the host's; see `ImageModel.evaluate`."""

        def without_gradients() -> T:
            with torch.no_grad():
                return work()

        return self.train(conditioning, shape, False, without_gradients)

    def encode(self, prompts: list[str], negative: str = "") -> list[Conditioning]:
        """Return the prompts' CONDITIONING, packed.

        Raises:
            D3POError: its numbers overflowed.
        """
        rows = [pack(*self.prompts[prompt], self._around()) for prompt in prompts]
        for row in rows:
            for value in row.values():
                check_finite(value, "text encoder", PRECISELY["text encoder"])
        return rows

    def _around(self) -> dict[str, Tensor]:
        """Return what is drawn on, and where, in the model's own space, if it is not an empty latent."""
        if self.image is None or (self.mask is None and not self.image.any()):
            return {}
        latent = self.image.float()
        around = {"latent": self.patcher.model.process_latent_in(latent) if latent.any() else latent}
        if self.mask is not None:
            around["mask"] = comfy.utils.reshape_mask(self.mask, latent.shape).expand(latent.shape).float()
        return around

    def sample(
        self,
        plan: SamplingPlan,
        noises: Sequence[CandidateNoise],
        conditioning: Sequence[Conditioning],
        guidance_scale: float,
    ) -> Trajectory:
        """Draw one image for each noise; images of one prompt are one batch of the host's."""
        parts: dict[int, Trajectory] = {}
        keys = [key_of(row) for row in conditioning]
        for key in dict.fromkeys(keys):
            index = [i for i, other in enumerate(keys) if other == key]
            batch = self._sample_prompt(plan, [noises[i] for i in index], conditioning[index[0]], guidance_scale)
            parts |= {i: _row(batch, n) for n, i in enumerate(index)}
        names = ("x", "cond", "guided", "latents")
        return Trajectory(*(torch.cat([getattr(parts[i], name) for i in range(len(noises))]) for name in names))

    def _sample_prompt(
        self, plan: SamplingPlan, noises: Sequence[CandidateNoise], row: Conditioning, guidance_scale: float
    ) -> Trajectory:
        image, mask = self.canvas(row)
        recorder = Recorder(plan, noises, self.eta)
        guider = comfy.samplers.CFGGuider(self.patcher)
        guider.set_conds(*unpack(row))
        guider.set_cfg(guidance_scale)
        guider.model_options = recorder.watch(guider.model_options)
        noise = torch.stack([noise.start() for noise in noises])
        image = comfy.utils.repeat_to_batch_size(image, len(noises))
        sampler = comfy.samplers.KSAMPLER(recorder.sample)
        sigmas = torch.cat([plan.steps.sigma, plan.steps.sigma_next[-1:]]).float()

        def callback(step: int, denoised: Tensor, x: Tensor, steps: int) -> None:
            check_interrupted()

        with cleaned_up(guider):
            latents = guider.sample(noise, image, sampler, sigmas, denoise_mask=mask, callback=callback, seed=0)
        return recorder.trajectory(check_finite(latents.cpu(), "network", PRECISELY["network"]))

    def canvas(self, row: Conditioning) -> tuple[Tensor, Tensor | None]:
        """Return what a prompt is drawn on, in the LATENT's space, and the mask of what is drawn anew, if any."""
        assert self.image is not None
        return self.image, self.mask

    def decode(self, latents: Tensor) -> Tensor:
        """Decode latents as `sample` gave them to images (B, 3, H, W) in [0, 1] on the CPU.

        Raises:
            D3POError: there is no VAE, or its numbers overflow.
        """
        if self.vae is None:
            raise D3POError("There is no VAE to turn what was drawn into pictures.", "Connect one.")
        images = check_finite(self.vae.decode(latents), "VAE", PRECISELY["VAE"])
        return images.movedim(-1, 1)[:, :3].float().cpu().clamp(0, 1)

    def latent_shape(self, height: int = 0, width: int = 0) -> tuple[int, ...]:
        """Return the shape of one image of the LATENT, which alone decides sizes.

        Raises:
            D3POError: there is no LATENT.
        """
        if self.image is None:
            raise D3POError("There is no latent to draw on.", "Connect an Empty Latent Image.")
        return tuple(self.image.shape[1:])


class DifferentiableModel(HostModel):
    """A `HostModel` whose `decode` passes gradients on; it works inside `host_sampling` only, with `decoder.patcher`
    beside the model.
    """

    def __init__(self, patcher: Patcher, latent: Latent, vae: Vae, eta: float = 1.0) -> None:
        super().__init__(patcher, latent, vae, eta=eta)
        self.decoder = Decoder(vae)

    @property
    def beside(self) -> list[Patcher]:
        return [self.decoder.patcher]

    def large_blocks(self) -> list[torch.nn.Module]:
        return [*super().large_blocks(), *smallest_blocks(self.decoder.network)]

    def decode(self, latents: Tensor) -> Tensor:
        """Decode latents as the host's LATENT has them to images (B, 3, H, W) in [0, 1], float32, on the VAE's
        device."""
        return self.decoder(latents)


class RunModel(HostModel):
    """A `HostModel` that takes prompts, masks and, unless a shape is named, sizes from a run; no graph is needed.

    Raises:
        D3POError: nothing was drawn or imported yet, or what the run keeps of a group is missing or damaged.
    """

    def __init__(
        self, patcher: Patcher, run: Run, vae: Vae | None, eta: float = 1.0, shape: tuple[int, ...] | None = None
    ) -> None:
        super().__init__(patcher, {"samples": torch.zeros(1, *(shape or shape_of(run)))}, vae, eta=eta)
        self._rows = {
            prompt.text: run.prompts.conditioning(prompt.id)
            for prompt in run.prompts.all()
            if run.prompts.has_conditioning(prompt.id)  # imported ones may have none
        }

    def encode(self, prompts: list[str], negative: str = "") -> list[Conditioning]:
        return [self._rows[prompt] for prompt in prompts]

    def canvas(self, row: Conditioning) -> tuple[Tensor, Tensor | None]:
        if "latent" not in row:
            return super().canvas(row)
        return self.patcher.model.process_latent_out(row["latent"]), row.get("mask")


def shape_of(run: Run) -> tuple[int, ...]:
    """Return the shape of one image's latents: in the newest group that was drawn or, if none was, imported with a VAE;
    else as the run was begun.

    Raises:
        D3POError: there is none, or its file is missing or damaged.
    """
    for recorded in (True, False):
        for group in reversed(run.groups.select(freed=False, recorded=recorded)):
            tensors = run.groups.trajectory(group.id)
            if "latents" in tensors:
                return tuple(tensors["latents"].shape[1:])
    if run.settings.get(SHAPE):
        return tuple(run.settings[SHAPE])
    raise D3POError(f"Nothing was drawn for the taste '{run.name}' yet.", "Queue the sampler first.")


def checkpoint(patcher: Patcher) -> str:
    """Return the name of the file that a MODEL was loaded from; "" where the loader does not tell."""
    init = patcher.cached_patcher_init
    path = init[1][0] if init and init[1] else ""
    return Path(path).stem if isinstance(path, str | Path) else ""


def with_lora(patcher: Patcher, tensors: Mapping[str, Tensor], strength: float = 1.0) -> Patcher:
    """Return a MODEL with a LoRA, put on as the host's own loader does it."""
    return comfy.sd.load_lora_for_models(patcher, None, tensors, strength, 0.0)[0]


def _fit_to_model(patcher: Patcher, latent: Latent) -> Tensor:
    """Return a LATENT's tensor as the model needs it: an empty one gets its channels and its size."""
    names = ("downscale_ratio_spacial", "downscale_ratio_temporal")  # newer hosts say them, and know what to do
    ratios = {name: latent[name] for name in names if name in latent}  # type: ignore[literal-required]
    return comfy.sample.fix_empty_latent_channels(patcher, latent["samples"], **ratios)


def _row(batch: Trajectory, n: int) -> Trajectory:
    return Trajectory(*(getattr(batch, name)[n : n + 1] for name in ("x", "cond", "guided", "latents")))
