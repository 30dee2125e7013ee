"""What is refused, and what is not, on the host's own objects: `python inside_support.py MODELS`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from inside import by_the_host, checkpoint, host_nodes, prompt, report

# isort: split
import comfy.clip_model
import comfy.hooks
import comfy.model_sampling
import comfy.nested_tensor
import comfy.sd
import torch
from comfy_extras import (
    nodes_apg,
    nodes_easycache,
    nodes_hypertile,
    nodes_model_advanced,
    nodes_tomesd,
    nodes_torch_compile,
)
from inside_upstream import CASES
from pack.d3po_core.errors import D3POError
from pack.nodes.host.checks import check_trainable
from pack.nodes.host.model import HostModel
from pack.nodes.host.types import Cond

loaded, flow = checkpoint("tiny"), checkpoint("tiny-sd3")
advanced = nodes_model_advanced


def node(execute: Callable[..., Any], *values: Any, patcher: Any = None) -> Any:
    """The MODEL behind a node."""
    found = execute(patcher or loaded.patcher, *values)
    return (found if isinstance(found, tuple) else found.result)[0]


def sampled_as(kind: type) -> Any:
    """The MODEL with another of the host's samplings."""

    class Sampling(comfy.model_sampling.ModelSamplingDiscrete, kind):
        pass

    patcher = loaded.patcher.clone()
    patcher.add_object_patch("model_sampling", Sampling(patcher.model.model_config))
    return patcher


def spread() -> Any:
    """As the MultiGPU node leaves it where there are two."""
    patcher = loaded.patcher.clone()
    patcher.set_additional_models("multigpu", [patcher.clone()])
    return patcher


def hooked() -> Cond:
    tensors = {"lora_unet_middle_block_1_proj_in.lora_up.weight": torch.zeros(320, 1)}
    tensors["lora_unet_middle_block_1_proj_in.lora_down.weight"] = torch.zeros(1, 320)
    cond = comfy.hooks.set_hooks_for_conditioning(loaded.positive, comfy.hooks.create_hook_lora(tensors, 1.0, 0.0))
    return host_nodes.ConditioningCombine().combine(cond, prompt(loaded.clip, "a red boat"))[0]


def without_attention() -> Any:
    """A MODEL whose network is not a diffusion model's: the text encoder."""
    patcher = loaded.patcher.clone()
    patcher.add_object_patch("diffusion_model", torch.nn.Sequential(torch.nn.Linear(4, 4)))
    return patcher


def video() -> dict[str, Any]:
    return {"samples": torch.zeros(1, 16, 9, 8, 8)}


def pair() -> dict[str, Any]:
    return {"samples": comfy.nested_tensor.NestedTensor([torch.zeros(1, 16, 1, 8, 8), torch.zeros(1, 8, 4)])}


REFUSED: dict[str, Callable[[], tuple[Any, ...]]] = {
    "video": lambda: (loaded.patcher, video()),
    "video and sound": lambda: (loaded.patcher, pair()),
    "sound": lambda: (loaded.patcher, {"samples": torch.zeros(1, 8, 16, 32), "type": "audio"}),
    "HyperTile": lambda: (node(nodes_hypertile.HyperTile.execute, 32, 3, 0, False),),
    "TomePatchModel": lambda: (node(nodes_tomesd.TomePatchModel.execute, 0.3),),
    "EasyCache": lambda: (node(nodes_easycache.EasyCacheNode.execute, 0.2, 0.15, 0.95, False),),
    "LazyCache": lambda: (node(nodes_easycache.LazyCacheNode.execute, 0.2, 0.15, 0.95, False),),
    "APG": lambda: (node(nodes_apg.APG.execute, 1.0, 5.0, -0.5),),
    "compiled": lambda: (node(nodes_torch_compile.TorchCompileModel.execute, "inductor"),),
    "several cards": lambda: (spread(),),
    "picture to picture": lambda: (sampled_as(comfy.model_sampling.IMG_TO_IMG),),
    "picture to picture, flow": lambda: (sampled_as(comfy.model_sampling.IMG_TO_IMG_FLOW),),
    "scaled noise": lambda: (node(advanced.ModelNoiseScale().patch, 8.0, patcher=flow.patcher),),
    "different hooks": lambda: (loaded.patcher, None, hooked()),
    "no attention": lambda: (without_attention(),),
}


def again(patcher: Any) -> bool:
    """Whether the host itself draws the same a second time, apart from the noise."""
    sigmas = HostModel(patcher, loaded.latent).denoiser.sigmas(4, "model")
    first, second = (
        by_the_host(patcher, loaded.positive, loaded.negative, {"samples": torch.zeros(1, 4, 16, 16)}, sigmas)
        for _ in range(2)
    )
    return torch.equal(first.latents, second.latents)


found: dict[str, Any] = {"refused": {}, "let through": [], "same again": {}}
for name, make in REFUSED.items():
    with torch.inference_mode():
        values = make()
        try:
            check_trainable(*values)
        except D3POError as error:
            found["refused"][name] = [error.what, error.do]
LET_THROUGH: dict[str, Callable[[], tuple[Any, ...]]] = {
    "HyperTile, two sizes": lambda: (node(nodes_hypertile.HyperTile.execute, 32, 2, 0, False),),
    "APG without momentum": lambda: (node(nodes_apg.APG.execute, 1.0, 5.0, 0.0),),
    "a still of a video model": lambda: (flow.patcher, {"samples": torch.zeros(1, 16, 1, 8, 8)}),
}
for name, make in CASES.items():
    with torch.inference_mode():
        case = make()
    check_trainable(case.patcher, case.latent, case.positive)
    found["let through"].append(name)
for name, make in LET_THROUGH.items():
    check_trainable(*make())
    found["let through"].append(name)
torch.manual_seed(0)
for name in ("HyperTile", "TomePatchModel"):
    found["same again"][name] = again(REFUSED[name]()[0])
for name in ("HyperTile, two sizes", "APG without momentum"):
    found["same again"][name] = again(LET_THROUGH[name]()[0])
report(found)
