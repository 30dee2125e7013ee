"""The host's kinds of objects, each under one name. Where the host is absent (mypy runs without it), its classes are
`Any`."""

from __future__ import annotations

from typing import Any, TypedDict

from comfy.clip_vision import ClipVisionModel as ClipVision
from comfy.model_patcher import ModelPatcher as Patcher
from comfy.model_sampling import ModelSamplingDiscrete as ModelSampling
from comfy.patcher_extension import WrapperExecutor
from comfy.samplers import CFGGuider as Guider
from comfy.samplers import KSamplerX0Inpaint as SampledModel
from comfy.sd import CLIP as Clip
from comfy.sd import VAE as Vae
from torch import Tensor

__all__ = [
    "Clip",
    "ClipVision",
    "Cond",
    "Conds",
    "Graph",
    "GraphNode",
    "Guider",
    "Latent",
    "ModelSampling",
    "Options",
    "Patcher",
    "SampledModel",
    "Vae",
    "Widgets",
    "WrapperExecutor",
]

Options = dict[str, Any]
"""Options of a MODEL or of an entry of CONDITIONING: numbers, tensors, functions and objects by name."""
Cond = list[list[Any]]
"""CONDITIONING: entries [encoded text or None, Options]."""
Conds = dict[str, list[Options]]
"""Entries of CONDITIONING as the host's sampling prepares them, for "positive" and "negative"."""
Widgets = dict[str, Any]
"""Values of a node's inputs by name, as JSON keeps them."""


class GraphNode(TypedDict, total=False):
    """A node of a graph.

    Attributes:
        class_type: id of its kind.
        inputs: values, or links [node, output].
    """

    class_type: str
    inputs: Widgets


Graph = dict[str, GraphNode]
"""A graph as the host executes it: nodes by id."""


class Latent(TypedDict, total=False):
    """LATENT.

    Attributes:
        samples: latents (B, ...).
        noise_mask: what is drawn anew, (B, H, W) or (B, 1, H, W).
        type: "audio" for sound.
        downscale_ratio_spacial, downscale_ratio_temporal: of an empty one, how much larger the image is.
    """

    samples: Tensor
    noise_mask: Tensor
    type: str
    downscale_ratio_spacial: int
    downscale_ratio_temporal: int
