"""What a round did to pictures of the same prompts and seeds: is the prompt kept, and would the person prefer them?

The pictures are those that a person is shown afterwards: a strip of before and after, and the pairs of a blind check.
They also decide how strong the LoRA is used: at the greatest strength that keeps the prompt.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from ..diffusion.denoiser import Conditioning, Denoiser, Prediction, denoise, noised
from ..diffusion.image_model import ImageModel, check_finite
from ..diffusion.rollout import CandidateNoise, generator
from ..lora import LoraWeights
from ..lora.attachment import applied
from ..lora.weights import scale_weights
from ..rewards.activations import describe
from ..rewards.description import described
from ..rewards.features import NETWORK, STATISTICS, Features, Joined, Kind, get_features
from ..rewards.judge import Judge
from ..run import Run
from ..run.blind_checks import strip_side
from ..run.run import to_image
from ..settings import SampleSettings
from .compare import STRENGTHS
from .evaluate import Show, counted, deterministic

ADHERENCE_RATIOS = (1.0, 6.0)
"""Ratios of noise to signal at which adherence to a prompt is measured: at the first a prompt's shapes are decided, at
the second what is seen from afar, its colours and its layout."""
ADHERENCE_DRAWS = 2
"""Noises for each picture and ratio. Pictures differ more than noises do, so that more of these help little."""
CERTAIN = 3.0
"""Standard errors above 0 of the originals' mean adherence, from which a ratio of noise counts."""
LEAST = 0.25
"""Share of the original pictures, those that show their prompts least, whose adherence counts in full: what is above is
cut off. Otherwise a taste that makes pictures more typical hides what others lose."""


@torch.no_grad()
def prompt_adherence(
    denoiser: Denoiser,
    latents: Tensor,
    conditioning: Sequence[Conditioning],
    guidance_scale: float,
    others: Sequence[Conditioning] | None = None,
    draws: int = ADHERENCE_DRAWS,
) -> Tensor:
    """Measure how much its prompt helps the model to denoise each picture: E |D_uncond - x0|^2 - E |D_cond - x0|^2.

    This is the diffusion classifier (Li et al. 2023, arXiv 2303.16203, eq. 6) between a prompt and its negative, or,
    where the network has no branch for that (guidance-distilled ones, or guidance 1), another prompt. It falls as a
    picture loses what its prompt says. The difference is not divided by the error, because that would confound it with
    how busy a picture is.

    Args:
        denoiser: the base model, no LoRA active.
        latents: finished, (B, ...).
        conditioning: of each picture's prompt, B of one row.
        guidance_scale: as the pictures are drawn.
        others: of another prompt for each picture; used without a negative branch, where None gives zeros.
        draws: noises; all pictures get the same ones.

    Returns:
        (B, `ADHERENCE_RATIOS`), float64 on the CPU: mean over noises and latent elements.
    """
    noise = torch.randn(draws, *latents.shape[1:], generator=generator("adherence"))
    found = []
    for number, row in enumerate(conditioning):
        picture, other = latents[number : number + 1], others[number] if others else None
        how = (denoiser, picture, noise, row, other, guidance_scale)
        found.append([_advantage(*how, ratio) for ratio in ADHERENCE_RATIOS])
    return torch.tensor(found, dtype=torch.float64)


def _advantage(
    denoiser: Denoiser,
    picture: Tensor,
    noise: Tensor,
    row: Conditioning,
    other: Conditioning | None,
    guidance_scale: float,
    ratio: float,
) -> float:
    """Return how much smaller the error is with the prompt of a picture (1, ...) than without, at one ratio."""
    clean = denoiser.clean(picture).float().to(denoiser.device)
    x, sigma = noised(denoiser, picture.expand(len(noise), *picture.shape[1:]), noise, ratio)

    def predict(of: Conditioning, guided: bool) -> Prediction:
        rows = {name: value.to(x.device).expand(len(x), *value.shape[1:]) for name, value in of.items()}
        return denoise(denoiser, x, sigma, rows, guidance_scale, guided)

    prediction = predict(row, True)
    against = prediction.uncond
    if against is None:
        against = predict(other, False).cond if other else prediction.cond
    errors = [(each - clean).double().square().mean() for each in (against, prediction.cond)]
    return float(errors[0] - errors[1])


