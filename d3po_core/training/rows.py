"""A judged group as training sees it, its rows of (image, step), and the reference policy's predictions on them.

Where the policy that sampled a group is the reference, its recorded predictions are the answer and no network runs.
Otherwise the reference is evaluated anew, once per image, and kept for as long as the trainer lives.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from ..diffusion.denoiser import Conditioning, Denoiser, denoise
from ..diffusion.losses import per_row, residual
from ..diffusion.rollout import STORE_DTYPE
from ..diffusion.steps import LinearSteps, early_window
from ..picks import Pair


@dataclass(frozen=True)
class TrainingGroup:
    """A judged group: C candidates of one prompt over K trained steps, on the CPU, float32.

    Attributes:
        id: of the group in its run.
        pairs: which candidate was preferred to which.
        scores: how much each candidate was liked, (C,) in [-1, 1].
        steps: the K steps.
        x: latents (C, K + 1, ...).
        cond, guided: predictions of the policy that sampled, (C, K, ...).
        latents: finished, (C, ...).
        policy: id of that policy, "base" or a LoRA's.
        conditioning: one row.
        guidance_scale: as sampled.
        weight: of every place of the candidates' latents, broadcast to (C, ...), mean 1; None where all weigh alike.
    """

    id: str
    pairs: list[Pair]
    scores: list[float]
    steps: LinearSteps
    x: Tensor
    cond: Tensor
    guided: Tensor
    latents: Tensor
    policy: str
    conditioning: Conditioning
    guidance_scale: float
    weight: Tensor | None = None

    @property
    def number(self) -> str:
        """Return the part of the id that does not change if the run is made again with the same seed."""
        return self.id.partition("-")[0]

    @property
    def shape(self) -> tuple[int, int]:
        """Return the numbers of candidates and of trained steps, (C, K)."""
        return self.cond.shape[0], self.cond.shape[1]

    @property
    def elements(self) -> int:
        """Return the number of latent elements of one image, N."""
        return self.latents[0].numel()


@dataclass(frozen=True)
class Rows:
    """Recorded steps as one batch: R rows of (image, step), from one or several groups.

    `ref` and `z` belong together and to one kind of policy (all guided or all conditional), see
    diffusion/losses.py. `base` is the base model's prediction of that kind; it is the same tensor as `ref` where
    the base is the reference, and where the loss does not use it. `weight` is of the latents' places, see
    `TrainingGroup`.
    """

    x: Tensor
    ref: Tensor
    z: Tensor
    base: Tensor
    steps: LinearSteps
    conditioning: Conditioning
    guidance_scale: float
    guided: bool
    weight: Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)

    def split(self, size: int) -> list[Rows]:
        """Cut the rows into micro-batches of at most `size`."""
        return [self[slice(i, i + size)] for i in range(0, len(self), size)]

    def __getitem__(self, part: slice | Tensor) -> Rows:
        conditioning = {name: value[part] for name, value in self.conditioning.items()}
        return Rows(
            self.x[part],
            self.ref[part],
            self.z[part],
            self.base[part],
            self.steps[part],
            conditioning,
            self.guidance_scale,
            self.guided,
            None if self.weight is None else self.weight[part],
        )


def jumps(sigma: Tensor) -> LinearSteps:
    """Return steps that lead from noise levels (B,) to the finished image at once, x0 = D(x) + sigma * eps.

    Their log-ratio is that of Diffusion-DPO (Wallace et al. 2024, arXiv 2311.12908, eq. 14), with weight 1 / sigma^2.
    """
    zero = torch.zeros_like(sigma)
    return LinearSteps(sigma, zero, zero, torch.ones_like(sigma), sigma)


def group_rows(
    group: TrainingGroup,
    ref: Tensor,
    guided: bool,
    device: torch.device,
    base: Tensor | None = None,
    clean: Tensor | None = None,
) -> Rows:
    """Return all (candidate, step) rows of a group, candidate-major.

    Args:
        group: what was recorded.
        ref: the reference's predictions (C, K, ...), guided or conditional.
        guided: which of the two.
        device: where the rows are needed.
        base: the base model's predictions (C, K, ...), where the loss uses them and the reference is another policy.
        clean: the finished images in the space of x, (C, ...): every step is then taken for a jump to them (`jumps`);
            None for the steps as they were taken.
    """
    candidates, count = group.shape
    steps = group.steps[torch.arange(count).repeat(candidates)]
    x, x_next = group.x[:, :-1].flatten(0, 1), group.x[:, 1:].flatten(0, 1)
    if clean is not None:
        steps, x_next = jumps(steps.sigma), clean.repeat_interleave(count, 0)
    flat = ref.flatten(0, 1)
    z = residual(x, x_next, flat, steps).to(device)
    flat = flat.to(device)
    anchor = flat if base is None else base.flatten(0, 1).to(device)
    conditioning = repeat_conditioning(group, candidates * count, device)
    weight = repeat_weight(group, count, device)
    return Rows(x.to(device), flat, z, anchor, steps, conditioning, group.guidance_scale, guided, weight)


def repeat_weight(group: TrainingGroup, times: int, device: torch.device) -> Tensor | None:
    """Return the weight of every candidate's latents for each of its rows, candidate-major; None if there is none."""
    return None if group.weight is None else group.weight.repeat_interleave(times, 0).to(device)


