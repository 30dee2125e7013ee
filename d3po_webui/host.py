"""Everything that the web UIs do differently, behind functions of one meaning.

Beside flow.py, queue_host.py and register.py this is the only file that imports their `modules`. "A1111" here is
AUTOMATIC1111 v1.10; the Forge family (Forge Neo, Forge, reForge, forge-classic) keeps its network in `forge_objects`.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Protocol, cast

import torch
from modules import devices, shared
from modules.devices import NansException
from modules.prompt_parser import SdConditioning
from torch import Tensor, nn

from d3po_core.diffusion.image_model import check_finite
from d3po_core.diffusion.noise_schedule import PredictionType
from d3po_core.errors import D3POError

from . import calls

ALL_MEMORY = 1e30
"""More bytes than a graphics card has; makes the Forge family free all that it can."""
FLOAT32 = (("fp32_vae", "force_fp32"), ("vae_in_fp32", "all_in_fp32"), ("no_half_vae", "no_half"))
"""Options for float32, of the VAE alone and of everything: Forge Neo's, those of the other Forges, A1111's. The Forges
keep A1111's, too, and do nothing with them."""


class CheckpointInfo(Protocol):
    """A checkpoint's file, as both kinds of hosts describe it."""

    filename: str
    model_name: str
    shorthash: str | None

    def calculate_shorthash(self) -> str | None:
        """Return the file's hash; None if the user has turned that off."""


class LatentScale(Protocol):
    """Scales latents between the network and the VAE in the Forge family."""

    def process_in(self, latents: Tensor) -> Tensor:
        """Return latents as the network takes them."""

    def process_out(self, latents: Tensor) -> Tensor:
        """Return latents as the VAE takes them."""


class ModelConfig(Protocol):
    """A kind of model, in Forge Neo."""

    sampling_settings: dict[str, float]


class NoiseLevels(Protocol):
    """The noise levels of the Forge family's networks, (T,)."""

    sigmas: Tensor
    shift: float
    """Of a flow model's."""


class ForgeConfig(Protocol):
    """A model's configuration, in reForge and forge-classic."""

    latent_format: LatentScale


class ForgeNetwork(Protocol):
    """A UNet or transformer with its noise levels: `predictor` in Forge, `model_sampling` in the others."""

    diffusion_model: nn.Module
    predictor: NoiseLevels
    model_sampling: NoiseLevels
    model_config: ForgeConfig


class ModelPatcher(Protocol):
    """What the Forge family moves between memories."""

    model: ForgeNetwork

    def memory_required(self, shape: list[int]) -> float:
        """Return the bytes that computing needs for latents of a shape."""


class ForgeVae(Protocol):
    """The Forge family's VAE."""

    patcher: ModelPatcher
    first_stage_model: nn.Module
    latent_channels: int
    upscale_ratio: object
    """Pixels in a latent along a side; of VAEs that know moving pictures not a number."""


class ForgeObjects(Protocol):
    """The parts of the Forge family's model."""

    unet: ModelPatcher
    vae: ForgeVae


class HostModel(Protocol):
    """A loaded checkpoint as the web UI holds it; the Forge family's have only what comes first."""

    sd_checkpoint_info: CheckpointInfo
    forge_objects: ForgeObjects
    ref_latents: list[Tensor]
    """Pictures that Forge Neo's models for editing see beside the prompt; and one of them, of img2img:"""
    ini_latent: Tensor | None
    use_shift: bool
    """Whether *Distilled CFG Scale* shifts its levels of noise."""
    model_config: ModelConfig

    def set_shift(self, shift: float) -> None:
        """Give Forge Neo's flow models other levels of noise."""

    def get_learned_conditioning(self, prompts: object) -> Tensor | Sequence[Tensor] | dict[str, Tensor]:
        """Return what the text encoder makes of prompts."""

    # A1111's, of ldm (SD) or sgm (SDXL)
    model: nn.Module
    """Calls the UNet, `diffusion_model`."""
    first_stage_model: nn.Module
    parameterization: str
    alphas_cumprod: Tensor
    scale_factor: float

    def apply_model(self, x: Tensor, timestep: Tensor, cond: Mapping[str, object]) -> Tensor:
        """Return the network's output, in the host's precision."""


