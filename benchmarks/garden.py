"""What benchmarks on the embedded model share: runs that are drawn once, held-out pictures, and digests.

Heavy imports wait, so that a benchmark's `--help` and `--list` come at once.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from d3po_core.settings import LoraSettings, RewardSettings, SampleSettings, TrainSettings

EVALUATION_SEEDS = 13
"""Pictures of each held-out prompt, on a side."""
GUIDANCE = 2.5
MEMORY_SETTINGS = ("micro_batch", "checkpointing", "tile")
"""Settings that change how much memory is used, and no outcome."""


def one_thread() -> None:
    """Use one thread: each job has a core to itself."""
    import torch

    torch.set_num_threads(1)


@cache
def network_hash() -> str:
    """Return a hash of the embedded model's network, hex."""
    from d3po_core.embedded import GARDEN_FOLDER

    return hashlib.sha256((GARDEN_FOLDER / "unet" / "diffusion_pytorch_model.safetensors").read_bytes()).hexdigest()


def digest(*values: object) -> str:
    """Return a short hash that stands for values, JSON-able, and for the embedded model that they were used with."""
    return hashlib.sha256(json.dumps([values, network_hash()], sort_keys=True).encode()).hexdigest()[:12]


def changed_settings(settings: SampleSettings | TrainSettings | LoraSettings | RewardSettings) -> dict[str, object]:
    """Return the settings whose values are not their defaults, without those that change no outcome.

    A setting that is added later leaves this as it was, and so the digests of outcomes known by then. A default whose
    value is changed leaves it too: rows that were made with the old one must then be deleted from the results.
    """
    return {
        item.name: value
        for item in dataclasses.fields(settings)
        if (value := getattr(settings, item.name)) != item.default and item.name not in MEMORY_SETTINGS
    }


def sampled(folder: Path, settings: Any, load: Callable[[], Any]) -> Path:
    """Return a folder with a complete run of the training prompts; if it is not there, load the model and draw it."""
    from d3po_core.app.sampling import sample_groups
    from d3po_core.embedded import split_prompts
    from d3po_core.run import Run

    if not (folder / "done").exists():
        shutil.rmtree(folder, ignore_errors=True)
        model = load()
        run = Run.create(folder, name="benchmark", model={"identity": model.identity}, settings={})
        for _ in sample_groups(run, model, settings, split_prompts()[0]):
            pass
        run.close()
        (folder / "done").touch()
    return folder


def before(cache: Path, model: Any, settings: SampleSettings, sampler: str) -> Tensor:
    """Return the original model's images of held-out prompts, drawn once for each way of sampling; see `drawn`."""
    import torch
    from safetensors.torch import load_file, save_file

    same = dataclasses.replace(settings, groups=1, candidates=2)  # neither changes pictures
    path = cache / f"before-{digest(sampler, changed_settings(same))}.safetensors"
    if not path.exists():
        images = drawn(model, settings, sampler)
        half = path.with_suffix(f".{os.getpid()}")
        save_file({"images": (images * 255).round().to(torch.uint8)}, half)
        half.replace(path)
    return load_file(path)["images"].float() / 255


def drawn(model: Any, settings: SampleSettings, sampler: str, seeds: int = EVALUATION_SEEDS) -> Tensor:
    """Draw images of each held-out prompt, (B, 3, H, W) in [0, 1], prompt by prompt.

    Args:
        model: with what is attached to it.
        settings: of drawing.
        sampler: "deterministic", or "training" for that of the run.
        seeds: images of each prompt.
    """
    import torch

    from d3po_core.embedded import split_prompts
    from d3po_core.evaluation.evaluate import draw, sampling_plans

    parts = draw(model, sampling_plans(model, settings)[sampler], split_prompts()[1], seeds, settings)
    return (torch.cat([images for _, images in parts]) * 255).round() / 255  # as the originals are kept
