"""Draw groups into a run, with trajectories and images on disk, and images of one prompt without and with a LoRA."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

import torch
from torch import Tensor

from ..diffusion.denoiser import Conditioning
from ..diffusion.image_model import ImageModel, check_finite
from ..diffusion.rollout import CandidateNoise, SamplingPlan, Trajectory, duplicates, generator, make_plan, to_tensors
from ..evaluation.evaluate import Show, counted, deterministic, draw_all
from ..lora import LoraWeights
from ..run import Run
from ..run.records import JsonObject
from ..run.run import to_image
from ..settings import SampleSettings


@dataclass(frozen=True)
class SampledGroup:
    """A group that is now in the run, and how far sampling has come.

    Attributes:
        images: (candidates, 3, H, W) in [0, 1].
        latents: finished, (candidates, ...).
    """

    group_id: str
    done: int
    total: int
    images: Tensor
    latents: Tensor


class GroupFacts(TypedDict):
    """What `Groups.add` stores of a group beside tensors and images; see there."""

    prompt_id: int
    number: int
    seed: int
    candidates: int
    policy: str
    round: int
    settings: JsonObject
    held_out: bool
    near: list[int]


@dataclass(frozen=True)
class DrawnGroup:
    """A group that was drawn and has no images yet.

    Attributes:
        latents: finished, (candidates, ...).
        tensors: what a run keeps of its trajectory.
        about: the other arguments of `Groups.add`.
    """

    latents: Tensor
    tensors: dict[str, Tensor]
    about: GroupFacts

    def add_to(self, run: Run, images: Tensor) -> str:
        """Add the group to the run it was drawn for, and return its id.

        Args:
            images: (candidates, 3, H, W) in [0, 1].
        """
        return run.groups.add(**self.about, tensors=self.tensors, images=[to_image(image) for image in images])


def sample_groups(
    run: Run,
    model: ImageModel,
    settings: SampleSettings,
    prompts: list[str],
    policy: str = "base",
    round: int = 0,
    notes: JsonObject | None = None,
) -> Generator[SampledGroup, None, None]:
    """Draw groups, prompts interleaved in a shuffled order, and add each to the run as soon as it is decoded.

    Args:
        run: where to.
        model: the sampling policy, whatever LoRA is active belonging to it.
        settings: how it is drawn.
        prompts: at least one; every prompt is used once before any is used again.
        policy: id of the policy that samples, "base" or a LoRA's.
        round: the round it is for.
        notes: kept with each group's settings, JSON-able.

    Raises:
        D3POError: bad prompts or settings, before anything is drawn; a full disk, with what was drawn kept.
    """
    done = 0
    for batch in draw_groups(run, model, settings, prompts, policy, round, notes):
        images = decoded(model, batch)
        added = []  # all that is decoded, before anybody may stop this
        for drawn, part in zip(batch, images.split(settings.candidates), strict=True):
            done += 1
            added.append(SampledGroup(drawn.add_to(run, part), done, settings.groups, part, drawn.latents))
        yield from added


def decoded(model: ImageModel, batch: Sequence[DrawnGroup]) -> Tensor:
    """Decode groups that were drawn at once: images (groups * candidates, 3, H, W) in [0, 1]."""
    return check_finite(model.decode(torch.cat([drawn.latents for drawn in batch])), "VAE")


def draw_groups(
    run: Run,
    model: ImageModel,
    settings: SampleSettings,
    prompts: list[str],
    policy: str = "base",
    round: int = 0,
    notes: JsonObject | None = None,
) -> Iterator[list[DrawnGroup]]:
    """Draw groups for a run without decoding them, as many at once as `settings.batch` allows; see `sample_groups`."""
    drawing = GroupDrawing.begin(model, settings, policy, round, notes)
    for numbers, chosen in deal(run, settings, add_prompts(run, model, prompts, settings.negative)):
        yield drawing.draw(numbers, chosen, {each: run.prompts.conditioning(each) for each in chosen})


def deal(run: Run, settings: SampleSettings, ids: list[int]) -> Iterator[tuple[list[int], list[int]]]:
    """Yield the numbers of the groups that are drawn at once, and the ids of their prompts.

    Args:
        run: where the numbers are reserved, as late as possible.
        settings: how many groups, and how many images at once.
        ids: of the prompts.
    """
    at_once = max(1, settings.batch // settings.candidates)
    for done in range(0, settings.groups, at_once):
        numbers = [run.groups.next_number() for _ in range(min(at_once, settings.groups - done))]
        yield numbers, [ids[prompt_of(number, len(ids), settings.seed)] for number in numbers]


@dataclass(frozen=True)
class GroupDrawing:
    """How groups are drawn; it needs no run.

    Attributes:
        model: the sampling policy.
        plan, settings: how.
        policy, round, stored: as in `GroupFacts`, `stored` being their settings.
    """

    model: ImageModel
    plan: SamplingPlan
    settings: SampleSettings
    policy: str
    round: int
    stored: JsonObject

    @classmethod
    def begin(
        cls, model: ImageModel, settings: SampleSettings, policy: str, round: int, notes: JsonObject | None
    ) -> GroupDrawing:
        """Prepare to draw; see `sample_groups`."""
        plan = make_plan(model.denoiser, settings)
        return cls(model, plan, settings, policy, round, {**dataclasses.asdict(settings), **(notes or {})})

    def draw(
        self, numbers: Sequence[int], chosen: Sequence[int], conditioning: Mapping[int, Conditioning]
    ) -> list[DrawnGroup]:
        """Draw the groups of these numbers.

        Args:
            numbers: they decide the noise.
            chosen: the id of each group's prompt.
            conditioning: of these prompts, one row each.
        """
        settings = self.settings
        shape = self.model.latent_shape(settings.height, settings.width)
        noises = [
            CandidateNoise(settings.seed, number, candidate, shape, settings.start)
            for number in numbers
            for candidate in range(settings.candidates)
        ]
        rows = [row for each in chosen for row in [conditioning[each]] * settings.candidates]
        trajectory = _sample_in_parts(self.model, self.plan, noises, rows, settings)
        batch = []
        for i, number in enumerate(numbers):
            part = slice(i * settings.candidates, (i + 1) * settings.candidates)
            latents = trajectory.latents[part]
            about = GroupFacts(
                prompt_id=chosen[i],
                number=number,
                seed=settings.seed,
                candidates=settings.candidates,
                policy=self.policy,
                round=self.round,
                settings=self.stored,
                held_out=is_held_out(number, settings.held_out, settings.seed),
                near=duplicates(latents),
            )
            batch.append(DrawnGroup(latents, to_tensors(trajectory, part, self.plan), about))
        return batch


def check_drawable(model: ImageModel, settings: SampleSettings) -> None:
    """Check that a model can draw with these settings.

    Raises:
        D3POError: it cannot draw in this size, or has no such sampler or schedule.
    """
    make_plan(model.denoiser, settings)
    model.latent_shape(settings.height, settings.width)


def add_prompts(run: Run, model: ImageModel, prompts: list[str], negative: str) -> list[int]:
    """Return the ids of prompts in the run; those without conditioning are encoded first, all or none.

    Prompts that came with imported images are drawn for from now on.
    """
    stored = [prompt for prompt in run.prompts.all() if prompt.negative == negative]
    known = {prompt.text: prompt.id for prompt in stored}
    new = [
        text for text in dict.fromkeys(prompts) if text not in known or not run.prompts.has_conditioning(known[text])
    ]
    for text, conditioning in zip(new, model.encode(new, negative) if new else [], strict=True):
        for value in conditioning.values():
            check_finite(value, "text encoder")
        known[text] = run.prompts.add(text, negative)
        run.prompts.save_conditioning(known[text], conditioning)
    for prompt in stored:
        if prompt.text in prompts and not prompt.asked:
            run.prompts.add(prompt.text, negative)
    return [known[text] for text in prompts]


def _sample_in_parts(
    model: ImageModel,
    plan: SamplingPlan,
    noises: list[CandidateNoise],
    conditioning: list[Conditioning],
    settings: SampleSettings,
) -> Trajectory:
    """Sample all images, `settings.batch` at a time: a large group need not fit into memory at once."""
    parts = [
        model.sample(
            plan, noises[i : i + settings.batch], conditioning[i : i + settings.batch], settings.guidance_scale
        )
        for i in range(0, len(noises), settings.batch)
    ]
    for part in parts:
        check_finite(part.latents, "network")
    return Trajectory(*(torch.cat([getattr(part, f.name) for part in parts]) for f in dataclasses.fields(Trajectory)))


def prompt_of(number: int, prompts: int, seed: int) -> int:
    """Return the index of a group's prompt: all prompts are shuffled anew for every pass over them."""
    order = torch.randperm(prompts, generator=generator(seed, "prompts", number // prompts))
    return int(order[number % prompts])


def is_held_out(number: int, share: float, seed: int) -> bool:
    """Return whether a group is never trained on: one at random in every 1/share groups, chosen before it is drawn."""
    if share <= 0:
        return False
    block = int(number * share)
    first, last = math.ceil(block / share), math.ceil((block + 1) / share)
    return number == first + int(torch.randint(last - first, (), generator=generator(seed, "held out", block)))


@dataclass(frozen=True)
class BeforeAfter:
    """Images (P, S, 3, H, W) in [0, 1] of P prompts and S seeds, by the base model and with the LoRA."""

    before: Tensor
    after: Tensor


def draw_before_after(
    model: ImageModel,
    lora: LoraWeights,
    prompts: list[str],
    seeds: int,
    settings: SampleSettings,
    attachment: str,
    show: Show,
    first_seed: int = 0,
) -> BeforeAfter:
    """Draw by an ordinary deterministic sampler, without the LoRA and with it.

    Args:
        model: the base model.
        lora: used as it is; see `lora.weights.scale_weights` for another strength.
        prompts: P of them.
        seeds: images for each prompt, S.
        settings: as the run is sampled.
        attachment: how a LoRA is attached to this model.
        show: see `Show`.
        first_seed: seeds count from here.
    """
    plan, drawn = deterministic(model, settings), counted(show, 2 * len(prompts) * seeds)
    sides = (
        draw_all(model, weights, plan, prompts, seeds, settings, attachment, drawn, first_seed)
        for weights in (None, lora)
    )
    return BeforeAfter(*sides)