def repeat_conditioning(group: TrainingGroup, rows: int, device: torch.device) -> Conditioning:
    """Return a group's conditioning, repeated for a number of rows."""
    return {name: value.to(device).expand(rows, *value.shape[1:]) for name, value in group.conditioning.items()}


def join_rows(parts: list[Rows]) -> Rows:
    """Join rows of several groups, alike in sizes and guidance scale, into one batch."""
    steps = LinearSteps(*(torch.cat([getattr(p.steps, f) for p in parts]) for f in LinearSteps.__dataclass_fields__))
    conditioning = {name: torch.cat([p.conditioning[name] for p in parts]) for name in parts[0].conditioning}
    x, ref, z, base = (torch.cat([getattr(p, name) for p in parts]) for name in ("x", "ref", "z", "base"))
    return Rows(x, ref, z, base, steps, conditioning, parts[0].guidance_scale, parts[0].guided, _join_weights(parts))


def _join_weights(parts: list[Rows]) -> Tensor | None:
    weights = [part.weight for part in parts]
    like = next((weight for weight in weights if weight is not None), None)
    if like is None:
        return None
    ones = [like.new_ones(1).expand(len(part), *like.shape[1:]) for part in parts]
    return torch.cat([one if weight is None else weight for weight, one in zip(weights, ones, strict=True)])


def predict(denoiser: Denoiser, rows: Rows) -> Tensor:
    """Predict the rows' denoised latents by the active policy, guided or conditional as the rows are, (R, ...)."""
    prediction = denoise(denoiser, rows.x, rows.steps.sigma, rows.conditioning, rows.guidance_scale, rows.guided)
    return prediction.guided if rows.guided else prediction.cond


SPACING = 50
"""Steps of the model's own schedule that noise levels are drawn from."""


def noise_levels(denoiser: Denoiser, lowest: float) -> Tensor:
    """Return the levels of the model's own schedule at or above a noise-to-signal ratio, (L,), to noise images to."""
    sigmas = denoiser.sigmas(SPACING, "model")
    return sigmas[:-1][early_window(sigmas, denoiser.family, lowest)]


def noise_images(group: TrainingGroup, levels: Tensor, draws: int, rng: torch.Generator, denoiser: Denoiser) -> Rows:
    """Noise a group's candidates: conditional rows, candidate-major, of which the reference is still to be evaluated.

    All candidates get the same noises at the same levels, as the pairs of Diffusion-DPO do (Wallace et al. 2023), so
    that they differ in the image alone.

    Args:
        group: with finished latents.
        levels: noise levels to draw from, all equally likely.
        draws: number of levels and noises.
        rng: draws levels and noises.
        denoiser: of the policy.
    """
    candidates, device = len(group.latents), denoiser.device
    sigma = levels[torch.randint(len(levels), (draws,), generator=rng)].repeat(candidates)
    noise = torch.randn(draws, *group.latents.shape[1:], generator=rng)
    clean = denoiser.clean(group.latents).repeat_interleave(draws, 0)
    signal = torch.ones_like(sigma) if denoiser.family == "diffusion" else 1 - sigma
    x = per_row(signal, clean) * clean + per_row(sigma, clean) * noise.repeat(candidates, *[1] * (clean.dim() - 1))
    steps, x, clean = jumps(sigma), x.to(device), clean.to(device)
    z = residual(x, clean, x, steps)
    conditioning, weight = repeat_conditioning(group, len(x), device), repeat_weight(group, draws, device)
    return Rows(x, x, z, x, steps, conditioning, group.guidance_scale, guided=False, weight=weight)


def with_reference(rows: Rows, reference: Reference) -> Rows:
    """Return rows of noised images with the reference policy's predictions filled in."""
    ref = reference.evaluate(rows)
    clean = rows.ref + per_row(rows.steps.std, rows.z) * rows.z
    return dataclasses.replace(rows, ref=ref, z=residual(rows.x, clean, ref, rows.steps), base=ref)


class Reference:
    """The reference: a frozen policy that log-ratios are taken to.

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
        """Return denoised predictions (C, K, ...) on the group's recorded latents, on the CPU."""
        if group.policy == self.policy and not self._anew:
            return group.guided if guided else group.cond
        key = (group.id, guided)
        if key not in self._evaluated:
            self._evaluated[key] = self._evaluate(group, guided).to(STORE_DTYPE)
        return self._evaluated[key].float()

    @torch.no_grad()
    def evaluate(self, rows: Rows) -> Tensor:
        """Predict the rows' denoised latents by this policy, (R, ...), on the denoiser's device."""
        with self._active():
            return torch.cat([predict(self._denoiser, part) for part in rows.split(self._batch)])

    def _evaluate(self, group: TrainingGroup, guided: bool) -> Tensor:
        recorded = group.guided if guided else group.cond
        rows = group_rows(group, recorded, guided, self._denoiser.device)
        return self.evaluate(rows).cpu().unflatten(0, group.shape)
