"""A group's images as tensors, and tensors as images."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from . import Group, Run


def to_image(pixels: Tensor) -> Image.Image:
    """Convert pixels (3, H, W) in [0, 1] to an image."""
    return Image.fromarray((pixels.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy())


def read_images(run: Run, group: Group) -> Tensor:
    """Read a group's images, (candidates, 3, H, W) in [0, 1].

    Raises:
        D3POError: one of them is missing.
    """
    return torch.stack([read_image(run, group.id, candidate) for candidate in range(group.candidates)])


def read_image(run: Run, group_id: str, candidate: int) -> Tensor:
    """Read one candidate's image, (3, H, W) in [0, 1].

    Raises:
        D3POError: the group or candidate is unknown, or the image is missing.
    """
    with Image.open(run.groups.image_path(group_id, candidate)) as image:
        return torch.from_numpy(np.asarray(image.convert("RGB"), dtype=np.float32) / 255).permute(2, 0, 1)
