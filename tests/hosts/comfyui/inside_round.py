"""One small round on the host's own model: `python inside_round.py MODELS`, for the checkpoint "sd15" there."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from inside import by_the_host, checkpoint, prompt, report
from one_round import PROMPTS, one_round

# isort: split
import torch
from pack.nodes.host.model import HostModel
from torch import Tensor

loaded = checkpoint("sd15")


def picture() -> Tensor:
    """Ordinary generation."""
    sigmas = HostModel(loaded.patcher, loaded.latent).denoiser.sigmas(4, "model")
    return by_the_host(loaded.patcher, loaded.positive, loaded.negative, loaded.latent, sigmas).latents


with torch.inference_mode(), tempfile.TemporaryDirectory() as folder:
    prompts = {text: (prompt(loaded.clip, text), prompt(loaded.clip, "")) for text in PROMPTS}
    model = HostModel(loaded.patcher, loaded.latent, loaded.vae, prompts)
    before = picture()

    def inside(prompts: list[Any], shape: Any, work: Any) -> Any:
        return model.train(prompts, shape, False, work)

    figures = one_round("pack.d3po_core", model, Path(folder) / "run", inside)
    scale = loaded.patcher.model.latent_format.scale_factor  # a LATENT is in the VAE's own space
    figures["latents"] = [value * scale for value in figures["latents"]]
    report(figures | {"unharmed": torch.equal(picture(), before)})
