"""Refuse what cannot be trained on, before any work is done.

What the host's `euler_ancestral` and `euler` do with a denoised prediction is a linear Gaussian step whatever the
prediction is made of, so of samplings only those are refused that draw nothing from noise, or scale it. Patches are
refused when the same latents do not give the same prediction again, or a LoRA cannot reach the network.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator

import comfy.model_sampling
import comfy.samplers
import torch

from ...d3po_core.errors import D3POError
from ...d3po_core.lora.targets import find_targets
from .types import Cond, Latent, ModelSampling, Options, Patcher

UNSTEADY: dict[str, tuple[str, Callable[[Options], bool]]] = {
    "nodes_hypertile": ("HyperTile with a swap size above 2", lambda values: values.get("swap_size", 1) > 2),
    "nodes_tomesd": ("TomePatchModel", lambda values: True),
    "nodes_easycache": ("EasyCache", lambda values: True),
    "nodes_apg": ("Adaptive Projected Guidance with momentum", lambda values: values.get("momentum", 0) != 0),
}
"""Nodes of the host's, by their files, whose patches draw random numbers or remember the step before, and when."""
COMPILED = "torch.compile"
"""The host's key of that patch."""
LATER = "You can use it together with the LoRA afterwards."


def check_trainable(patcher: Patcher, latent: Latent | None = None, positive: Cond | None = None) -> None:
    """Refuse a MODEL that cannot be trained.

    Raises:
        D3POError: it cannot be trained; says why, and what to choose instead.
    """
    network = patcher.get_model_object("diffusion_model")
    targets = find_targets(network, "attention")
    _check_sampling(patcher.get_model_object("model_sampling"))
    _check_network(patcher, network)
    _check_patches(patcher)
    if any(".time_stack." in path for path in targets):
        raise D3POError("This model draws videos, and only still pictures can be taught.", "Choose an image model.")
    if latent is not None:
        _check_latent(latent)
    if positive is not None:
        _check_hooks(positive)


def _check_sampling(sampling: ModelSampling) -> None:
    if isinstance(sampling, comfy.model_sampling.IMG_TO_IMG | comfy.model_sampling.IMG_TO_IMG_FLOW):
        raise D3POError(
            "This model turns one picture into another without any noise, so there is nothing to choose between.",
            "Choose a model that draws from noise.",
        )
    scale = getattr(sampling, "noise_scale", 1.0)
    if scale != 1.0:
        raise D3POError(
            f"This model samples with noise scaled by {scale:g}, which the training does not know of.",
            "Choose a model whose noise scale is 1, or set ModelNoiseScale to 1.",
        )


def _check_network(patcher: Patcher, network: torch.nn.Module) -> None:
    compiled = any(COMPILED in kinds for kinds in patcher.wrappers.values())
    if compiled or any(hasattr(module, "_orig_mod") for module in network.modules()):
        raise D3POError(
            "This MODEL is compiled, and a LoRA cannot get into compiled code.", f"Bypass the compiling node. {LATER}"
        )
    if patcher.get_additional_models_with_key("multigpu"):
        raise D3POError(
            "This MODEL is spread over several graphics cards, and the others know nothing of gradients.",
            f"Bypass the MultiGPU node. {LATER}",
        )
    if patcher.is_dynamic() and patcher.cached_patcher_init is None:
        raise D3POError(
            "The node that loaded this MODEL does not tell the host where from, so it cannot be held whole in memory.",
            "Load it with Load Checkpoint or Load Diffusion Model, or start the host with --disable-dynamic-vram.",
        )


def _check_patches(patcher: Patcher) -> None:
    for function in callables([patcher.model_options, patcher.wrappers]):
        file = re.split(r"[/\\.]", getattr(function, "__module__", None) or type(function).__module__)
        name, unsteady = UNSTEADY.get(file[-1], ("", None))
        if unsteady is None:
            name = next((part for part in file[-2:] if "cache" in part.lower()), "")
        elif not (inspect.isfunction(function) and unsteady(dict(inspect.getclosurevars(function).nonlocals))):
            name = ""
        if name:
            raise D3POError(
                f"{name} does something else each time that the model is evaluated, so what was drawn cannot be "
                "evaluated again.",
                f"Bypass that node. {LATER}",
            )


def callables(options: object) -> Iterator[object]:
    """Iterate over everything callable in nested options: functions of other nodes, mostly."""
    if isinstance(options, dict):
        options = [*options.values()]
    if isinstance(options, list | tuple):
        for each in options:
            yield from callables(each)
    elif callable(options):
        yield options


def _check_latent(latent: Latent) -> None:
    samples = latent["samples"]
    shape = () if samples.is_nested else tuple(samples.shape)
    still = len(shape) == 4 or (len(shape) == 5 and shape[2] == 1)
    if not still or latent.get("type") == "audio":
        raise D3POError(
            "This latent is a video, a sound or a shape, and only still pictures can be taught.",
            "Connect an empty latent of one image.",
        )


def _check_hooks(positive: Cond) -> None:
    """Refuse weights that the host changes from one part of a prompt to the next: the gradient would be a wrong one."""
    if comfy.samplers.get_total_hook_groups_in_conds({"positive": [options for _, options in positive]}) > 1:
        raise D3POError(
            "Parts of this prompt carry different LoRA hooks, and nothing can be taught while weights change.",
            "Give all parts the same hooks, or load the LoRA with Load LoRA.",
        )
