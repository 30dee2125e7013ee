from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from . import Group, Run


def to_image(pixels: Tensor) -> Image.Image:
    """One image (3, H, W) in [0, 1] as a picture."""
    return Image.fromarray((pixels.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy())


def read_images(run: Run, group: Group) -> Tensor:
    """A group's pictures, (candidates, 3, H, W) in [0, 1]."""
    return torch.stack([read_image(run, group.id, candidate) for candidate in range(group.candidates)])


def read_image(run: Run, group_id: str, candidate: int) -> Tensor:
    """One candidate's picture, (3, H, W) in [0, 1]."""
    with Image.open(run.groups.image_path(group_id, candidate)) as image:
        return torch.from_numpy(np.asarray(image.convert("RGB"), dtype=np.float32) / 255).permute(2, 0, 1)
