"""The host's CLIP vision as what a judge sees of an image: as the host runs it, or so that a gradient passes.

Its own `encode_image` moves models, and rounds the image to whole colours, which no gradient passes. Here the same
network works on weights of its own, and the image is prepared in the same way without being rounded.
"""

from __future__ import annotations

from collections.abc import Callable

import comfy.ops
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from ...d3po_core.errors import D3POError
from ...d3po_core.models.model import model_identity
from ...d3po_core.rewards.clip_images import ImagePreparation
from .types import ClipVision

SIGLIP_2 = "siglip2_vision_model"
"""Takes an image as a list of pieces of its own choosing."""


class SeenByClip:
    """The core's `Features` by a CLIP_VISION as the host runs it, without gradient.

    Raises:
        D3POError: it does not describe an image as a whole.
    """

    def __init__(self, vision: ClipVision) -> None:
        self._vision = vision
        self.name = f"clip vision {model_identity(vision.model)[:16]}"
        width = self(torch.zeros(1, 3, vision.image_size, vision.image_size)).shape[1]
        self.scales = [torch.full((width,), width**-0.5, dtype=torch.float64)]

    def __call__(self, images: Tensor) -> Tensor:
        """Return the features (B, F), float32 on the CPU, of images (B, 3, H, W) in [0, 1]."""
        with torch.inference_mode():
            features = self._vision.encode_image(images.movedim(1, -1))["image_embeds"]
        if features is None or features.dim() != 2:
            raise D3POError("This CLIP vision does not describe a picture as a whole.", "Connect another, or none.")
        return features.float().cpu().clone()


class HostClip:
    """The core's `Features` by a CLIP_VISION, with gradient.

    Raises:
        D3POError: it is of a kind that sees images in another way.
    """

    name = "the CLIP vision that was connected"

    def __init__(self, vision: ClipVision) -> None:
        if vision.model_type == SIGLIP_2:
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
        """Return the features (B, F), float32, of images (B, 3, H, W) in [0, 1]."""
        network = self._network.to(images.device)
        with saved_tensors_hooks(_copy_but_weights(network), lambda kept: kept):
            features: Tensor = network(pixel_values=self._prepare(images), intermediate_output=-2)[2]
        return features.float()


def _copy_but_weights(network: torch.nn.Module) -> Callable[[Tensor], Tensor]:
    """Return what keeps a copy of the tensors that the backward pass needs, because the host's layers go on working in
    the same place; not of the weights, which stay as they are."""
    weights = {value.data_ptr() for value in network.state_dict().values()}
    return lambda value: value if value.data_ptr() in weights else value.clone()
