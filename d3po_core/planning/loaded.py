"""What work takes on a model that is loaded: for as long as it is counted, its weights stand aside."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..app.cost import gigabytes
from ..diffusion.trainable import replaced_tensors
from ..models.model import DiffusersModel
from ..settings import LoraSettings, RewardSettings, SampleSettings
from .counting import META
from .networks import blank_conditioning, parts
from .phases import teaching_by_reward


@contextmanager
def without_values(model: DiffusersModel) -> Iterator[None]:
    """Put tensors without values in place of all weights of a model, until the context ends.

    The weights stay where they are, untouched. Nothing else may use the model meanwhile.
    """
    modules = [each for part in parts(model.pipeline).values() for each in part.modules()]
    with replaced_tensors(modules, _blank):
        yield


def _blank(value: Tensor) -> Tensor:
    blank = torch.empty_like(value, device=META)
    return nn.Parameter(blank, requires_grad=False) if isinstance(value, nn.Parameter) else blank


def reward_memory(model: DiffusersModel, sample: SampleSettings, settings: RewardSettings, lora: LoraSettings) -> str:
    """Return what a round by a reward takes in memory, in a sentence; "" where the model cannot be counted.

    Args:
        model: loaded; it is not changed.
        sample: how pictures are drawn.
        settings, lora: how it is trained.
    """
    try:
        with without_values(model):
            held = list(parts(model.pipeline).values())
            found = teaching_by_reward(model, blank_conditioning(model), sample, settings, lora, held)
    except (RuntimeError, NotImplementedError, TypeError):  # quantised weights, layers that need values
        return ""
    at_once = f"{found.rows} picture{'s' * (found.rows > 1)} at once"
    return f"Memory: about {gigabytes(found.peak)} GB ({at_once}, without what the reward's own network takes)."
