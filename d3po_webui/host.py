"""What the web UIs do differently, in one file: the only one that imports their `modules`.

"A1111" here is AUTOMATIC1111 v1.10; the Forge family (Forge, reForge, forge-classic) keeps its network in
`forge_objects`.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from modules import call_queue, devices, progress, shared
from modules.devices import NansException
from modules.prompt_parser import SdConditioning
from torch import Tensor

from d3po_core.errors import D3POError

LATENT_CHANNELS = 4
ALL_OF_IT = 1e30
"""More bytes than a graphics card has; the Forge family is told so where it is to free what it can."""


def loaded_model() -> Any:
    """The web UI's model; the Forge family loads it only when it is first wanted.

    Raises:
        D3POError: there is none, or only pieces of it are in memory.
    """
    from modules import sd_models

    if getattr(shared.cmd_opts, "lowvram", False):
        raise D3POError(
            "With --lowvram only pieces of the model are in memory at a time, and such a model cannot be taught.",
            "Start the web UI with --medvram or without either.",
        )

    reload = getattr(sd_models, "forge_model_reload", None)
    if reload:
        model = reload()[0]
    else:
        if shared.sd_model and shared.sd_model.sd_checkpoint_info.filename != sd_models.select_checkpoint().filename:
            sd_models.reload_model_weights()  # a refiner was the last to draw
        model = shared.sd_model
    if model is None:
        raise D3POError("No checkpoint is loaded.", "Choose one at the top of the page.")
    return model


def why_not(model: Any) -> str:
    """Why a model cannot be taught here whatever its noise levels are; "" if nothing speaks against it."""
    if getattr(model, "is_sd3", False):
        return "Stable Diffusion 3 cannot be taught in this tab yet."
    first = next((layer for layer in network(model).modules() if isinstance(layer, torch.nn.Conv2d)), None)
    if first is not None and first.in_channels != LATENT_CHANNELS:
        return "Models for inpainting or editing cannot be taught in this tab."
    return ""


def is_forge(model: Any) -> bool:
    """Whether a model is of the Forge family."""
    return hasattr(model, "forge_objects")


def network(model: Any) -> torch.nn.Module:
    """The UNet or transformer."""
    found = model.forge_objects.unet.model if is_forge(model) else model.model
    return found.diffusion_model


def to_device(model: Any, shape: Sequence[int] = (), alone: bool = False, vae: bool = False) -> None:
    """Let the Forge family bring the network to where it computes, with no LoRA in its weights that was taken off.

    Elsewhere it is there, or comes when it is called; but see `vae_at_hand`.

    Args:
        model: the host's.
        shape: of the latents that are computed at once, (B, C, h, w), so that the host makes room for them.
        alone: make all the room there is: every other model leaves the graphics card.
        vae: bring the VAE too, to stay beside the network.
    """
    if not is_forge(model):
        return
    try:
        from backend.memory_management import load_models_gpu  # Forge
    except ImportError:
        from ldm_patched.modules.model_management import load_models_gpu  # reForge, forge-classic
    unet = model.forge_objects.unet
    patchers = [unet, model.forge_objects.vae.patcher] if vae else [unet]
    load_models_gpu(patchers, ALL_OF_IT if alone else unet.memory_required(list(shape)) if shape else 0)


def device() -> torch.device:
    """Where the network computes."""
    return torch.device(devices.device)


def predictor(model: Any) -> Any:
    """The Forge family's noise levels: Forge calls it so, the others as ComfyUI did."""
    inner = model.forge_objects.unet.model
    return inner.predictor if hasattr(inner, "predictor") else inner.model_sampling