def share_kept(before: Tensor, after: Tensor) -> float | None:
    """Return which share of the prompts' adherence pictures have kept, 1 for all; None where the originals have none.

    Every ratio counts alike: adherence is divided by its mean over the originals. One at which that is not `CERTAIN` to
    be above 0 says nothing and is left out. Adherence above that of the least quarter of the originals is cut off on
    both sides, see `LEAST`.

    Args:
        before, after: `prompt_adherence` of the same prompts and seeds, (B, R).
    """
    whole = before.mean(0)
    sure = whole > CERTAIN * before.std(0) / math.sqrt(len(before))
    if not sure.any():
        return None
    own, now = ((each / whole)[:, sure].sum(1) for each in (before, after))
    limit = own.quantile(LEAST)
    least = float(own.minimum(limit).mean())
    return float(now.minimum(limit).mean()) / least if least > 0 else None


def preferred(run: Run, judge: Judge, prompts: Sequence[str], before: Tensor, after: Tensor) -> float:
    """Estimate the probability that the person prefers a new picture to an original one of its prompt and another seed.

    Every new picture is compared with all of the original model's of its prompt: those of the run's groups, and
    `before`. With the judge's scores u, it is the better one with probability
    Phi(rho (u_new - u_original) / (spread sqrt(2 (1 - rho^2)))), Phi being the normal distribution function, because
    the judge is no oracle: rho is the correlation of its scores with what the person likes, see `correlation`. The
    spread is that of scores within a prompt over the run's groups (where every prompt has one group, within groups).
    The few originals of `before` alone, which have the seeds of the new pictures, would say less.

    Args:
        run: with groups.
        judge: fitted to its picks.
        prompts: of the pictures, B texts.
        before, after: features (B, F) of pictures of the same prompts and seeds.

    Returns:
        The mean over the new pictures.
    """
    groups = {group.id: group for group in run.groups.select()}
    known = described(run, groups, judge.head.features)
    scores = {group_id: judge.scores(features) for group_id, features in known.items()}
    spread = _spread([(groups[group_id].prompt_id, of_group) for group_id, of_group in scores.items()])
    if not spread:
        return 0.5
    originals: dict[str, list[Tensor]] = {}
    for group_id, of_group in scores.items():
        if groups[group_id].policy == "base":
            originals.setdefault(groups[group_id].prompt, []).append(of_group)
    for prompt, score in zip(prompts, judge.scores(before), strict=True):
        originals.setdefault(prompt, []).append(score[None])
    rho = correlation(judge.facts.accuracy, round(statistics.fmean(map(len, scores.values()))))
    scale, wins = rho / (spread * math.sqrt(2 * (1 - rho**2))), []
    for prompt, score in zip(prompts, judge.scores(after), strict=True):
        wins.append(float(torch.special.ndtr(scale * (score - torch.cat(originals[prompt]))).mean()))
    return statistics.fmean(wins)


def _spread(groups: Sequence[tuple[int, Tensor]]) -> float:
    """Return the standard deviation of scores (C,) within a prompt; within groups, where every prompt has one.

    Args:
        groups: number of the prompt, and scores.
    """
    by_prompt: dict[int, list[Tensor]] = {}
    for prompt_id, scores in groups:
        by_prompt.setdefault(prompt_id, []).append(scores)
    repeated = [torch.cat(each) for each in by_prompt.values() if len(each) > 1]
    within = repeated or [scores for _, scores in groups]
    freedom = sum(len(each) - 1 for each in within)
    if not freedom:  # every group has one image
        return 0.0
    return math.sqrt(sum(float((each - each.mean()).square().sum()) for each in within) / freedom)


def correlation(accuracy: float, candidates: int) -> float:
    """Return the correlation of scores with a person's utilities, both normal, from how often favourites are predicted.

    A favourite is the best of C. The scores tell it from another candidate with probability
    E Phi(rho d / sqrt(2 (1 - rho^2))), d being the difference of their utilities; for C = 2 that is
    1/2 + asin(rho) / pi. Solved for rho by bisection.

    Args:
        accuracy: share of pairs of a favourite and another candidate that the scores order rightly.
        candidates: C, at least 2.
    """
    utilities = torch.randn(4096, max(2, candidates), generator=generator("correlation"), dtype=torch.float64)
    utilities = utilities.sort(descending=True).values
    gaps = utilities[:, :1] - utilities[:, 1:]
    low, high = 0.0, 1.0
    for _ in range(30):
        rho = (low + high) / 2
        right = float(torch.special.ndtr(rho * gaps / math.sqrt(2 * (1 - rho**2))).mean())
        low, high = (rho, high) if right < accuracy else (low, rho)
    return low


