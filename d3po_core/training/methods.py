"""The ways to learn from judgements: which rows, which values of each row, and which loss of these values.

`values` gives for each row of (image, step) what its method's loss is a function of. Column 0 is the log-ratio of
policy to reference (a mean over latent elements) for every method: it predicts hidden picks, whatever was trained.

The losses themselves, with paper and equation, are in diffusion/losses.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..diffusion.losses import advantages, d3po, ddpo, diffusion_kto, dpok, kl, log_ratio, nft, per_row
from ..settings import FilledTrainSettings
from .rows import Rows, TrainingGroup


@dataclass(frozen=True)
class Method:
    """One way to learn.

    Attributes:
        rows: "steps" are recorded ones, "images" finished images that are noised anew for every update.
        judgements: what the loss knows of a group: its pairs or its scores.
        values: (predictions (R, ...), rows, settings) to (R, V).
        loss: (values (C, K, V), the group, settings, offset) to (), a mean over the K steps, so that it may be cut
            between them unless trajectories are compared. The offset is the last update's mean of column 0.
        reference: the policy that the log-ratio is to: the one that the settings name, each group's own sampler (as
            policy gradients need it), or last round's (as DiffusionNFT does).
        anchored: whether `Rows.base` is needed.
    """

    rows: Literal["steps", "images"]
    judgements: Literal["pairs", "scores"]
    values: Callable[[Tensor, Rows, FilledTrainSettings], Tensor]
    loss: Callable[[Tensor, TrainingGroup, FilledTrainSettings, float], Tensor]
    reference: Literal["chosen", "sampler", "last round"] = "chosen"
    anchored: bool = False


def ratios(denoised: Tensor, rows: Rows, settings: FilledTrainSettings) -> Tensor:
    """Return the log-ratio of policy to reference, mean over latent elements, (R, 1)."""
    return (log_ratio(denoised, rows.ref, rows.z, rows.steps, rows.weight) / rows.x[0].numel())[:, None]


def ratios_and_kl(denoised: Tensor, rows: Rows, settings: FilledTrainSettings) -> Tensor:
    """Return the log-ratio and the KL to the base model, means over latent elements, (R, 2)."""
    to_base = kl(denoised, rows.base, rows.steps) / rows.x[0].numel()
    return torch.cat([ratios(denoised, rows, settings), to_base[:, None]], 1)


def implicit_errors(denoised: Tensor, rows: Rows, settings: FilledTrainSettings) -> Tensor:
    """Return the log-ratio, and DiffusionNFT's loss of an image with score 1 and with score 0, (R, 3)."""
    clean = rows.ref + per_row(rows.steps.std, rows.z) * rows.z
    one = torch.ones(len(clean), device=clean.device)
    losses = [nft(denoised, rows.ref, clean, score, settings.beta, rows.weight) for score in (one, 1 - one)]
    return torch.cat([ratios(denoised, rows, settings), torch.stack(losses, 1)], 1)


def pair_loss(values: Tensor, group: TrainingGroup, settings: FilledTrainSettings, offset: float = 0.0) -> Tensor:
    """Return the loss of D3PO on a group's weighted pairs, a scalar; on noised images this is Diffusion-DPO."""
    ratios, pairs = values[..., 0], group.pairs
    winner = ratios[[pair.winner for pair in pairs]]
    loser = ratios[[pair.loser for pair in pairs]]
    weight = ratios.new_tensor([pair.weight for pair in pairs])
    if compares_trajectories(settings):
        winner, loser = winner.sum(1, keepdim=True), loser.sum(1, keepdim=True)
    loss = d3po(winner, loser, settings.beta, settings.clip, settings.label_smoothing)
    return (loss.mean(1) * weight).sum()


def ddpo_loss(values: Tensor, group: TrainingGroup, settings: FilledTrainSettings, offset: float) -> Tensor:
    """Return the loss of DDPO on a group's scores, a scalar."""
    return ddpo(values[..., 0], _advantages(group, values), settings.clip).mean()


def dpok_loss(values: Tensor, group: TrainingGroup, settings: FilledTrainSettings, offset: float) -> Tensor:
    """Return the loss of DPOK on a group's scores, a scalar; beta weights the KL."""
    advantage = _advantages(group, values)
    return dpok(values[..., 0], values[..., 1], advantage, 1.0, settings.beta, settings.clip).mean()


def kto_loss(values: Tensor, group: TrainingGroup, settings: FilledTrainSettings, offset: float) -> Tensor:
    """Return the loss of Diffusion-KTO on a group's images that were liked or disliked, a scalar; others are left out.

    The paper's offset is the mean over a batch of its many images; here it is the mean over the last update's, since a
    group may be one image.
    """
    liking = _relative(group, values)
    judged = liking != 0
    if not judged.any():
        return values.sum() * 0
    ratios = values[judged, :, 0]
    return diffusion_kto(ratios, liking[judged, None] > 0, settings.beta, values.new_tensor(offset)).mean()


def nft_loss(values: Tensor, group: TrainingGroup, settings: FilledTrainSettings, offset: float) -> Tensor:
    """Return the loss of DiffusionNFT on a group, a scalar; images liked above the mean have an optimality near 1."""
    optimality = (_relative(group, values).clamp(-1, 1)[:, None] + 1) / 2
    return (optimality * values[..., 1] + (1 - optimality) * values[..., 2]).mean()


def _advantages(group: TrainingGroup, like: Tensor) -> Tensor:
    return advantages(like.new_tensor(group.scores))[:, None]


def _relative(group: TrainingGroup, like: Tensor) -> Tensor:
    """Return advantages within a group, (C,); where all scores are the same, the scores if they are 1 or -1, else 0."""
    scores = like.new_tensor(group.scores)
    if scores.max() > scores.min():
        return advantages(scores)
    return torch.where(scores.abs() == 1, scores, 0.0)


METHODS: dict[str, Method] = {
    "d3po": Method("steps", "pairs", ratios, pair_loss),
    "ddpo": Method("steps", "scores", ratios, ddpo_loss, "sampler"),
    "dpok": Method("steps", "scores", ratios_and_kl, dpok_loss, "sampler", anchored=True),
    "diffusion-dpo": Method("images", "pairs", ratios, pair_loss),
    "diffusion-kto": Method("images", "scores", ratios, kto_loss),
    "diffusion-nft": Method("images", "scores", implicit_errors, nft_loss, "last round"),
}


def needs_recording(method: str | None) -> bool:
    """Return whether a method of `METHODS` learns only from images whose drawing was recorded; None needs nothing."""
    return method is not None and METHODS[method].rows == "steps"


def compares_trajectories(settings: FilledTrainSettings) -> bool:
    """Return whether the loss joins all steps of an image."""
    return settings.method == "d3po" and settings.level == "trajectory"
