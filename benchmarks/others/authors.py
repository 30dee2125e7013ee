"""The D3PO authors' training for `benchmarks.others`: `scripts/train.py` of github.com/yk7333/d3po, run unchanged.

Yang et al. 2024 (arXiv 2311.13231). The script wants groups of seven with their trajectories; here these are noise,
with the first picture preferred, so that six of the 21 pairs are trained. It needs diffusers 0.17.
"""

from __future__ import annotations

import json
import pickle
import runpy
import sys
from pathlib import Path
from typing import Any

from benchmarks.others.meter import Meter, only, options

CANDIDATES = 7


def save_samples(folder: Path, pipeline: Any, steps: int) -> None:
    """Save one group as their `scripts/sample.py` does, and the judgement of it."""
    import torch

    torch.manual_seed(0)
    pipeline.scheduler.set_timesteps(steps)
    tokens = pipeline.tokenizer(["a flower"], padding="max_length", return_tensors="pt").input_ids
    text = pipeline.text_encoder(tokens)[0].detach()
    side = pipeline.unet.config.sample_size
    latents = torch.randn(1, CANDIDATES, steps + 1, 4, side, side)
    samples = {
        "prompt_embeds": text[:, None].repeat(1, CANDIDATES, 1, 1),
        "timesteps": pipeline.scheduler.timesteps[None],
        "latents": latents[:, :, :-1],
        "next_latents": latents[:, :, 1:],
    }
    (folder / "sample.pkl").write_bytes(pickle.dumps(samples))
    (folder / "json").mkdir()
    (folder / "json" / "0.json").write_text(json.dumps([[1] + [0] * (CANDIDATES - 1)]))


def main() -> None:
    asked = options(__doc__)
    from accelerate.optimizer import AcceleratedOptimizer
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(asked.pipeline)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    save_samples(asked.scratch, pipeline, asked.steps)
    del pipeline
    meter = Meter(asked.intervals, 1, rows=2)
    meter.watch(StableDiffusionPipeline, "from_pretrained", before=True)
    meter.watch(AcceleratedOptimizer, "zero_grad")
    only(asked.program)
    words = {
        "": asked.program / "config" / "base.py",
        ".pretrained.model": asked.pipeline,
        ".mixed_precision": "no",
        ".allow_tf32": False,
        ".logdir": asked.scratch / "logs",
        ".sample.num_steps": asked.steps,
        ".sample.guidance_scale": asked.guidance,
        ".train.sample_path": asked.scratch,
        ".train.json_path": asked.scratch / "json",
        ".train.save_interval": 1_000_000,
    }
    script = asked.program / "scripts" / "train.py"
    sys.argv = [str(script), *(f"--config{name}={value}" for name, value in words.items())]
    runpy.run_path(str(script), run_name="__main__")


if __name__ == "__main__":
    main()
