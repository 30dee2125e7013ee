"""Models that look at a picture beside the text, inside the host's own process: `python inside_references.py MODELS`.

Tiny random networks that the host knows by their weights: edit models with reference latents, a picture among the
input channels (InstructPix2Pix), and what a CLIP vision saw (unCLIP). For every case: the host samples by itself; ours
records with what was stored in a run and read again, with nothing held in memory; then a gradient is asked for.
"""

from __future__ import annotations

import importlib
import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inside import CANDIDATES, by_the_host, differs, ours, plan_of, report
from inside_upstream import slope_error

# isort: split
import comfy.clip_vision
import comfy.model_detection
import comfy.ops
import comfy.sd
import node_helpers
import torch
from comfy_extras import nodes_edit_model, nodes_ip2p
from pack.d3po_core.diffusion.denoiser import stack
from pack.d3po_core.lora import attach
from pack.d3po_core.run import Run
from pack.d3po_core.settings import LoraSettings
from pack.nodes.host import conditioning
from pack.nodes.host.model import HostModel
from pack.nodes.host.sampling import host_sampling
from pack.nodes.prompts import label
from torch import Tensor

import nodes as host_nodes

rng = torch.Generator().manual_seed(4)
FLUX = {
    **{"in_channels": 16, "out_channels": 16, "vec_in_dim": 768, "context_in_dim": 64, "hidden_size": 128},
    **{"mlp_ratio": 4.0, "num_heads": 1, "depth": 1, "depth_single_blocks": 2, "axes_dim": [16, 56, 56]},
    **{"theta": 10000, "patch_size": 2, "qkv_bias": True, "guidance_embed": True, "txt_ids_dims": []},
}
FLUX2 = FLUX | {
    **{"in_channels": 128, "out_channels": 128, "vec_in_dim": None, "axes_dim": [32] * 4, "mlp_ratio": 3.0},
    **{"global_modulation": True, "mlp_silu_act": True, "ops_bias": False, "qkv_bias": False, "patch_size": 1},
    **{"txt_ids_dims": [3]},
}
QWEN = {
    **{"num_layers": 2, "attention_head_dim": 32, "num_attention_heads": 2, "joint_attention_dim": 64},
    "axes_dims_rope": (8, 12, 12),
}
UNET = {
    **{"image_size": 32, "model_channels": 320, "use_spatial_transformer": True, "legacy": False, "out_channels": 4},
    **{"num_res_blocks": [1, 1], "channel_mult": [1, 1], "transformer_depth": [1, 1], "transformer_depth_middle": 1},
    **{"transformer_depth_output": [1, 1, 1, 1], "num_heads": 8, "num_head_channels": -1},
}
IP2P = UNET | {"in_channels": 8, "context_dim": 768, "use_linear_in_transformer": False}
UNCLIP = UNET | {
    **{"in_channels": 4, "context_dim": 1024, "use_linear_in_transformer": True, "num_classes": "sequential"},
    **{"adm_in_channels": 1536, "num_heads": -1, "num_head_channels": 64},
}
UNETS = "modules.diffusionmodules.openaimodel.UNetModel"


def network(kind: str, config: dict[str, Any]) -> Any:
    """A MODEL by the host's own loader; weights are normal with variance 1 / fan-in, and sizes that the host does not
    read from a file are the tiny ones."""
    module, _, name = f"comfy.ldm.{kind}".rpartition(".")
    operations = comfy.ops.disable_weight_init
    made = getattr(importlib.import_module(module), name)(
        **config, dtype=torch.float32, device="meta", operations=operations
    )
    weights = {}
    for key, value in made.state_dict().items():
        if value.dim() > 1:
            weights[key] = torch.randn(value.shape, generator=rng) / math.sqrt(math.prod(value.shape[1:]))
        else:
            weights[key] = torch.zeros(value.shape) if key.endswith("bias") else torch.ones(value.shape)
    detect = comfy.model_detection.detect_unet_config
    assumed = config if config is QWEN else {}
    comfy.model_detection.detect_unet_config = lambda *values, **named: detect(*values, **named) | assumed
    try:
        return comfy.sd.load_diffusion_model_state_dict(weights, model_options={"dtype": torch.float32})
    finally:
        comfy.model_detection.detect_unet_config = detect


def text(width: int) -> list[Any]:
    return [[torch.randn(1, 5, width, generator=rng), {"pooled_output": torch.randn(1, 768, generator=rng)}]]


def random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=rng)


@dataclass
class Case:
    """A graph's MODEL and LATENT, and prompts of the same text with one picture, another, and none."""

    patcher: Any
    latent: dict[str, Tensor]
    one: tuple[Any, Any]
    other: tuple[Any, Any]
    none: tuple[Any, Any]


def edit(
    kind: str, config: dict[str, Any], shape: tuple[int, ...], width: int, count: int = 1, method: str = ""
) -> Case:
    """An edit model, its references of another size than the picture."""
    positive, negative = text(width), text(width)

    def with_references() -> tuple[Any, Any]:
        found = positive
        for _ in range(count):
            reference = {"samples": random(1, *shape[:-2], shape[-2] - 2, shape[-1])}
            found = nodes_edit_model.ReferenceLatent.execute(found, reference).result[0]
        if method:
            found = node_helpers.conditioning_set_values(found, {"reference_latents_method": method})
        return found, negative

    latent = {"samples": torch.zeros(1, *shape)}
    return Case(network(kind, config), latent, with_references(), with_references(), (positive, negative))