@dataclass(frozen=True)
class Limits:
    """What a LoRA may cost.

    Attributes:
        kept: the least share of the prompt; 0 is off.
        drifts: KL from the base at each strength, nats per latent element, as far as it is known.
        drift: its limit; 0 is off.
    """

    kept: float = 0.0
    drifts: Mapping[float, float] = field(default_factory=dict)
    drift: float = 0.0

    def allow(self, strength: float, kept: float | None) -> bool:
        """Return whether a strength may be used at which this share of the prompt is kept."""
        unknown = math.inf if self.drifts else 0.0  # what is not finite is left out of them
        if self.drift and not self.drifts.get(strength, unknown) <= self.drift:
            return False
        return kept is None or not self.kept or kept >= self.kept


def share_at(strength: float, measured: Mapping[float, float]) -> float:
    """Return the share of the prompt that is kept at a strength, from what was measured at several.

    The loss is taken to grow as the square of the strength s, and its standard error over a few pictures as s. So a s^2
    is fitted by least squares with weights 1 / s^2: a is the sum of the losses over the sum of the squared strengths.

    Args:
        strength: of the LoRA.
        measured: shares by strength, at least one.
    """
    lost = sum(1 - share for share in measured.values())
    return 1 - lost / sum(each**2 for each in measured) * strength**2


ROUGH = 0.05
"""How far below the limit a share may be at the strength that is used, if what is lost at greater ones allows it."""
STRIP_IMAGES = 4
"""Images in a strip. They have the same prompts and seeds in every round, unless prompts are added to the run."""
CHECK_PAIRS = 12
"""Before/after pairs in a blind check; by chance alone, ten or more on either side have a probability below 5%."""
CHECK_SEEDS = 1_000_000
"""First seed of blind checks, far above those of strips; no group of a run has one of either (see `draw`)."""


def draw_previews(
    run: Run,
    model: ImageModel,
    number: int,
    lora: LoraWeights,
    settings: SampleSettings,
    attachment: str,
    show: Show,
    limits: Limits | None = None,
    decodes: bool = True,
) -> Effect:
    """Draw a round's strip and blind check, find the strength to use, and save the pictures in the run.

    The strip is drawn at all `STRENGTHS`; the blind check at those that may be within the limits, from the greatest
    down to the one that is, and only the last is saved.

    Args:
        run: with prompts.
        model: the base model.
        number: of the finished round.
        lora: weights that the round trained.
        settings: as the run is sampled.
        attachment: how a LoRA is attached to this model, "peft" or "hooks".
        show: see `Show`.
        limits: what the LoRA may cost; None for anything.
        decodes: the model has a VAE; else latents are drawn that find the strength, and nothing is saved.
    """
    previews = _Previews(run, model, number, settings, show, decodes)
    before = previews.draw(None, attachment, whole=True)
    originals = previews.adherence(before.latents)
    limits, measured, chosen = limits or Limits(), dict[float, float](), None

    def promising(strength: float) -> bool:
        return limits.allow(strength, share_at(strength, measured) if measured else None)

    for strength in STRENGTHS:
        last = strength == STRENGTHS[-1]
        sought = chosen is None and (last or promising(strength))
        if not (sought or decodes):
            continue
        after = previews.draw(scale_weights(lora, strength), attachment, whole=sought)
        previews.save_strip({"before": before, strip_side(strength): after})
        if sought:
            share = share_kept(originals, previews.adherence(after.latents))
            measured |= {} if share is None else {strength: share}
            at_best = None if share is None else share + ROUGH
            if last or (promising(strength) and limits.allow(strength, at_best)):
                chosen, taught = strength, after
                previews.save_check(before, after)
    kept = tuple((strength, share_at(strength, measured)) for strength in measured)
    return Effect(chosen or 1.0, kept, previews, before, taught)


@dataclass(frozen=True)
class _Side:
    """Finished latents (B, ...) and images (B, 3, H, W) in [0, 1] of one side, on the CPU; no images without a VAE."""

    latents: Tensor
    images: Tensor


