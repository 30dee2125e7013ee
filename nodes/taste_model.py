"""A MODEL that draws a taste's own prompts anew, from what the run keeps of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..d3po_core.diffusion.denoiser import Conditioning
from ..d3po_core.errors import D3POError
from ..d3po_core.run import Run
from . import folders
from .host import HostModel


def shape_of(run: Run) -> tuple[int, ...]:
    """Of one picture's latents: in the newest group that was drawn or, if none was, imported with a VAE; else as the
    taste was begun.

    Raises:
        D3POError: there is none, or its file is missing or damaged.
    """
    for recorded in (True, False):
        for group in reversed(run.groups(freed=False, recorded=recorded)):
            tensors = run.trajectory(group.id)
            if "latents" in tensors:
                return tuple(tensors["latents"].shape[1:])
    if run.settings.get(folders.SHAPE):
        return tuple(run.settings[folders.SHAPE])
    raise D3POError(f"Nothing was drawn for the taste '{run.name}' yet.", "Queue the sampler first.")


class TasteModel(HostModel):
    """See `HostModel`; no graph is needed for its prompts, sizes and masks.

    Args:
        patcher: the MODEL.
        run: with groups.
        vae: decodes.
        eta: amount of noise.
        shape: of a picture's latents; None takes the taste's.

    Raises:
        D3POError: nothing was drawn or imported yet, or what the run keeps of a group is missing or damaged.
    """

    def __init__(
        self, patcher: Any, run: Run, vae: Any, eta: float = 1.0, shape: tuple[int, ...] | None = None
    ) -> None:
        super().__init__(patcher, {"samples": torch.zeros(1, *(shape or shape_of(run)))}, vae, eta=eta)
        known = [prompt for prompt in run.prompts() if run.has_conditioning(prompt.id)]  # imported ones may have none
        self._rows = {prompt.text: run.conditioning(prompt.id) for prompt in known}

    def encode(self, prompts: list[str], negative: str = "") -> list[Conditioning]:
        return [self._rows[prompt] for prompt in prompts]

    def canvas(self, row: Conditioning) -> tuple[Tensor, Tensor | None]:
        if "latent" not in row:
            return super().canvas(row)
        return self.patcher.model.process_latent_out(row["latent"]), row.get("mask")
