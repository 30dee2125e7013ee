"""The host's CLIP vision as what a reward from picks sees of a picture, so that a gradient passes.

Its own `encode_image` moves models, and rounds the picture to whole colours, which no gradient passes. Here the same
network works on weights of its own, and the picture is prepared in the same way without being rounded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.ops
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from ...d3po_core.errors import D3POError
from ...d3po_core.rewards.clip_images import ImagePreparation

OTHERWISE = "siglip2_vision_model"
"""Takes pictures as a list of pieces of its own choosing."""


class HostClip:
    """Features, see the core's `Features`.

    Args:
        vision: a CLIP_VISION of the host's.

    Raises:
        D3POError: it is of a kind that sees pictures in another way.
    """

    name = "the CLIP vision that was connected"

    def __init__(self, vision: Any) -> None:
        if vision.model_type == OTHERWISE:
            raise D3POError("A SigLIP 2 cannot be followed back to the picture here.", "Connect a CLIP or a SigLIP.")
        side = vision.image_size
        mean, std = tuple(vision.image_mean), tuple(vision.image_std)
        self._prepare = ImagePreparation(side, (side, side), "bicubic", mean, std)
        with torch.inference_mode(False):  # the host's weights take no part in gradients
            network = type(vision.model)(vision.config, vision.dtype, torch.device("cpu"), comfy.ops.manual_cast)
            network.load_state_dict({name: value.cpu().clone() for name, value in vision.get_sd().items()})
            self._network = network.eval().requires_grad_(False)
            with torch.no_grad():
                width = self(torch.zeros(1, 3, side, side)).shape[1]
        self.scales = [torch.full((width,), width**-0.5, dtype=torch.float64)]

    def __call__(self, images: Tensor) -> Tensor:
        network = self._network.to(images.device)
        with saved_tensors_hooks(_apart_from(network), lambda kept: kept):
            found: Tensor = network(pixel_values=self._prepare(images), intermediate_output=-2)[2]
        return found.float()


def _apart_from(network: torch.nn.Module) -> Callable[[Tensor], Tensor]:
    """Keeps a copy of what the backward pass needs, because the host's layers go on working in the same place; not of
    the weights, which stay as they are."""
    weights = {value.data_ptr() for value in network.state_dict().values()}
    return lambda value: value if value.data_ptr() in weights else value.clone()
