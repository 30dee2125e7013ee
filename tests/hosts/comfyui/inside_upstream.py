"""What trained sees beside what sampling saw, whatever other nodes stand before: `python inside_upstream.py MODELS`.

For every case: the host samples by itself; ours records; then, inside `host_sampling`, all recorded rows are evaluated
as one batch with a fresh LoRA (which changes nothing), and a gradient is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from inside import STEPS, by_the_host, checkpoint, differs, host_nodes, models, ours, plan_of, prompt, report

# isort: split
import comfy.controlnet
import comfy.sd
import comfy.utils
import torch
from comfy_extras import (
    nodes_cfg,
    nodes_differential_diffusion,
    nodes_freelunch,
    nodes_fresca,
    nodes_model_advanced,
    nodes_model_downscale,
    nodes_pag,
    nodes_sag,
    nodes_slg,
)
from pack.d3po_core.diffusion.denoiser import stack
from pack.d3po_core.lora import attach
from pack.d3po_core.settings import LoraSettings
from pack.nodes.host.model import HostModel
from pack.nodes.host.sampling import host_sampling
from pack.nodes.host.types import Cond
from torch import Tensor

rng = torch.Generator().manual_seed(2)


@dataclass
class Case:
    """What a graph gives the sampler."""

    patcher: Any
    positive: Cond
    negative: Cond
    latent: dict[str, Tensor]


def case(name: str = "tiny", **changes: Any) -> Case:
    loaded = checkpoint(name)
    return Case(**{**{key: getattr(loaded, key) for key in Case.__annotations__}, **changes})


def patched(node: Callable[..., Any], *values: Any, name: str = "tiny") -> Case:
    """Behind a node that changes the MODEL."""
    found = node(checkpoint(name).patcher, *values)
    return case(name, patcher=(found if isinstance(found, tuple) else found.result)[0])


def lora(patcher: Any) -> dict[str, Tensor]:
    """A LoRA of somebody else's, kohya's keys."""
    found = {}
    for layer in (
        "output_blocks_1_1_transformer_blocks_0_attn1_to_q",
        "input_blocks_1_1_transformer_blocks_0_attn2_to_v",
    ):
        name = "lora_unet_" + layer
        inner = 768 if layer.endswith("attn2_to_v") else 320
        found |= {f"{name}.lora_down.weight": torch.randn(4, inner, generator=rng) / 8}
        found |= {
            f"{name}.lora_up.weight": torch.randn(320, 4, generator=rng) / 8,
            f"{name}.alpha": torch.tensor(4.0),
        }
    return found


def with_lora(load: Callable[..., Any]) -> Case:
    loaded = checkpoint("tiny")
    return case(patcher=load(loaded.patcher, None, lora(loaded.patcher), 0.8, 0.0)[0])


def controlled(start: float = 0.0, end: float = 1.0) -> Case:
    loaded = checkpoint("tiny")
    control = comfy.controlnet.load_controlnet(str(models / "controlnet" / "tiny.safetensors"))
    image = torch.rand(1, 64, 64, 3, generator=rng)
    apply = host_nodes.ControlNetApplyAdvanced().apply_controlnet
    positive, negative = apply(loaded.positive, loaded.negative, control, image, 0.7, start, end)
    return case(positive=positive, negative=negative)


def regional(name: str = "tiny") -> Case:
    loaded = checkpoint(name)
    other = prompt(loaded.clip, "a red boat")
    left = host_nodes.ConditioningSetArea().append(loaded.positive, 32, 64, 0, 0, 1.0)[0]
    return case(name, positive=host_nodes.ConditioningCombine().combine(left, other)[0])


def masked(name: str = "tiny") -> Case:
    loaded = checkpoint(name)
    mask = torch.zeros(1, 64, 64)
    mask[:, :, 32:] = 1
    right = host_nodes.ConditioningSetMask().append(prompt(loaded.clip, "a red boat"), mask, "default", 0.8)[0]
    return case(name, positive=host_nodes.ConditioningCombine().combine(loaded.positive, right)[0])


def timed() -> Case:
    loaded = checkpoint("tiny")
    set_range = host_nodes.ConditioningSetTimestepRange().set_range
    first = set_range(loaded.positive, 0.0, 0.4)[0]
    later = set_range(prompt(loaded.clip, "a red boat"), 0.4, 1.0)[0]
    return case(positive=host_nodes.ConditioningCombine().combine(first, later)[0])


def inpainted(name: str = "tiny", **changes: Any) -> Case:
    shape = checkpoint(name).latent["samples"].shape
    mask = torch.linspace(0, 1, 64).expand(1, 64, 64).clone()
    return case(name, latent={"samples": torch.randn(shape, generator=rng), "noise_mask": mask}, **changes)


def fp8() -> Case:
    tensors = comfy.utils.load_torch_file(str(models / "checkpoints" / "tiny.safetensors"))
    tensors = comfy.utils.state_dict_prefix_replace(tensors, {"model.diffusion_model.": ""}, filter_keys=True)
    return case(patcher=comfy.sd.load_diffusion_model_state_dict(tensors, {"dtype": torch.float8_e4m3fn}))


def quantized() -> Case:
    """Weights as the host's own quantized files have them, with a scale for each layer."""
    tensors = comfy.utils.load_torch_file(str(models / "checkpoints" / "tiny.safetensors"))
    tensors = comfy.utils.state_dict_prefix_replace(tensors, {"model.diffusion_model.": ""}, filter_keys=True)
    for name in [name for name in tensors if name.endswith(("to_q.weight", "to_v.weight", "net.2.weight"))]:
        scale = tensors[name].float().abs().max() / 448
        tensors[name] = (tensors[name].float() / scale).to(torch.float8_e4m3fn)
        layer = name.removesuffix("weight")
        tensors[f"{layer}weight_scale"] = scale
        about = bytearray(b'{"format": "float8_e4m3fn"}')
        tensors[f"{layer}comfy_quant"] = torch.frombuffer(about, dtype=torch.uint8)
    return case(patcher=comfy.sd.load_diffusion_model_state_dict(tensors))


