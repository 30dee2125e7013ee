"""Graphs as the host's API takes them."""

from __future__ import annotations

from typing import Any

TEACH = "when I press Teach"
Graph = dict[str, dict[str, Any]]


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def model(checkpoint: str = "tiny.safetensors") -> Graph:
    """Nodes "model", "clip" and "vae" of a checkpoint (as outputs of "load"), a prompt and an empty latent."""
    return {
        "load": node("CheckpointLoaderSimple", ckpt_name=checkpoint),
        "model": node("ModelSamplingDiscrete", model=["load", 0], sampling="v_prediction", zsnr=False),
        "positive": node("CLIPTextEncode", clip=["load", 1], text="a lake at dawn"),
        "negative": node("CLIPTextEncode", clip=["load", 1], text="blurry"),
        "latent": node("EmptyLatentImage", width=64, height=64, batch_size=1),
    }


def taste(**changes: Any) -> Graph:
    """Sampler, collector and trainer behind a model."""
    sampler = {
        **{"model": ["model", 0], "positive": ["positive", 0], "negative": ["negative", 0], "latent": ["latent", 0]},
        **{"vae": ["load", 2], "taste": "auto", "candidates": 2, "groups": 2, "steps": 4, "guidance_scale": 3.0},
    }
    return {
        **model(),
        "sampler": node("D3PO_PairedTrajectorySampler", **{**sampler, **changes}),
        "collector": node("D3PO_PreferenceCollector", trajectories=["sampler", 0], taste="auto"),
        "trainer": node(
            "D3PO_LoraTrainer",
            **{"model": ["model", 0], "trajectories": ["collector", 0], "taste": "auto"},
            **{"train": TEACH, "teaching": "normal"},
        ),
    }


def plain(lora: str = "", strength: float = 1.0) -> Graph:
    """Ordinary generation, with a LoRA if one is named."""
    graph = model()
    source = ["model", 0]
    if lora:
        graph["lora"] = node("LoraLoaderModelOnly", model=source, lora_name=lora, strength_model=strength)
        source = ["lora", 0]
    graph["sample"] = node(
        "KSampler",
        **{"model": source, "positive": ["positive", 0], "negative": ["negative", 0], "latent_image": ["latent", 0]},
        **{"seed": 7, "steps": 4, "cfg": 3.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0},
    )
    graph["decode"] = node("VAEDecode", samples=["sample", 0], vae=["load", 2])
    graph["save"] = node("SaveImage", images=["decode", 0], filename_prefix="plain")
    return graph