def loaded_model() -> HostModel:
    """Return the web UI's model; the Forge family loads it only when it is first needed.

    Raises:
        D3POError: there is none, only pieces of it are in memory, or the host is another one than we know.
    """
    from modules import sd_models

    if differing := calls.differing():
        raise D3POError(calls.sentence(differing), calls.UPDATE)
    reload = getattr(sd_models, "forge_model_reload", None)
    if reload:
        chosen = sd_models.model_data.forge_loading_parameters
        model = reload()[0] if chosen.get("checkpoint_info") else None
    else:
        if shared.sd_model and shared.sd_model.sd_checkpoint_info.filename != sd_models.select_checkpoint().filename:
            sd_models.reload_model_weights()  # a refiner was the last to draw
        model = shared.sd_model
    if model is None:
        raise D3POError("No checkpoint is loaded.", "Choose one at the top of the page.")
    if getattr(shared.cmd_opts, "lowvram", False) and not is_forge(model):  # the Forge family trains such models, too
        raise D3POError(
            "With --lowvram only pieces of the model are in memory at a time, and such a model cannot be taught.",
            "Start the web UI with --medvram or without either.",
        )
    return model


def latent_channels(model: HostModel) -> int:
    """Return the number of channels of a model's latents."""
    return int(getattr(model.forge_objects.vae, "latent_channels", 4)) if is_forge(model) else 4


def pixels_per_latent(model: HostModel) -> int:
    """Return how many pixels a latent has along a side."""
    ratio = getattr(model.forge_objects.vae, "upscale_ratio", 8) if is_forge(model) else 8  # Forge and reForge lack it
    return ratio if isinstance(ratio, int) else 8


def unit(model: HostModel) -> int:
    """Return the pixels that an image's sides must be multiples of: Mugen's VAE joins two latents along a side."""
    return pixels_per_latent(model) * (2 if getattr(vae(model), "mugen", False) else 1)


def frames(model: HostModel) -> tuple[int, ...]:
    """Return what stands between channels and height in a latent's shape: one frame, where a VAE knows several."""
    return (1,) if getattr(model, "is_wan", False) else ()


def is_forge(model: HostModel) -> bool:
    """Return whether a model is of the Forge family."""
    return hasattr(model, "forge_objects")


def has_flow_models() -> bool:
    """Return whether the host is Forge Neo, whose flow models can be taught."""
    engines = sys.modules.get("backend.diffusion_engine.base")
    return hasattr(getattr(engines, "ForgeDiffusionEngine", None), "set_shift")


def is_flow(model: HostModel) -> bool:
    """Return whether a model is a flow model, whose network predicts noise minus picture."""
    return is_forge(model) and getattr(predictor(model), "prediction_type", "") == "const"


def network(model: HostModel) -> nn.Module:
    """Return the UNet or transformer."""
    if is_forge(model):
        return model.forge_objects.unet.model.diffusion_model
    return cast("nn.Module", model.model.diffusion_model)


def native_side(model: HostModel) -> int:
    """Return height and width, in pixels, of the images that a model was made for."""
    large = getattr(model, "is_sdxl", False) or is_flow(model)
    return 1024 if large else 768 if getattr(model, "is_sd2", False) else 512


def to_device(model: HostModel, shape: Sequence[int] = (), alone: bool = False, vae: bool = False) -> None:
    """Let the Forge family bring the network to where it computes, without a LoRA in its weights that was taken off.

    In A1111 it is there already, or comes when it is called; but see `vae_at_hand`.

    Args:
        model: the host's.
        shape: of the latents that are computed at once, (B, C, h, w), so that the host frees memory for them.
        alone: free all memory: every other model leaves the graphics card, and as much of this one stays as fits.
        vae: bring the VAE too, and keep it beside the network.
    """
    if not is_forge(model):
        return
    try:
        from backend.memory_management import load_models_gpu  # Forge
    except ImportError:
        from ldm_patched.modules.model_management import load_models_gpu  # reForge, forge-classic
    unet = model.forge_objects.unet
    patchers = [unet, model.forge_objects.vae.patcher] if vae else [unet]
    required = ALL_MEMORY if alone else unet.memory_required(list(shape)) if shape else 0
    # Where the host keeps memory free for computing, it would keep all of it, and stream the network in at every pass.
    keeps_free = alone and "minimum_memory_required" in inspect.signature(load_models_gpu).parameters
    with torch.inference_mode():  # as the host does it: else Forge's weights are of neither kind once they were swapped
        load_models_gpu(patchers, required, **({"minimum_memory_required": 0} if keeps_free else {}))


def device() -> torch.device:
    """Return the device on which the network computes."""
    return torch.device(devices.device)


def prediction_type(model: HostModel) -> PredictionType | None:
    """Return what a diffusion model's network predicts; None if that is not noise or velocity at discrete timesteps."""
    if is_forge(model):
        return prediction_of(predictor(model))
    return "v_prediction" if model.parameterization == "v" else "epsilon"


def prediction_of(predictor: object) -> PredictionType | None:
    """Return what the Forge family's networks predict, from their noise levels.

    Forge has it in an attribute; the others mix classes when the model is loaded.
    """
    names = {base.__name__ for base in type(predictor).__mro__}
    if "ModelSamplingDiscrete" in names:
        return "v_prediction" if "V_PREDICTION" in names else "epsilon" if "EPS" in names else None
    if "Prediction" not in names:
        return None
    kinds: dict[str, PredictionType] = {"eps": "epsilon", "epsilon": "epsilon", "v_prediction": "v_prediction"}
    return kinds.get(getattr(predictor, "prediction_type", ""))


