"""LoRA files of ours through the host's own loader: `python inside_lora.py FOLDER MODELS` leaves them in FOLDER."""

from __future__ import annotations

import sys
from pathlib import Path

from inside import checkpoint, models, report
from inside_lora_file import examined

# isort: split
import comfy.sd
import torch
from pack.d3po_core.lora import LayerWeights, attach, save_lora
from pack.d3po_core.settings import LoraSettings
from pack.nodes.host.model import HostModel

folder = Path(sys.argv.pop())
rng = torch.Generator().manual_seed(4)


def sdxl() -> HostModel:
    """The UNet alone, with prompts that no text encoder has made."""
    patcher = comfy.sd.load_diffusion_model(str(models / "diffusion_models" / "tiny-sdxl.safetensors"))
    prompts = [
        [[torch.randn(1, 77, 2048, generator=rng), {"pooled_output": torch.randn(1, 1280, generator=rng)}]]
        for _ in range(2)
    ]
    return HostModel(patcher, {"samples": torch.zeros(1, 4, 8, 8)}, prompts={"lake": (prompts[0], prompts[1])})


def model_of(name: str) -> HostModel:
    loaded = checkpoint(name)
    return HostModel(loaded.patcher, loaded.latent, prompts={"lake": (loaded.positive, loaded.negative)})


def random_lora(model: HostModel, file: Path, targets: str) -> int:
    """Write a LoRA with random weights; how many layers it has."""
    lora = attach(model.denoiser.module, LoraSettings(rank=4, alpha=2.0, targets=targets), kind="hooks")
    lora.remove()
    weights = {
        path: LayerWeights(w.down, torch.randn(w.up.shape, generator=rng) / 10, w.alpha)
        for path, w in lora.weights().items()
    }
    save_lora(file, weights, model.denoiser.module)
    return len(weights)


measures = {}
for name, make in {"sd_v1": lambda: model_of("tiny"), "sdxl": sdxl, "sd3": lambda: model_of("tiny-sd3")}.items():
    with torch.inference_mode():
        model = make()
        for targets in ("attention", "all"):
            file = folder / f"{name}-{targets}.safetensors"
            measures[f"{name}, {targets}"] = {"layers": random_lora(model, file, targets), **examined(model, file)}
report(measures)
