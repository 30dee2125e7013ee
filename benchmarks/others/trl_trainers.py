"""TRL's DDPO and AlignProp for `benchmarks.others`: its own trainers, called as its documentation does.

Black et al. 2023 (arXiv 2305.13301), Prabhudesai et al. 2023 (arXiv 2310.03739). TRL has had both up to 0.15 or so.
"""

from __future__ import annotations

import sys
from typing import Any

from benchmarks.others.meter import Meter, options


def warmth(images: Any, prompts: Any, metadata: Any) -> Any:
    """Score images (B, 3, H, W) by red minus blue, as this project's reward of the name does."""
    scores = (images[:, 0] - images[:, 2]).mean((1, 2))
    return scores, {}


def main() -> None:
    asked = options(__doc__)
    sys.argv[0] = "benchmark.py"  # their default name of an experiment is cut out of it
    from accelerate.optimizer import AcceleratedOptimizer
    from trl import AlignPropConfig, AlignPropTrainer, DDPOConfig, DDPOTrainer, DefaultDDPOStableDiffusionPipeline

    pipeline = DefaultDDPOStableDiffusionPipeline(str(asked.pipeline), use_lora=True)
    common: dict[str, Any] = {
        "mixed_precision": "no",
        "allow_tf32": False,
        "sample_num_steps": asked.steps,
        "sample_guidance_scale": asked.guidance,
        "train_batch_size": 2,
        "num_epochs": 1000,
        "save_freq": 10_000,
        "project_kwargs": {"project_dir": str(asked.scratch)},
        "accelerator_kwargs": {"cpu": True},
    }
    if asked.way == "ddpo":
        meter = Meter(asked.intervals, 1, rows=2)
        config = DDPOConfig(sample_batch_size=2, sample_num_batches_per_epoch=1, **common)
        trainer = DDPOTrainer(config, warmth, lambda: ("a flower", {}), pipeline)
    else:
        meter = Meter(asked.intervals, 1, rows=2 * asked.steps)
        last = {"truncated_backprop_rand": False, "truncated_backprop_timestep": asked.steps - asked.followed}
        config = AlignPropConfig(**last, **common)
        trainer = AlignPropTrainer(config, warmth, lambda: ("a flower", {}), pipeline)
    meter.watch(AcceleratedOptimizer, "zero_grad")  # both call it at the end of every step
    meter.begin()
    trainer.train()


if __name__ == "__main__":
    main()
