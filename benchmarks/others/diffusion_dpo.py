"""diffusers' script for Diffusion-DPO for `benchmarks.others`: `train_diffusion_dpo.py`, its `main`, unchanged.

Wallace et al. 2023 (arXiv 2311.12908). The pairs are in a data set on disk. Where torchvision is not installed, the
five of its transforms that the script uses are rebuilt on pillow; where wandb is not, it is an empty module (the script
uses it to show validation pictures, which are off).
"""

from __future__ import annotations

import importlib.util
import io
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from benchmarks.others.meter import Meter, only, options


def png(side: int, seed: int) -> bytes:
    """Return a picture of noise as a file."""
    import numpy as np
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), "uint8")).save(buffer, "PNG")
    return buffer.getvalue()


def save_pairs(folder: Path, side: int, count: int = 4) -> None:
    """Save a data set of pairs in the layout of Pick-a-Pic; the first picture was preferred."""
    from datasets import Dataset

    columns: dict[str, list[Any]] = {f"jpg_{i}": [png(side, 2 * n + i) for n in range(count)] for i in (0, 1)}
    Dataset.from_dict({**columns, "label_0": [1] * count, "caption": ["a flower"] * count}).to_parquet(
        str(folder / "train.parquet")
    )


def transforms() -> ModuleType:
    """Return what the script uses of `torchvision.transforms`."""
    import numpy as np
    import torch

    def compose(parts: list[Any]) -> Any:
        def all_of_them(image: Any) -> Any:
            for part in parts:
                image = part(image)
            return image

        return all_of_them

    def to_tensor(image: Any) -> Any:
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255

    module: Any = ModuleType("torchvision.transforms")
    module.InterpolationMode = SimpleNamespace(BILINEAR=2)
    module.Compose = compose
    module.Resize = lambda size, interpolation: lambda image: image.resize((size, size), interpolation)
    module.CenterCrop = lambda size: lambda image: image
    module.Lambda = lambda function: function
    module.ToTensor = lambda: to_tensor
    module.Normalize = lambda mean, std: lambda image: (image - mean[0]) / std[0]
    return module


def stand_in(name: str, **parts: Any) -> None:
    """Put a module of these parts in place of one that is not installed."""
    if importlib.util.find_spec(name) is None:
        module = ModuleType(name)
        module.__spec__ = importlib.util.spec_from_loader(name, None)
        vars(module).update(parts)
        sys.modules[name] = module


def main() -> None:
    asked = options(__doc__)
    from accelerate.optimizer import AcceleratedOptimizer
    from diffusers import UNet2DConditionModel

    side = UNet2DConditionModel.load_config(asked.pipeline / "unet")["sample_size"]
    data = asked.scratch / "pairs"
    data.mkdir()
    save_pairs(data, side)
    stand_in("wandb")
    import diffusers
    import transformers  # noqa: F401  they ask for torchvision themselves, and must not meet a stand-in

    assert diffusers.StableDiffusionPipeline
    stand_in("torchvision", transforms=transforms())
    meter = Meter(asked.intervals, 1, rows=2)
    meter.watch(UNet2DConditionModel, "from_pretrained", before=True)  # the last part that the script loads
    meter.watch(AcceleratedOptimizer, "zero_grad")
    only(asked.program / "research_projects" / "diffusion_dpo")
    import train_diffusion_dpo as script

    words: dict[str, Any] = {
        "pretrained_model_name_or_path": asked.pipeline,
        "dataset_name": data,
        "dataset_split_name": "train",
        "cache_dir": asked.scratch / "cache",
        "output_dir": asked.scratch / "out",
        "resolution": side,
        "train_batch_size": 1,
        "num_train_epochs": 1000,
        "rank": 4,
        "mixed_precision": "no",
    }
    flags = [part for name, value in words.items() for part in (f"--{name}", str(value))]
    script.main(script.parse_args([*flags, "--no_hflip"]))


if __name__ == "__main__":
    main()
