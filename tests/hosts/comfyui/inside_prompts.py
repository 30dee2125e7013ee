"""Keys of prompts that hold more than tensors: `python inside_prompts.py MODELS`; run twice, it says the same."""

from __future__ import annotations

from inside import checkpoint, host_nodes, models, ours, plan_of, report

# isort: split
import comfy.controlnet
import comfy.hooks
import torch
from pack.nodes.host.conditioning import key_of, pack
from pack.nodes.host.model import HostModel
from pack.nodes.host.types import Cond

loaded = checkpoint("tiny")
picture = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(0))


def controlled(image: torch.Tensor = picture, strength: float = 0.7) -> tuple[Cond, Cond]:
    """Everything made anew, as in another process."""
    control = comfy.controlnet.load_controlnet(str(models / "controlnet" / "tiny.safetensors"))
    apply = host_nodes.ControlNetApplyAdvanced().apply_controlnet
    return apply(loaded.positive, loaded.negative, control, image, strength, 0.0, 1.0)


def hooked(strength: float = 0.8, fill: float = 0.1) -> tuple[Cond, Cond]:
    name = "lora_unet_middle_block_1_proj_in"
    lora = {f"{name}.lora_up.weight": torch.full((320, 1), fill), f"{name}.lora_down.weight": torch.ones(1, 320)}
    hooks = comfy.hooks.create_hook_lora(lora, strength, 0.0)
    return tuple(comfy.hooks.set_hooks_for_conditioning(c, hooks) for c in (loaded.positive, loaded.negative))


with torch.inference_mode():
    prompts = {
        "nothing": (loaded.positive, loaded.negative),
        "ControlNet": controlled(),
        "ControlNet, weaker": controlled(strength=0.6),
        "ControlNet, another picture": controlled(1 - picture),
        "hooks": hooked(),
        "hooks, weaker": hooked(0.7),
        "hooks, another LoRA": hooked(fill=0.2),
        "references": ([[loaded.positive[0][0], {"reference_latents": [torch.zeros(1, 4, 8, 8)]}]], loaded.negative),
        "other references": (
            [[loaded.positive[0][0], {"reference_latents": [torch.ones(1, 4, 8, 8)]}]],
            loaded.negative,
        ),
    }
    keys = {name: key_of(pack(*prompt)) for name, prompt in prompts.items()}
    again = {name: key_of(pack(*prompt)) for name, prompt in {"ControlNet": controlled(), "hooks": hooked()}.items()}
    for name in ("ControlNet", "hooks"):  # and drawing with it changes nothing of what it is
        model = HostModel(loaded.patcher, loaded.latent, prompts={"lake": prompts[name]})
        ours(model, plan_of(model))
        again[f"{name}, used"] = key_of(model.encode(["lake"])[0])
report({"keys": keys, "again": again})