class _Previews:
    """Draws and saves the pictures of `draw_previews`: first those of the strip, then those of the blind check."""

    def __init__(
        self, run: Run, model: ImageModel, number: int, settings: SampleSettings, show: Show, decodes: bool
    ) -> None:
        self.run, self.model, self.number, self.settings, self.decodes = run, model, number, settings, decodes
        texts = sorted({prompt.text for prompt in run.prompts.to_show()})
        self.strip = _choose_prompts(texts, STRIP_IMAGES, run.run_id)
        self.check = _choose_prompts(texts, CHECK_PAIRS, f"{run.run_id} {number}")
        self.prompts = [*self.strip, *self.check]
        self._seeds = [*range(STRIP_IMAGES), *(CHECK_SEEDS + CHECK_PAIRS * number + i for i in range(CHECK_PAIRS))]
        encoded = dict(zip(texts, model.encode(texts, settings.negative), strict=True))
        self._rows = [encoded[prompt] for prompt in self.prompts]
        another = {text: encoded[texts[(place + 1) % len(texts)]] for place, text in enumerate(texts)}
        self._others = [another[prompt] for prompt in self.prompts] if len(texts) > 1 else None
        self._shape = model.latent_shape(settings.height, settings.width)
        self._plan = deterministic(model, settings)
        least = 2 * len(self.prompts) + (len(STRENGTHS) - 1) * STRIP_IMAGES  # more if a strength is refused
        self._drawn = counted(lambda done, total: show(done, max(done, total)), least)

    def draw(self, lora: LoraWeights | None, attachment: str, whole: bool) -> _Side:
        """Draw the strip, and the blind check too if `whole`."""
        latents, images = [], []
        with applied(self.model.denoiser, lora, attachment):
            for seed, row in list(zip(self._seeds, self._rows, strict=True))[: None if whole else STRIP_IMAGES]:
                noise = CandidateNoise(self.settings.seed, -1 - seed, 0, self._shape, "same")
                drawn = self.model.sample(self._plan, [noise], [row], self.settings.guidance_scale).latents
                latents.append(drawn.cpu())
                check_finite(drawn, "network")
                images += [check_finite(self.model.decode(drawn), "VAE").cpu()] if self.decodes else []
                self._drawn(1)
        return _Side(torch.cat(latents), torch.cat(images) if images else torch.empty(0))

    def adherence(self, latents: Tensor) -> Tensor:
        """Measure `prompt_adherence` of the drawn pictures by the base model."""
        how = (latents, self._rows, self.settings.guidance_scale, self._others)
        measure = partial(prompt_adherence, self.model.denoiser, *how)
        return self.model.evaluate([*self._rows, *(self._others or [])], self._shape, measure)

    @torch.no_grad()
    def features(self, side: _Side, kind: Kind, others: Sequence[Features]) -> Tensor:
        """Return what a judge sees of the drawn pictures, (B, F), float64."""
        if isinstance(kind, Joined):
            return torch.cat([self.features(side, part, others) for part in kind.parts], 1)
        if kind.name == NETWORK:
            how = (side.latents, self._rows, self.settings.guidance_scale, self.settings.batch)
            seen = self.model.evaluate(self._rows, self._shape, partial(describe, self.model.denoiser, *how))
            return torch.full((len(side.latents), 1), math.nan) if seen is None else seen.double()
        (features,) = [each for each in (*others, get_features(STATISTICS)) if each.name == kind.name]
        return features(side.images).double().cpu()

    def save_strip(self, sides: dict[str, _Side]) -> None:
        """Save strip images by side; not all at the end, as a person may stop before."""
        if not self.decodes:
            return
        images = {name: [to_image(image) for image in side.images[:STRIP_IMAGES]] for name, side in sides.items()}
        self.run.previews.save(self.number, self.strip, images)

    def save_check(self, before: _Side, after: _Side) -> None:
        """Save the pairs of the blind check."""
        if not self.decodes:
            return
        sides = ([to_image(image) for image in side.images[STRIP_IMAGES:]] for side in (before, after))
        self.run.blind_checks.add(self.number, self.check, *sides)


@dataclass(frozen=True)
class Effect:
    """What a round's LoRA did.

    Attributes:
        strength: the greatest of `STRENGTHS` that keeps the prompt and stays within the limit of drift.
        kept: strengths at which pictures were drawn, greatest first, each with the share of the prompt that is kept
            there, see `share_at`.
        previews, before, after: what was drawn for strip and blind check, at that strength.
    """

    strength: float
    kept: tuple[tuple[float, float], ...]
    previews: _Previews
    before: _Side
    after: _Side

    def win(self, judge: Judge, others: Sequence[Features] = ()) -> float | None:
        """Estimate how often the person would prefer a new picture; None where nothing can be seen of them.

        Args:
            judge: fitted to the run's picks.
            others: the features themselves that it sees beside statistics and the network.
        """
        if not self.previews.decodes:
            return None
        sides = [self.previews.features(side, judge.head.features, others) for side in (self.before, self.after)]
        if not all(side.isfinite().all() for side in sides):  # the network could not be heard this time
            return None
        return preferred(self.previews.run, judge, self.previews.prompts, *sides)


def _choose_prompts(texts: list[str], count: int, seed: str) -> list[str]:
    """Choose `count` prompts at random, each as often as the others, give or take one."""
    order = [texts[i] for i in torch.randperm(len(texts), generator=generator(seed))]
    return [order[i % len(order)] for i in range(count)]