def alphas_cumprod(model: Any) -> Tensor:
    """abar at each timestep as the next generation would have it: the user may have chosen zero terminal SNR."""
    if not is_forge(model):
        from modules import sd_models

        sd_models.apply_alpha_schedule_override(model)
        return model.alphas_cumprod.cpu()
    sigmas = predictor(model).sigmas
    told = (getattr(model, "ztsnr", False), getattr(getattr(model, "model_config", None), "ztsnr", False))
    if shared.opts.sd_noise_schedule == "Zero Terminal SNR" or any(told):
        sigmas = _rescaled()(sigmas)
    return 1 / (sigmas.double().cpu() ** 2 + 1)


def _rescaled() -> Callable[[Tensor], Tensor]:
    """Noise levels with zero terminal SNR, as the host makes them when it draws; forge-classic does not."""
    try:
        from backend.modules.k_prediction import rescale_zero_terminal_snr_sigmas  # Forge
    except ImportError:
        try:
            from ldm_patched.contrib.external_model_advanced import rescale_zero_terminal_snr_sigmas  # reForge
        except ImportError:
            return lambda sigmas: sigmas
    return rescale_zero_terminal_snr_sigmas


def evaluate(model: Any, x: Tensor, timestep: Tensor, context: Tensor, vector: Tensor | None) -> Tensor:
    """The network's output, in the precision that the host computes in, with gradients where the caller wants them.

    Args:
        model: the host's.
        x: scaled latents (B, C, h, w).
        timestep: (B,).
        context: the text's tokens (B, T, D).
        vector: SDXL's pooled text and sizes, (B, V).
    """
    if is_forge(model):
        unet = network(model)
        dtype = getattr(unet, "computation_dtype", None) or getattr(unet, "dtype", torch.float32)
        more = {} if vector is None else {"y": vector.to(dtype)}
        return unet(x.to(dtype), timestep, context=context.to(dtype), transformer_options={}, **more)
    with computing():  # through the wrapper, which brings the network to the device for --medvram
        if vector is None:
            return model.apply_model(x, timestep, {"c_crossattn": [context]})
        return model.apply_model(x, timestep, {"crossattn": context, "vector": vector})


def computing() -> Any:
    """The precision that A1111 computes in; the Forge family's networks know their own."""
    if getattr(devices, "unet_needs_upcast", False):  # --upcast-sampling
        return devices.without_autocast()
    return devices.autocast() if hasattr(devices, "autocast") else nullcontext()


def encode(model: Any, prompts: Sequence[str], negative: bool, width: int, height: int) -> Any:
    """What the text encoder makes of prompts, with the user's CLIP skip and emphasis: (B, T, C), or a dict of such.

    Schedules such as [a:b:.5] and AND are read as plain words: a taste has one prompt for all steps.
    """
    if hasattr(model, "set_clip_skip"):
        model.set_clip_skip(int(shared.opts.CLIP_stop_at_last_layers))
    with torch.no_grad(), computing():
        return model.get_learned_conditioning(
            SdConditioning(list(prompts), is_negative_prompt=negative, width=width, height=height)
        )


def decode(model: Any, latents: Tensor) -> Tensor:
    """Latents to images (B, 3, H, W) in [0, 1] on the CPU, by the VAE that the user has set.

    A1111 takes a VAE that overflows in half precision to float32, if its settings say so.

    Raises:
        D3POError: what comes out is no picture.
    """
    from modules.processing import decode_latent_batch

    images = []
    with torch.no_grad():
        for latent in latents.to(device()).split(1):
            try:
                (image,) = decode_latent_batch(model, latent, torch.device("cpu"), check_for_nans=True)
            except NansException as error:
                raise D3POError("The model's numbers overflowed, and no picture came out.", OVERFLOWED) from error
            images.append(image.float())
    return (torch.stack(images) / 2 + 0.5).clamp(0, 1)


def vae(model: Any) -> torch.nn.Module:
    """The network that encodes and decodes pictures."""
    return model.forge_objects.vae.first_stage_model if is_forge(model) else model.first_stage_model