def predictor(model: HostModel) -> NoiseLevels:
    """Return the noise levels of the Forge family's model."""
    inner = model.forge_objects.unet.model
    return inner.predictor if hasattr(inner, "predictor") else inner.model_sampling


def alphas_cumprod(model: HostModel) -> Tensor:
    """Return the cumulative product of alphas at each timestep, (T,), on the CPU, as the next generation would have it:
    the user may have chosen zero terminal SNR."""
    if not is_forge(model):
        from modules import sd_models

        sd_models.apply_alpha_schedule_override(model)
        return model.alphas_cumprod.cpu()
    sigmas = predictor(model).sigmas
    by_checkpoint = getattr(model, "ztsnr", False) or getattr(getattr(model, "model_config", None), "ztsnr", False)
    if shared.opts.sd_noise_schedule == "Zero Terminal SNR" or by_checkpoint:
        sigmas = _rescale()(sigmas)
    return 1 / (sigmas.double().cpu() ** 2 + 1)


def _rescale() -> Callable[[Tensor], Tensor]:
    """Find the host's own way to give noise levels a zero terminal SNR; forge-classic has none."""
    try:
        from backend.modules.k_prediction import rescale_zero_terminal_snr_sigmas  # Forge
    except ImportError:
        try:
            from ldm_patched.contrib.external_model_advanced import rescale_zero_terminal_snr_sigmas  # reForge
        except ImportError:
            return lambda sigmas: sigmas
    return rescale_zero_terminal_snr_sigmas


def evaluate(model: HostModel, x: Tensor, timestep: Tensor, context: Tensor, vector: Tensor | None) -> Tensor:
    """Return the network's output, in the precision that the host computes in, with gradients if they are enabled.

    Args:
        model: the host's.
        x: scaled latents (B, C, h, w).
        timestep: (B,); the Forge family's networks take whole ones.
        context: the text's tokens (B, T, D).
        vector: SDXL's pooled text and sizes, (B, V).
    """
    if is_forge(model):
        unet, timestep = network(model), timestep.round().to(x.device, torch.float32)
        dtype = getattr(unet, "computation_dtype", None) or getattr(unet, "dtype", torch.float32)
        more = {} if vector is None else {"y": vector.to(dtype)}
        return unet(x.to(dtype), timestep, context=context.to(dtype), transformer_options={}, **more)
    timestep = timestep.to(x.device, torch.float32)
    with _precision():  # through the wrapper, which brings the network to the device for --medvram
        if vector is None:
            return model.apply_model(x, timestep, {"c_crossattn": [context]})
        return model.apply_model(x, timestep, {"crossattn": context, "vector": vector})


def _precision() -> AbstractContextManager[object]:
    """Enter the precision that A1111 computes in; the Forge family's networks know their own."""
    if getattr(devices, "unet_needs_upcast", False):  # --upcast-sampling
        return devices.without_autocast()
    return devices.autocast() if hasattr(devices, "autocast") else nullcontext()


def encode(
    model: HostModel, prompt: str, negative: bool, width: int, height: int, slider: float = 0
) -> dict[str, Tensor]:
    """Encode a prompt with the user's CLIP skip and emphasis.

    Schedules such as [a:b:0.5] and AND are read as plain words: a taste has one prompt for all steps. What follows a
    BREAK is left out where the host leaves it out, as with T5.

    Args:
        model: the host's.
        prompt: one text.
        negative: whether it is a negative prompt.
        width, height: of the images, in pixels; SDXL takes them with the text.
        slider: Forge Neo's *Distilled CFG Scale*, which networks that were distilled with guidance take with the text;
            0 is the host's own.

    Returns:
        "crossattn": the text's tokens (1, T, D); for SDXL and Flux also "vector": pooled text, and SDXL's sizes (1, V);
        for networks that were distilled with guidance also "guidance": (1,).
    """
    if hasattr(model, "set_clip_skip"):
        model.set_clip_skip(int(shared.opts.CLIP_stop_at_last_layers))
    texts = SdConditioning([prompt], is_negative_prompt=negative, width=width, height=height)
    texts.distilled_cfg_scale = slider or None
    with torch.no_grad(), _precision():
        encoded = model.get_learned_conditioning(texts)
    if not isinstance(encoded, dict):  # of some engines a list, with one entry for each part between BREAKs
        encoded = {"crossattn": encoded if isinstance(encoded, Tensor) else encoded[0][None]}
    return {name: value[:1] for name, value in encoded.items()}


