"""LoRA files of ours through the host's own loader: `python inside_lora.py FOLDER MODELS` leaves them in FOLDER."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from inside import checkpoint, differs, models, say

# isort: split
import logging

import comfy.sd
import comfy.utils
import torch
from pack.d3po_core.lora import LayerWeights, attach, save_lora
from pack.d3po_core.policies import applied
from pack.d3po_core.settings import LoraSettings
from pack.nodes.host import HostModel, host_sampling, with_lora
from torch import Tensor

folder = Path(sys.argv.pop())
chance = torch.Generator().manual_seed(4)
said: list[str] = []


class Noted(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        said.append(record.getMessage())


def sdxl() -> HostModel:
    """The UNet alone, with prompts that no text encoder has made."""
    patcher = comfy.sd.load_diffusion_model(str(models / "diffusion_models" / "tiny-sdxl.safetensors"))
    prompts = [
        [[torch.randn(1, 77, 2048, generator=chance), {"pooled_output": torch.randn(1, 1280, generator=chance)}]]
        for _ in range(2)
    ]
    return HostModel(patcher, {"samples": torch.zeros(1, 4, 8, 8)}, prompts={"lake": (prompts[0], prompts[1])})


def whole(name: str) -> HostModel:
    loaded = checkpoint(name)
    return HostModel(loaded.patcher, loaded.latent, prompts={"lake": (loaded.positive, loaded.negative)})


def predicted(model: HostModel, lora: Path | None = None) -> Tensor:
    """Of the conditional branch; with a LoRA on hooks, if one is given."""
    found = []
    x = torch.randn(1, *model.latent_shape(), generator=torch.Generator().manual_seed(5))
    sigma = model.denoiser.sigmas(4, "model")[1:2]

    def work() -> None:
        with torch.no_grad(), applied(model.denoiser, lora, "hooks"):
            found.append(model.denoiser(x, sigma, model.encode(["lake"])[0], 3.0, guided=False).cond)

    host_sampling(model.denoiser, model.encode(["lake"]), model.latent_shape(), work)
    return found[0]


def examined(model: HostModel, file: Path, targets: str) -> dict[str, Any]:
    """What the host makes of a random LoRA."""
    lora = attach(model.denoiser.module, LoraSettings(rank=4, alpha=2.0, targets=targets), kind="hooks")
    lora.remove()
    weights = {
        path: LayerWeights(w.down, torch.randn(w.up.shape, generator=chance) / 10, w.alpha)
        for path, w in lora.weights().items()
    }
    save_lora(file, weights, model.denoiser.module)
    said.clear()
    logging.getLogger().addHandler(note := Noted())
    patcher = with_lora(model.patcher, comfy.utils.load_torch_file(str(file)))
    logging.getLogger().removeHandler(note)
    plain, ours = predicted(model), predicted(model, file)
    theirs = predicted(HostModel(patcher, {"samples": model.image}, prompts=model.prompts))
    return {
        "said": [text for text in said if "not loaded" in text.lower() or "warning" in text.lower()],
        "layers": len(weights),
        "patches": sum(len(patches) for patches in patcher.patches.values()),
        "file": str(file),
        "effect": differs(ours, plain),
        "error": differs(theirs, ours),
    }


found = {}
for name, make in {"sd_v1": lambda: whole("tiny"), "sdxl": sdxl, "sd3": lambda: whole("tiny-sd3")}.items():
    with torch.inference_mode():
        model = make()
        for targets in ("attention", "all"):
            found[f"{name}, {targets}"] = examined(model, folder / f"{name}-{targets}.safetensors", targets)
say(found)
