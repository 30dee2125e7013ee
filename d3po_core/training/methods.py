"""The ways to learn from judgements, each a choice of rows, of what is needed of each row, and of a loss on that.

`values` gives for each row of (image, step) what its method's loss is a function of. Column 0 is the log-ratio of
policy to reference (a mean over latent elements) for every method: by it hidden picks are foretold, whatever was
trained.
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
        judgements: what the loss knows of a group.
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
    """The log-ratio, mean over latent elements. (R, 1)"""
    return (log_ratio(denoised, rows.ref, rows.z, rows.steps) / rows.x[0].numel())[:, None]


def ratios_and_kl(denoised: Tensor, rows: Rows, settings: FilledTrainSettings) -> Tensor:
    """The log-ratio and the KL to the base model, means over latent elements. (R, 2)"""
    to_base = kl(denoised, rows.base, rows.steps) / rows.x[0].numel()
    return torch.cat([ratios(denoised, rows, settings), to_base[:, None]], 1)


def implicit_errors(denoised: Tensor, rows: Rows, settings: FilledTrainSettings) -> Tensor:
    """The log-ratio, and DiffusionNFT's loss of an image with score 1 and with score 0. (R, 3)"""
    clean = rows.ref + per_row(rows.steps.std, rows.z) * rows.z
    one = torch.ones(len(clean), device=clean.device)
    losses = [nft(denoised, rows.ref, clean, score, settings.beta) for score in (one, 1 - one)]
    return torch.cat([ratios(denoised, rows, settings), torch.stack(losses, 1)], 1)


def pair_loss(values: Tensor, group: TrainingGroup, settings: FilledTrainSettings, offset: float = 0.0) -> Tensor:
    """D3PO of a group's pairs, weighted; on noised images this is Diffusion-DPO (images.py). ()"""
    ratios, pairs = values[..., 0], group.pairs
    winner = ratios[[pair.winner for pair in pairs]]
    loser = ratios[[pair.loser for pair in pairs]]
    weight = ratios.new_tensor([pair.weight for pair in pairs])
    if compares_trajectories(settings):
        winner, loser = winner.sum(1, keepdim=True), loser.sum(1, keepdim=True)
    loss = d3po(winner, loser, settings.beta, settings.clip, settings.label_smoothing)
    return (loss.mean(1) * weight).sum()


def ddpo_loss(values: Tensor, group: TrainingGroup, settings: FilledTrainSettings, offset: float) -> Tensor:
    """DDPO of a group, by its scores. ()"""
    return ddpo(values[..., 0], _advantages(group, values), settings.clip).mean()


def dpok_loss(values: Tensor, group: TrainingGroup, settings: FilledTrainSettings, offset: float) -> Tensor:
    """DPOK of a group, by its scores; beta weights the KL. ()"""
    advantage = _advantages(group, values)
    return dpok(values[..., 0], values[..., 1], advantage, 1.0, settings.beta, settings.clip).mean()


def kto_loss(values: Tensor, group: TrainingGroup, settings: FilledTrainSettings, offset: float) -> Tensor:
    """Diffusion-KTO of a group's images that were liked or disliked; those in between say nothing. ()

    The paper's offset is the mean over a batch of its many images; here it is the mean over the last update's, since a
    group may be one image.
    """
    liking = _relative(group, values)
    said = liking != 0
    if not said.any():
        return values.sum() * 0
    ratios = values[said, :, 0]
    return diffusion_kto(ratios, liking[said, None] > 0, settings.beta, values.new_tensor(offset)).mean()


def nft_loss(values: Tensor, group: TrainingGroup, settings: FilledTrainSettings, offset: float) -> Tensor:
    """DiffusionNFT of a group; what was liked more than the rest of it has an optimality towards 1. ()"""
    optimality = (_relative(group, values).clamp(-1, 1)[:, None] + 1) / 2
    return (optimality * values[..., 1] + (1 - optimality) * values[..., 2]).mean()


def _advantages(group: TrainingGroup, like: Tensor) -> Tensor:
    return advantages(like.new_tensor(group.scores))[:, None]


def _relative(group: TrainingGroup, like: Tensor) -> Tensor:
    """Advantages within a group; where everybody liked or disliked all alike, that; else nothing was said. (C,)"""
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
    """Whether a method of `METHODS` learns only from pictures of which it was recorded how they were drawn. One that is
    not known yet rules nothing out."""
    return method is not None and METHODS[method].rows == "steps"


def compares_trajectories(settings: FilledTrainSettings) -> bool:
    """Whether the loss joins all steps of an image."""
    return settings.method == "d3po" and settings.level == "trajectory"