class Encoded:
    """What the host's node asks a VAE for."""

    def __init__(self, latent: Tensor) -> None:
        self.latent = latent

    def encode(self, pixels: Tensor) -> Tensor:
        return self.latent


def instructed() -> Case:
    positive, negative = text(768), text(768)

    def beside() -> tuple[Any, Any]:
        node = nodes_ip2p.InstructPixToPixConditioning
        return node.execute(positive, negative, torch.rand(1, 64, 64, 3), Encoded(random(1, 4, 8, 8))).result[:2]

    latent = {"samples": torch.zeros(1, 4, 8, 8)}
    return Case(network(UNETS, IP2P), latent, beside(), beside(), (positive, negative))


def unclip() -> Case:
    positive, negative = text(1024), text(1024)

    def seen() -> tuple[Any, Any]:
        output = comfy.clip_vision.Output()
        output.image_embeds, output.last_hidden_state = random(1, 768), random(1, 4, 8)
        return host_nodes.unCLIPConditioning().apply_adm(positive, output, 1.0, 0.1)[0], negative

    latent = {"samples": torch.zeros(1, 4, 8, 8)}
    return Case(network(UNETS, UNCLIP), latent, seen(), seen(), (positive, negative))


CASES: dict[str, Callable[[], Case]] = {
    "Flux Kontext": lambda: edit("flux.model.Flux", FLUX, (16, 8, 8), 64),
    "Flux Kontext, two pictures": lambda: edit("flux.model.Flux", FLUX, (16, 8, 8), 64, 2, "index"),
    "Flux.2": lambda: edit("flux.model.Flux", FLUX2, (128, 4, 4), 64),
    "Qwen-Image-Edit": lambda: edit(
        "qwen_image.model.QwenImageTransformer2DModel", QWEN, (16, 1, 8, 8), 64, 1, "index_timestep_zero"
    ),
    "InstructPix2Pix": instructed,
    "unCLIP": unclip,
}


def stored(run: Run, model: HostModel, prompt: tuple[Any, Any]) -> tuple[str, dict[str, Tensor]]:
    """The text that stands for a prompt in a run, and what is kept of it, as another process would read it."""
    name = label(run, model, "a lake", *prompt)
    run.prompts.save_conditioning(run.prompts.add(name), model.encode([name])[0])
    return name, run.prompts.conditioning(run.prompts.add(name))


def examined(each: Case, folder: Path) -> dict[str, Any]:
    model = HostModel(each.patcher, each.latent)
    run = Run.create(folder, model={"identity": "tiny"}, settings={})
    kept = [stored(run, model, prompt) for prompt in (each.one, each.other, each.one)]
    found: dict[str, Any] = {"host": type(each.patcher.model).__name__, "names": [name for name, _ in kept]}
    conditioning._held.clear()  # as after a restart
    row = kept[0][1]
    found["keys"] = len({conditioning.key_of(row) for _, row in kept})
    again = HostModel(each.patcher, each.latent, None, {"a lake": conditioning.unpack(row)})
    found["same key"] = conditioning.key_of(again.encode(["a lake"])[0]) == conditioning.key_of(row)
    plan, sigmas = plan_of(again), model.denoiser.sigmas(5, "model")
    theirs = by_the_host(each.patcher, *each.one, each.latent, sigmas)
    mine = ours(again, plan, "a lake")
    found["equal"], found["finite"] = torch.equal(mine.latents, theirs.latents), bool(mine.latents.isfinite().all())
    found["effect"] = min(
        differs(theirs.latents, by_the_host(each.patcher, *prompt, each.latent, sigmas).latents)
        for prompt in (each.other, each.none)
    )
    trained = mine.guided.shape[1]
    rows = stack([row] * (CANDIDATES * trained))
    x, sigma = mine.x[:, :trained].flatten(0, 1), plan.steps.sigma[:trained].repeat(CANDIDATES)

    def work() -> None:
        lora = attach(model.denoiser.module, LoraSettings(), kind="hooks")
        try:

            def predicted() -> Tensor:
                return model.denoiser(x, sigma, rows, 3.0).guided

            with torch.no_grad():
                found["guided"] = differs(predicted(), theirs.denoised[:, :trained].flatten(0, 1).cpu())
                found["one level"] = torch.equal(
                    model.denoiser(x[::trained], sigma[::trained], stack([row] * CANDIDATES), 3.0).guided,
                    theirs.denoised[:, 0].cpu(),
                )
            found["slope"] = slope_error(predicted, lora.parameters())
        finally:
            lora.remove()

    with torch.inference_mode():
        host_sampling(model.denoiser, [row], model.latent_shape(), work)
    found["no gradient"] = not any(value.requires_grad or value.grad is not None for value in row.values())
    after = by_the_host(each.patcher, *each.one, each.latent, sigmas)
    found["unharmed"] = torch.equal(after.latents, theirs.latents)
    return found


found = {}
with tempfile.TemporaryDirectory() as folder:
    for number, (name, make) in enumerate(CASES.items()):
        with torch.inference_mode():
            made = make()
        found[name] = examined(made, Path(folder) / str(number))
report(found)
