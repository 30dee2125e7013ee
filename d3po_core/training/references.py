"""The reference policy's predictions on recorded steps.

Where the policy that sampled a group is the reference, its recorded predictions are the answer and no network runs.
Otherwise the reference is evaluated anew, once per image, and kept for as long as the trainer lives.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from ..diffusion.denoiser import Denoiser
from ..diffusion.losses import per_row, residual
from ..diffusion.rollout import STORE_DTYPE
from .passes import predict
from .rows import Rows, TrainingGroup, group_rows


def with_reference(rows: Rows, reference: Reference) -> Rows:
    """Noised images with the predictions of the policy to depart from."""
    ref = reference.evaluate(rows)
    clean = rows.ref + per_row(rows.steps.std, rows.z) * rows.z
    return dataclasses.replace(rows, ref=ref, z=residual(rows.x, clean, ref, rows.steps), base=ref)


class Reference:
    """One frozen policy.

    Args:
        policy: its id, as groups record it ("base" or a LoRA's).
        denoiser: the model.
        active: context manager in which the denoiser is this policy.
        batch: rows per forward pass when it has to be evaluated.
        anew: evaluate it even where it sampled: the model has changed since.
    """

    def __init__(
        self,
        policy: str,
        denoiser: Denoiser,
        active: Callable[[], AbstractContextManager[None]],
        batch: int,
        anew: bool = False,
    ) -> None:
        self.policy, self._anew = policy, anew
        self._denoiser, self._active, self._batch = denoiser, active, batch
        self._evaluated: dict[tuple[str, bool], Tensor] = {}

    def predictions(self, group: TrainingGroup, guided: bool) -> Tensor:
        """Denoised predictions (C, K, ...) on the group's recorded latents, on the CPU."""
        if group.policy == self.policy and not self._anew:
            return group.guided if guided else group.cond
        key = (group.id, guided)
        if key not in self._evaluated:
            self._evaluated[key] = self._evaluate(group, guided).to(STORE_DTYPE)
        return self._evaluated[key].float()

    @torch.no_grad()
    def evaluate(self, rows: Rows) -> Tensor:
        """Denoised predictions of the rows' kind (R, ...), on the denoiser's device."""
        with self._active():
            return torch.cat([predict(self._denoiser, part) for part in rows.split(self._batch)])

    def _evaluate(self, group: TrainingGroup, guided: bool) -> Tensor:
        recorded = group.guided if guided else group.cond
        rows = group_rows(group, recorded, guided, self._denoiser.device)
        return self.evaluate(rows).cpu().unflatten(0, group.shape)