@contextmanager
def vae_at_hand(model: Any) -> Iterator[None]:
    """Hold the VAE where it computes, beside the network, and move neither meanwhile.

    In the Forge family `to_device` does so. A1111 with --medvram would swap the two at every call, and a backward pass
    would find other weights than the forward pass.
    """
    if is_forge(model):
        yield
        return
    for bring in model.model._forward_pre_hooks.values():  # --medvram's: then it has no reason to swap
        bring(model.model, ())
    found = vae(model)
    before = next(found.parameters()).device
    found.to(device())
    try:
        yield
    finally:
        found.to(before)


def to_vae(model: Any, latents: Tensor) -> Tensor:
    """Latents as the VAE's network takes them."""
    return latents / model.scale_factor if not is_forge(model) else _scaling(model).process_out(latents)


def from_vae(model: Any, latents: Tensor) -> Tensor:
    """The inverse of `to_vae`."""
    return latents * model.scale_factor if not is_forge(model) else _scaling(model).process_in(latents)


def _scaling(model: Any) -> Any:
    """What knows the scale of latents: Forge's VAE itself, in the others the model's configuration."""
    found = vae(model)
    return found if hasattr(found, "process_out") else model.forge_objects.unet.model.model_config.latent_format


OVERFLOWED = "Start the web UI with --no-half-vae, or with --no-half if that is not enough."


def checkpoint(model: Any) -> tuple[str, str]:
    """Name and hash of the checkpoint."""
    info = model.sd_checkpoint_info
    return info.model_name, info.shorthash or info.calculate_shorthash() or _sample_of(Path(info.filename))


def _sample_of(file: Path) -> str:
    """What tells checkpoints apart where the user has turned off hashes: the file's size and parts of it."""
    found = hashlib.sha256(str(file.stat().st_size).encode())
    with file.open("rb") as open_file:
        for part in range(8):
            open_file.seek(part * file.stat().st_size // 8)
            found.update(open_file.read(2**20))
    return found.hexdigest()[:10]


def forget_networks() -> None:
    """Take off what an earlier prompt's <lora:...> and <hypernet:...> put on; the next generation puts on its own."""
    loras, hypernetworks = sys.modules.get("networks"), sys.modules.get("modules.hypernetworks.hypernetwork")
    if loras is not None:
        loras.load_networks([], [], [], [])
    if hypernetworks is not None:
        hypernetworks.load_hypernetworks([], [])


def data_folder() -> Path:
    """Where the user's things lie."""
    from modules.paths_internal import data_path

    return Path(data_path)


def lora_folder() -> Path:
    """Where LoRAs lie that the cards show."""
    return Path(shared.cmd_opts.lora_dir)


def open_to_others() -> bool:
    """Whether other computers may have the page: --listen, --share, --ngrok or --server-name."""
    return bool(shared.cmd_opts.webui_is_non_local)


def interrupted() -> bool:
    """Whether the user asked all that is being done to stop."""
    return bool(shared.state.interrupted)


def skipped() -> bool:
    """Whether the user asked the next thing to be begun."""
    return bool(shared.state.skipped)


def others_wait() -> bool:
    """Whether something else waits in the host's queue."""
    return bool(progress.pending_tasks)


def show(done: int, of: int, text: str) -> None:
    """So much is done of what holds the host's queue, for its own progress bar."""
    shared.state.job_count, shared.state.job_no = 1, 0
    shared.state.sampling_step, shared.state.sampling_steps = done, max(1, of)
    shared.state.textinfo = text


def new_task(kind: str) -> str:
    """A task's id, waiting in the host's queue."""
    task = progress.create_task_id(kind)
    progress.add_task_to_queue(task)
    return task


@contextmanager
def queued(task: str) -> Iterator[None]:
    """Wait for one's turn in the host's queue, and hold it."""
    with call_queue.queue_lock:
        shared.state.begin(job=task)
        progress.start_task(task)
        try:
            yield
        finally:
            progress.finish_task(task)
            shared.state.end()
            shared.state.interrupted = shared.state.skipped = False