def hooked() -> Case:
    """A LoRA that belongs to the prompts."""
    loaded = checkpoint("tiny")
    hooks = comfy.hooks.create_hook_lora(lora(loaded.patcher), 0.8, 0.0)
    sides = {side: getattr(loaded, side) for side in ("positive", "negative")}
    return case(**{side: comfy.hooks.set_hooks_for_conditioning(cond, hooks) for side, cond in sides.items()})


def differential() -> Case:
    node = nodes_differential_diffusion.DifferentialDiffusion
    return inpainted(patcher=node.execute(checkpoint("tiny").patcher).result[0])


def free_u() -> Case:
    """It looks for blocks of twice and four times the first's channels, and the tiny network's all have as many."""
    sizes = checkpoint("tiny").patcher.model.model_config.unet_config
    sizes["model_channels"] //= 2
    try:
        return patched(nodes_freelunch.FreeU_V2.execute, 1.3, 1.4, 0.9, 0.2)
    finally:
        sizes["model_channels"] *= 2


advanced = nodes_model_advanced
CASES: dict[str, Callable[[], Case]] = {
    "nothing": case,
    "ControlNet": controlled,
    "ControlNet for half of the steps": lambda: controlled(0.3, 0.8),
    "LoraLoader": lambda: with_lora(comfy.sd.load_lora_for_models),
    "LoraLoader, bypassing": lambda: with_lora(comfy.sd.load_bypass_lora_for_models),
    "RescaleCFG": lambda: patched(advanced.RescaleCFG().patch, 0.7),
    "area": regional,
    "mask": masked,
    "timestep ranges": timed,
    "inpainting": inpainted,
    "DifferentialDiffusion": differential,
    "PerturbedAttention": lambda: patched(nodes_pag.PerturbedAttentionGuidance.execute, 3.0),
    "SelfAttentionGuidance": lambda: patched(nodes_sag.SelfAttentionGuidance.execute, 0.5, 2.0),
    "FreeU": free_u,
    "FreSca": lambda: patched(nodes_fresca.FreSca.execute, 1.0, 1.25, 2),
    "CFGZeroStar": lambda: patched(nodes_cfg.CFGZeroStar.execute),
    "DeepShrink": lambda: patched(
        nodes_model_downscale.PatchModelAddDownscale.execute, 1, 2.0, 0.0, 0.35, True, "bicubic", "bicubic"
    ),
    "v, zero terminal": lambda: patched(advanced.ModelSamplingDiscrete().patch, "v_prediction", True),
    "lcm": lambda: patched(advanced.ModelSamplingDiscrete().patch, "lcm", False),
    "EDM": lambda: patched(advanced.ModelSamplingContinuousEDM().patch, "edm", 80.0, 0.002),
    "fp8": fp8,
    "quantized": quantized,
    "LoRA hook": hooked,
    "flow": lambda: case("tiny-sd3"),
    "flow, shifted": lambda: patched(advanced.ModelSamplingSD3().patch, 6.0, name="tiny-sd3"),
    "flow, area": lambda: regional("tiny-sd3"),
    "flow, inpainting": lambda: inpainted("tiny-sd3"),
    "flow, SkipLayerGuidance": lambda: patched(
        lambda m: nodes_slg.SkipLayerGuidanceDiTSimple.execute(m, 0.0, 0.6, "0", ""), name="tiny-sd3"
    ),
}


