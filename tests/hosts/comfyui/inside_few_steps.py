"""What is said of distilled models that a graph loads: `python inside_few_steps.py MODELS`."""

from __future__ import annotations

from typing import Any

from inside import checkpoint, report

# isort: split
from pack.d3po_core.app.few_steps import drawing_advice
from pack.d3po_core.settings import SampleSettings
from pack.nodes import graph


def loaded(*files: dict[str, Any]) -> dict[str, Any]:
    """A graph in which loaders stand behind each other, before a node "9"."""
    nodes: dict[str, Any] = {}
    for number, inputs in enumerate(files):
        link = {"model": [str(number - 1), 0]} if number else {}
        nodes[str(number)] = {"class_type": "Loader", "inputs": {**inputs, **link}}
    return {**nodes, "9": {"class_type": "Sampler", "inputs": {"model": [str(len(files) - 1), 0]}}}


CASES = {
    "ordinary": ({"ckpt_name": "sd_xl_base_1.0.safetensors"}, {"lora_name": "hyperrealism.safetensors"}),
    "turbo": ({"unet_name": "flux/z_image_turbo_bf16.safetensors"},),
    "LoRA": ({"ckpt_name": "sd_xl_base_1.0.safetensors"}, {"lora_name": "sdxl/dmd2_sdxl_4step_lora.safetensors"}),
    "Flux dev": ({"unet_name": "flux1-dev-fp8.safetensors"},),
}
host = checkpoint("tiny").patcher
found = {}
for name, files in CASES.items():
    upstream = graph.upstream(loaded(*files), "9")
    names = graph.names_of(graph.checkpoint_of(host, upstream), upstream)
    found[name] = {
        str(guidance): drawing_advice(names, SampleSettings(steps=steps, guidance_scale=guidance))
        for steps, guidance in ((20, 5.0), (20, 1.0))
    }
report(found)