def decode(model: HostModel, latents: Tensor) -> Tensor:
    """Decode latents to images (B, 3, H, W) in [0, 1] on the CPU, by the VAE that the user has set.

    A1111 takes a VAE that overflows in half precision to float32, if its settings say so.

    Raises:
        D3POError: an image's numbers overflowed; none is returned then.
    """
    from modules.processing import decode_latent_batch

    images, how = [], precisely("VAE")
    with torch.no_grad():
        for latent in latents.to(device()).split(1):
            try:
                (image,) = decode_latent_batch(model, latent, torch.device("cpu"), check_for_nans=True)
            except NansException:  # A1111 looks at one number
                image = torch.full((), torch.nan)
            images.append(check_finite(image, "VAE", how).float().reshape(-1, *image.shape[-2:]))  # of one frame
    return (torch.stack(images) / 2 + 0.5).clamp(0, 1)


def precisely(part: str) -> str:
    """Return how a person lets a part of the model compute in float32, see `check_finite`."""
    names = next((names for names in FLOAT32 if hasattr(shared.cmd_opts, names[0])), FLOAT32[-1])
    return f"Start the web UI with --{names[0 if part == 'VAE' else 1].replace('_', '-')}"


def vae(model: HostModel) -> nn.Module:
    """Return the network that encodes and decodes images."""
    return model.forge_objects.vae.first_stage_model if is_forge(model) else model.first_stage_model


@contextmanager
def vae_at_hand(model: HostModel) -> Iterator[None]:
    """Keep the VAE where it computes, beside the network, and move neither meanwhile.

    In the Forge family `to_device` does so. A1111 with --medvram would swap the two at every call, so that a backward
    pass would have other weights than the forward pass.
    """
    if is_forge(model):
        yield
        return
    for bring in model.model._forward_pre_hooks.values():  # --medvram's: then it has no reason to swap
        bring(model.model, ())
    network = vae(model)
    before = next(network.parameters()).device
    network.to(device())
    try:
        yield
    finally:
        network.to(before)


def to_vae(model: HostModel, latents: Tensor) -> Tensor:
    """Return latents as the VAE's network takes them."""
    return latents / model.scale_factor if not is_forge(model) else _scaling(model).process_out(latents)


def from_vae(model: HostModel, latents: Tensor) -> Tensor:
    """Return latents as the network takes them: the inverse of `to_vae`."""
    return latents * model.scale_factor if not is_forge(model) else _scaling(model).process_in(latents)


def _scaling(model: HostModel) -> LatentScale:
    """Find what scales latents: Forge's VAE itself, or the configuration of the others' models."""
    network = vae(model)
    if hasattr(network, "process_out"):
        return cast("LatentScale", network)
    return model.forge_objects.unet.model.model_config.latent_format


def checkpoint(model: HostModel) -> tuple[str, str]:
    """Return name and hash of the checkpoint."""
    info = model.sd_checkpoint_info
    return info.model_name, info.shorthash or info.calculate_shorthash() or _sampled_hash(Path(info.filename))


def _sampled_hash(file: Path) -> str:
    """Hash a file's size and parts of it, for users who have turned off the host's hashes."""
    digest = hashlib.sha256(str(file.stat().st_size).encode())
    with file.open("rb") as open_file:
        for part in range(8):
            open_file.seek(part * file.stat().st_size // 8)
            digest.update(open_file.read(2**20))
    return digest.hexdigest()[:10]


def take_off_networks() -> None:
    """Take off the LoRAs and hypernetworks of an earlier prompt; the next generation puts on its own."""
    loras, hypernetworks = sys.modules.get("networks"), sys.modules.get("modules.hypernetworks.hypernetwork")
    if loras is not None:
        loras.load_networks([], [], [])
    if hypernetworks is not None:
        hypernetworks.load_hypernetworks([], [])


def embeddings() -> set[str]:
    """Return the names of the user's textual-inversion embeddings, in small letters."""
    folder = Path(shared.cmd_opts.embeddings_dir)
    return {path.stem.lower() for path in folder.rglob("*") if path.is_file()}


def data_folder() -> Path:
    """Return the folder of the user's own files."""
    from modules.paths_internal import data_path

    return Path(data_path)


def lora_folders() -> list[Path]:
    """Return the folders of the LoRAs that the host's cards show, its own first; --lora-dirs names more."""
    return [Path(shared.cmd_opts.lora_dir), *map(Path, getattr(shared.cmd_opts, "lora_dirs", None) or [])]


def make_temporary_folder() -> None:
    """Make the folder that the host writes a gallery's images to: Forge Neo names one and does not make it."""
    if folder := getattr(shared.opts, "temp_dir", ""):
        with suppress(OSError):
            Path(folder).mkdir(parents=True, exist_ok=True)
