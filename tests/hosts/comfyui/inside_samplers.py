"""Which of the host's samplers add noise on the way, and what is said of each: `python inside_samplers.py MODELS`.

Each draws twice from the same start, with other seeds for whatever it draws itself.
"""

from __future__ import annotations

from inside import checkpoint, report

# isort: split
import comfy.sample
import comfy.samplers
import torch
from pack.nodes.graph import sampler_advice

loaded = checkpoint("tiny")
start = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3))


def drawn(name: str, seed: int) -> torch.Tensor:
    """One picture's latents in four steps."""
    torch.manual_seed(seed)
    with torch.inference_mode():
        return comfy.sample.sample(
            *(loaded.patcher, start, 4, 3.0, name, "normal", loaded.positive, loaded.negative),
            loaded.latent["samples"],
            seed=seed,
        )


found = {}
for name in comfy.samplers.SAMPLER_NAMES:
    try:
        noisy = not torch.equal(drawn(name, 1), drawn(name, 2))
    except Exception as error:  # not every sampler takes every model
        found[name] = {"noisy": None, "error": str(error), "advice": ""}
        continue
    graph = {"1": {"class_type": "KSampler", "inputs": {"sampler_name": name}}}
    found[name] = {"noisy": noisy, "advice": sampler_advice(graph)}
report(found)