def slope_error(predicted: Callable[[], Tensor], parameters: list[Any]) -> float:
    """How far the gradient is from what two predictions nearby say of its direction, relative."""
    out = predicted()
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(3))
    (out * weights).mean().backward()
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in parameters]
    steepness = float(torch.cat([g.flatten() for g in gradients]).norm())
    step = 3e-3 * float(out.detach().square().mean().sqrt()) / steepness / out.numel() ** 0.5
    values = []
    with torch.no_grad():
        for sign in (1, -2):
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter += sign * step / steepness * gradient
            values.append(float((predicted().double() * weights).mean()))
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter += step / steepness * gradient
            parameter.grad = None
    return abs((values[0] - values[1]) / (2 * step * steepness) - 1)


@cache
def alone(name: str) -> Tensor:
    """What the host draws without any of it."""
    loaded = checkpoint(name)
    sigmas = HostModel(loaded.patcher).denoiser.sigmas(STEPS, "model")
    return by_the_host(loaded.patcher, loaded.positive, loaded.negative, loaded.latent, sigmas).latents


def examined(each: Case, name: str) -> dict[str, Any]:
    model = HostModel(each.patcher, each.latent, None, {"lake": (each.positive, each.negative)})
    plan = plan_of(model)
    sigmas = model.denoiser.sigmas(STEPS, "model")
    theirs = by_the_host(each.patcher, each.positive, each.negative, each.latent, sigmas)
    mine = ours(model, plan)
    images, trained = mine.guided.shape[:2]
    rows = stack(model.encode(["lake"]) * (images * trained))
    x, sigma = mine.x[:, :trained].flatten(0, 1), plan.steps.sigma[:trained].repeat(images)
    recorded = theirs.denoised[:, :trained].flatten(0, 1).cpu()
    found = {"equal": torch.equal(mine.latents, theirs.latents), "finite": bool(mine.latents.isfinite().all())}

    def work() -> None:
        lora = attach(model.denoiser.module, LoraSettings(), kind="hooks")
        try:
            for kind, truth in {"guided": recorded, "cond": mine.cond.flatten(0, 1)}.items():

                def predicted(kind: str = kind) -> Tensor:
                    return getattr(model.denoiser(x, sigma, rows, 3.0, guided=kind == "guided"), kind)

                with torch.no_grad():
                    found[kind] = differs(predicted(), truth)
                if kind == "guided":
                    found["slope"] = slope_error(predicted, lora.parameters())
        finally:
            lora.remove()

    with torch.inference_mode():
        host_sampling(model.denoiser, model.encode(["lake"]), model.latent_shape(), work)
    after = by_the_host(each.patcher, each.positive, each.negative, each.latent, sigmas)
    found["effect"] = differs(theirs.latents, alone(name))
    found["unharmed"] = torch.equal(after.latents, theirs.latents)
    return found


if __name__ == "__main__":
    found = {}
    for name, make in CASES.items():
        with torch.inference_mode():
            made = make()
        found[name] = examined(made, "tiny-sd3" if name.startswith("flow") else "tiny")
    report(found)
