"""What the host makes of a LoRA file of ours, through its own loader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from inside import differs

# isort: split
import logging

import comfy.utils
import torch
from pack.d3po_core.lora.attachment import applied
from pack.nodes.host.model import HostModel, with_lora
from pack.nodes.host.sampling import host_sampling
from torch import Tensor

messages: list[str] = []


class Noted(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        messages.append(record.getMessage())


def predicted(model: HostModel, lora: Path | None = None) -> Tensor:
    """Of the conditional branch; with a LoRA on hooks, if one is given."""
    predictions = []
    x = torch.randn(1, *model.latent_shape(), generator=torch.Generator().manual_seed(5))
    sigma = model.denoiser.sigmas(4, "model")[1:2]

    def work() -> None:
        with torch.no_grad(), applied(model.denoiser, lora, "hooks"):
            predictions.append(model.denoiser(x, sigma, model.encode(["lake"])[0], 3.0, guided=False).cond)

    host_sampling(model.denoiser, model.encode(["lake"]), model.latent_shape(), work)
    return predictions[0]


def examined(model: HostModel, file: Path) -> dict[str, Any]:
    """What it says, how many layers it changes, and how far the result is from the LoRA on hooks."""
    messages.clear()
    logging.getLogger().addHandler(note := Noted())
    patcher = with_lora(model.patcher, comfy.utils.load_torch_file(str(file)))
    logging.getLogger().removeHandler(note)
    plain, ours = predicted(model), predicted(model, file)
    theirs = predicted(HostModel(patcher, {"samples": model.image}, prompts=model.prompts))
    return {
        "complaints": [text for text in messages if "not loaded" in text.lower() or "warning" in text.lower()],
        "patches": sum(len(patches) for patches in patcher.patches.values()),
        "file": str(file),
        "effect": differs(ours, plain),
        "error": differs(theirs, ours),
    }
