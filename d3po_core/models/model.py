"""A diffusers pipeline as the core's `ImageModel` and `Denoiser`, and the identity of its weights."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from ..diffusion.denoiser import Conditioning, Denoiser, Prediction, stack
from ..diffusion.image_model import check_finite
from ..diffusion.noise_schedule import karras
from ..diffusion.rollout import CandidateNoise, SamplingPlan, Trajectory, sample
from ..diffusion.steps import per_row
from ..errors import D3POError, check_stop
from .architectures import ARCHITECTURES, Architecture, Network, Pipeline
from .schedules import FLOWS, DiffusionSchedule, FlowSchedule, Schedule

T = TypeVar("T")
DECODE_PIXELS = 2**18
"""Pixels decoded at once: one image of 512x512, or 64 of 64x64."""
SAMPLED_VALUES = 1024
"""Values per tensor that the identity depends on."""
ESCAPED = re.compile(r"\\[()\[\]{}]")
WEIGHT = r"[+-]?\d*\.\d+"
"""Of emphasis, or a share of all steps. A whole number in its place is a time, a part or a face more often than not."""
SPELLINGS = re.compile(
    r"<(?:lora|lyco|lycoris|hypernet|loha|lokr):[^<>]+>"  # A1111's extra networks
    r"|\bembedding:[\w./-]+"  # ComfyUI's
    rf"|\([^()]*[^()\s]\s*:\s*{WEIGHT}\s*\)"  # (red:1.4)
    r"|\(\([^()]+\)\)|\[\[[^\[\]]+\]\]"  # ((red)), [[red]]
    r"|\[[^\[\]|]*\|[^\[\]]*\]|\{[^{}|]*\|[^{}]*\}"  # [red|blue], {red|blue}
    rf"|\[[^\[\]]*[^\[\]\d\s]\s*:\s*{WEIGHT}\s*\]"  # [red:0.5], [red::0.5]
    rf"|\[[^\[\]:]*:[^\[\]:]*[^\[\]:\d\s]\s*:\s*(?:\d+|{WEIGHT})\s*\]"  # [red:blue:0.5], [red:blue:10]
)
MAX_SHOWN = 3


def model_identity(module: torch.nn.Module) -> str:
    """Hash the parameters' names, shapes, and the signs of about a thousand values of each.

    A cast to float16 or bfloat16 keeps all signs, and still they distinguish models: a fine-tune that moves weights by
    a thousandth of their size flips hundreds of them. LoRA layers that PEFT has added to the module are left out; a
    LoRA that was merged into the weights changes the hash. A network without values (on the meta device) has none: "".
    """
    if next(module.parameters()).is_meta:
        return ""
    digest = hashlib.sha256()
    named = {name.replace(".base_layer.", "."): value for name, value in module.named_parameters()}
    for name in sorted(name for name in named if ".lora_" not in name):
        values = named[name].detach().flatten()
        stride = values.numel() // SAMPLED_VALUES | 1  # odd, so that not all values are of one column of a matrix
        digest.update(f"{name} {tuple(named[name].shape)}".encode())
        digest.update(torch.signbit(values[::stride]).cpu().numpy().tobytes())
    return digest.hexdigest()


class DiffusersDenoiser(Denoiser):
    """The UNet or transformer of a pipeline: denoised predictions in float32, whatever the network's dtype.

    A LoRA that is active in the module takes part in the prediction, and gradients flow to its parameters. An autocast
    around a call is respected.
    """

    def __init__(self, pipeline: Pipeline, architecture: Architecture, schedule: Schedule) -> None:
        self._pipeline, self._forward, self._schedule = pipeline, architecture.forward, schedule
        network: Network = getattr(pipeline, architecture.module)
        self.module, self.family, config = network, schedule.family, network.config
        # Guidance-distilled networks take the scale as an input and have no unconditional branch.
        self.distilled = bool(config.get("guidance_embeds") or config.get("time_cond_proj_dim"))

    @property
    def device(self) -> torch.device:
        return next(self.module.parameters()).device

    def __call__(
        self, x: Tensor, sigma: Tensor, conditioning: Conditioning, guidance_scale: float, guided: bool = True
    ) -> Prediction:
        """Predict the clean latents in one forward pass: of 2 B rows with guidance, of B rows without.

        The conditioning may be on any device.
        """
        guided = guided and guidance_scale != 1 and not self.distilled
        sigma = sigma.detach().to("cpu", torch.float64)
        scaling = self._schedule.scaling(sigma)
        dtype = next(self.module.parameters()).dtype
        network_input = (per_row(scaling.into, x) * x).to(dtype)
        timestep = self._schedule.timestep(sigma).to(x.device, torch.float32)
        if guided:
            network_input, timestep = torch.cat([network_input] * 2), torch.cat([timestep] * 2)
        branches = {name: c.to(x.device, dtype) for name, c in _branches(conditioning, guided).items()}
        output = self._forward(self._pipeline, network_input, timestep, branches, guidance_scale).float()
        skipped, scale = per_row(scaling.skip, x) * x, per_row(scaling.out, x)
        if not guided:
            denoised = skipped + scale * output
            return Prediction(denoised, denoised)
        uncond, cond = (skipped + scale * part for part in output.chunk(2))
        return Prediction(cond, uncond + guidance_scale * (cond - uncond), uncond)

    def sigmas(self, steps: int, schedule: str) -> Tensor:
        """Return the noise levels of a sampling schedule, descending, float64 (steps + 1,).

        Args:
            steps: number of steps.
            schedule: "model", the levels of the pipeline's own scheduler configuration (with DDIM for diffusion, Euler
                for flow; shifts that depend on the image's size use the native one), or "karras", between the same
                highest and lowest level, then 0.

        Raises:
            D3POError: the model's schedule has fewer steps.
        """
        levels = self._schedule.sigmas(steps)
        return karras(levels[:-1]) if schedule == "karras" else levels


class DiffusersModel:
    """A frozen pipeline; its weights are used in place and never copied.

    A LoRA that was loaded into the pipeline beforehand belongs to the base model.

    Args:
        pipeline: of one of the classes in `ARCHITECTURES`, on its device.

    Raises:
        D3POError: the pipeline is of another class, or its network predicts something else or needs more inputs.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        kind = type(pipeline).__name__
        if kind not in ARCHITECTURES:
            raise D3POError(f"{kind} is not supported.", f"Use one of {', '.join(ARCHITECTURES)}.")
        self.pipeline = pipeline
        self.architecture = ARCHITECTURES[kind]
        network = getattr(pipeline, self.architecture.module)
        self._channels: int = pipeline.vae.config.latent_channels
        if _takes_more(network.config, self._channels, self.architecture):
            raise D3POError(
                "This model draws from more than a prompt (inpainting or editing), which is not supported.",
                "Use a text-to-image model.",
            )
        if pipeline.vae.dtype != torch.float32:
            pipeline.vae.float()  # small, and SDXL's overflows in float16
        for part in pipeline.components.values():
            if isinstance(part, torch.nn.Module):
                part.eval().requires_grad_(False)
        self.denoiser = DiffusersDenoiser(pipeline, self.architecture, self._schedule())
        self.identity = model_identity(network)

    @property
    def prediction_type(self) -> str:
        """Name what the network predicts, as LoRA files do: "epsilon", "v", or "" for other kinds."""
        prediction = self.pipeline.scheduler.config.get("prediction_type", "epsilon")
        names = {"epsilon": "epsilon", "v_prediction": "v"}
        return names.get(prediction, "") if self.denoiser.family == "diffusion" else ""

    @staticmethod
    def plain_words(prompts: Iterable[str], embeddings: Sequence[str] = ()) -> str:
        """Return a sentence on what A1111 and ComfyUI obey in prompts and a pipeline reads as it is; "" without any.

        See `Encoder.plain_words`.
        """
        found = dict.fromkeys(embeddings)
        for prompt in prompts:
            text = ESCAPED.sub("", prompt)
            found |= dict.fromkeys([*SPELLINGS.findall(text), *_obeyed_words(text)])
        if not found:
            return ""
        shown = ", ".join(list(found)[:MAX_SHOWN]) + (", ..." if len(found) > MAX_SHOWN else "")
        return f"Read as plain words here, unlike in A1111 or ComfyUI: {shown}"

    @torch.no_grad()
    def encode(self, prompts: list[str], negative: str = "") -> list[Conditioning]:
        """Encode each prompt to a conditioning of one row, on the CPU in the text encoder's dtype.

        Every text is encoded alone, so that the result does not depend on the others. Without a negative prompt the
        unconditional branch is the empty text, or zeros if the pipeline is configured so (SDXL).

        Returns:
            For each prompt prompt_embeds (1, T, C), for most architectures pooled_prompt_embeds (1, C), and the
            negative's under the same names with the prefix negative_.

        Raises:
            D3POError: a prompt is empty, or longer than the model reads.
        """
        if any(not prompt.strip() for prompt in prompts):
            raise D3POError("A prompt is empty.", "Write what the picture should show.")
        encoded = {}
        for text in dict.fromkeys([*prompts, negative]):
            check_stop()
            _check_length(self.pipeline, self.architecture, text)
            encoded[text] = {n: value.cpu() for n, value in self.architecture.encode(self.pipeline, text).items()}
        unconditional = {f"negative_{name}": value for name, value in encoded[negative].items()}
        if not negative and self.pipeline.config.get("force_zeros_for_empty_prompt"):
            unconditional = {name: torch.zeros_like(value) for name, value in unconditional.items()}
        return [encoded[prompt] | unconditional for prompt in prompts]

    def sample(
        self,
        plan: SamplingPlan,
        noises: Sequence[CandidateNoise],
        conditioning: Sequence[Conditioning],
        guidance_scale: float,
    ) -> Trajectory:
        """Draw one image for each noise and its conditioning (one row each), all in one batch."""
        return sample(self.denoiser, plan, noises, stack(conditioning), guidance_scale)

    @torch.no_grad()
    def evaluate(self, conditioning: Sequence[Conditioning], shape: Sequence[int], work: Callable[[], T]) -> T:
        """Do work that calls the denoiser; see `ImageModel.evaluate`."""
        return work()

    def decode(self, latents: Tensor) -> Tensor:
        """Decode latents (B, C, h, w) to images (B, 3, H, W) in [0, 1], float32, on the model's device.

        Gradients flow where they are enabled.
        """
        vae, factor = self.pipeline.vae, self.pipeline.vae_scale_factor
        latents = latents.to(vae.device, torch.float32)
        scale, shift = self._latent_scale(latents)
        latents = latents * scale + shift
        at_once = max(1, DECODE_PIXELS // (latents.shape[-2] * latents.shape[-1] * factor**2))
        images = [vae.decode(part, return_dict=False)[0] for part in _unless_stopped(latents.split(at_once))]
        return (check_finite(torch.cat(images), "VAE") / 2 + 0.5).clamp(0, 1)

    @torch.no_grad()
    def encode_images(self, images: Tensor) -> Tensor:
        """Encode images (B, 3, H, W) in [0, 1] to latents (B, C, h, w), float32, on the model's device.

        Takes the mean of the VAE's posterior, so that an image always has the same latents.

        Raises:
            D3POError: a side is not a multiple of `unit`, or larger than the model can place.
        """
        vae, (height, width) = self.pipeline.vae, images.shape[-2:]
        self.latent_shape(height, width)
        images = images.to(vae.device, torch.float32) * 2 - 1
        at_once = max(1, DECODE_PIXELS // (height * width))
        latents = torch.cat([vae.encode(part).latent_dist.mode() for part in _unless_stopped(images.split(at_once))])
        scale, shift = self._latent_scale(latents)
        return (latents - shift) / scale

    @property
    def unit(self) -> int:
        """Return the pixels that an image's height and width must be multiples of."""
        return self.pipeline.vae_scale_factor * self.architecture.patch

    def latent_shape(self, height: int = 0, width: int = 0) -> tuple[int, ...]:
        """Return the shape (C, h, w) of one image's latents; 0 pixels means the model's native size.

        Raises:
            D3POError: a side is not a multiple of `unit`, or larger than the model can place.
        """
        factor, unit = self.pipeline.vae_scale_factor, self.unit
        native = self._native_size()
        sides = [height or native[0], width or native[1]]
        if any(side < unit or side % unit for side in sides):
            raise D3POError(
                f"This model cannot draw pictures of {sides[0]} by {sides[1]} pixels (height by width).",
                f"Choose multiples of {unit}; its native size is {native[0]} by {native[1]}.",
            )
        network: Network = self.denoiser.module
        largest = network.config.get("pos_embed_max_size")
        if largest is not None and max(sides) > largest * unit:
            raise D3POError(f"This model draws at most {largest * unit} pixels per side.", "Choose a smaller size.")
        return (self._channels, sides[0] // factor, sides[1] // factor)

    def _latent_scale(self, like: Tensor) -> tuple[Tensor | float, Tensor | float]:
        """Return scale and shift from the network's latents (B, C, h, w) to the VAE's."""
        config = self.pipeline.vae.config
        mean, std = config.get("latents_mean"), config.get("latents_std")
        scale = 1.0 if std is None else _channel(std, like)
        shift = (config.get("shift_factor") or 0.0) if mean is None else _channel(mean, like)
        return scale / config.scaling_factor, shift

    def _schedule(self) -> Schedule:
        scheduler = self.pipeline.scheduler
        if type(scheduler).__name__ not in FLOWS:
            return DiffusionSchedule(scheduler)
        tokens = math.prod(side // self.unit for side in self._native_size())
        return FlowSchedule(scheduler, tokens, even=self.architecture.label == "Flux")

    def _native_size(self) -> tuple[int, int]:
        """Return height and width in pixels."""
        network = getattr(self.pipeline, self.architecture.module)
        size = getattr(self.pipeline, "default_sample_size", None) or network.config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        return height * self.pipeline.vae_scale_factor, width * self.pipeline.vae_scale_factor


def _unless_stopped(parts: Sequence[Tensor]) -> Iterator[Tensor]:
    """Iterate over parts of a piece of work, unless somebody wants to stop before the next one."""
    for part in parts:
        check_stop()
        yield part


def _obeyed_words(text: str) -> list[str]:
    """Return BREAK and AND where A1111 obeys them; not among words that are in capitals as they are."""
    words = text.split()
    places = [at for at, word in enumerate(words) if word == "BREAK" or (word == "AND" and 0 < at < len(words) - 1)]
    return [words[at] for at in places if not all(map(_in_capitals, words[max(0, at - 1) : at + 2]))]


def _in_capitals(word: str) -> bool:
    """Return whether all letters of a word are capitals. Chinese ones are not, and neither are digits."""
    return word.upper() == word and word.lower() != word


def _takes_more(config: Mapping[str, object], channels: int, architecture: Architecture) -> bool:
    """Return whether a network has inputs beside latents, a prompt, and what its architecture's pipeline gives it."""
    added = (None, "text_time") if architecture.label == "SDXL" else (None,)
    return (
        config["in_channels"] not in (channels, channels * architecture.patch**2)
        or config.get("class_embed_type") is not None
        or config.get("num_class_embeds") is not None
        or config.get("encoder_hid_dim_type") not in (None, "text_proj")
        or config.get("addition_embed_type") not in added
    )


def _channel(values: list[float], like: Tensor) -> Tensor:
    """Reshape numbers per channel to multiply latents (B, C, h, w)."""
    return torch.tensor(values, device=like.device).reshape(-1, 1, 1)


def _check_length(pipe: Pipeline, architecture: Architecture, text: str) -> None:
    """Refuse a text that would be truncated silently, which would make different prompts equal.

    Of several text encoders the one that reads most decides: it still distinguishes prompts.

    Raises:
        D3POError: the text is too long.
    """
    used, allowed = max((_tokens(pipe, architecture, suffix, text) for suffix in ("", "_2", "_3")), key=lambda n: n[1])
    if used > allowed:
        start = text if len(text) <= 40 else text[:40] + "…"
        raise D3POError(
            f"The prompt '{start}' is too long: it has {used} tokens, and this model reads {allowed}.", "Shorten it."
        )


def _tokens(pipe: Pipeline, architecture: Architecture, suffix: str, text: str) -> tuple[int, int]:
    """Count a text's tokens for one of the pipeline's text encoders, and the tokens that the encoder reads.

    Start and end marks are not counted. Returns (0, 0) if the pipeline has no such encoder.
    """
    tokenizer = getattr(pipe, f"tokenizer{suffix}", None)
    if tokenizer is None or getattr(pipe, f"text_encoder{suffix}", None) is None:
        return 0, 0
    if hasattr(pipe, "maybe_convert_prompt"):  # textual inversion: one word can become several tokens
        text = pipe.maybe_convert_prompt(text, tokenizer)
    limit = dict(architecture.reads).get(f"tokenizer{suffix}", tokenizer.model_max_length)
    used = len(tokenizer(text, add_special_tokens=False, verbose=False).input_ids)
    return used, limit - tokenizer.num_special_tokens_to_add()


def _branches(conditioning: Conditioning, guided: bool) -> Conditioning:
    """Select the network's rows: prompts alone, or negatives followed by prompts, under the prompts' names."""
    prompts = {name: value for name, value in conditioning.items() if not name.startswith("negative_")}
    if not guided:
        return prompts
    return {name: torch.cat([conditioning[f"negative_{name}"], value]) for name, value in prompts.items()}
