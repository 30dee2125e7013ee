"""What flow models need of Forge Neo: its levels of noise and its predictions, by its own functions.

Beside host.py, queue_host.py and register.py this is the only file that imports the host's modules.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import cast

from torch import Tensor

from d3po_core.errors import D3POError

from . import host
from .flow_settings import FlowSettings
from .host import HostModel

Branch = Mapping[str, Tensor]
"""What the host's text encoder made of prompts, or of negative prompts, by the host's names; B rows of each."""
PURE = 0.999
"""Least level that a schedule begins with, where what is drawn begins as pure noise."""


def schedules() -> list[str]:
    """Return the host's names of the spacings of levels that can be chosen."""
    from modules import sd_schedulers

    return [each.label for each in sd_schedulers.schedulers]


def levels(model: HostModel, steps: int, settings: FlowSettings, size: Sequence[int]) -> Tensor:
    """Return a schedule's levels of noise as txt2img has them with Euler's samplers, float64 (steps + 1,).

    Args:
        model: the host's.
        steps: number of steps.
        settings: schedule and shift.
        size: height and width in pixels, on which *Flux2* depends.

    Raises:
        D3POError: the host has no schedule of that name, or its levels do not lead from pure noise to a picture.
    """
    from modules import sd_samplers, sd_schedulers

    name = settings.schedule
    if name not in sd_schedulers.schedulers_map:
        raise D3POError(f"This web UI has no schedule type '{name}'.", f"Choose one of {', '.join(schedules())}.")
    process = SimpleNamespace(
        scheduler=name,
        is_hr_pass=False,
        sampler_noise_scheduler_override=None,
        extra_generation_params={},
        sd_model=model,
        height=size[0],
        width=size[1],
    )
    with _shifted(model, settings.slider):
        sampler = sd_samplers.create_sampler("Euler a", model)
        own = cast("Tensor", sampler.get_sigmas(process, steps)).double().cpu()
    if len(own) != steps + 1 or not PURE <= own[0] <= 1 or not bool((own.diff() < 0).all()):
        raise D3POError(
            f"The schedule type '{name}' does not lead this model from pure noise to a picture in {steps} steps.",
            "Choose Simple.",
        )
    return own


@contextmanager
def _shifted(model: HostModel, shift: float) -> Iterator[None]:
    """Give a model that takes a shift that one, or its own for 0, for a while; the user's last picture has left one.

    What it predicts at a level of noise stays the same.
    """
    if not model.use_shift:
        yield
        return
    before = host.predictor(model).shift
    model.set_shift(shift or model.model_config.sampling_settings.get("shift", 1.0))
    try:
        yield
    finally:
        model.set_shift(before)


def predict(
    model: HostModel, x: Tensor, sigma: Tensor, cond: Branch, uncond: Branch | None
) -> tuple[Tensor, Tensor | None]:
    """Predict the clean latents, with gradients if they are enabled; branches of equal length in one pass.

    Args:
        model: the host's.
        x: noisy latents (B, ...).
        sigma: levels of noise (B,), on the device of x.
        cond, uncond: both sides; None evaluates the prompts only.

    Returns:
        Both branches, each like x; None for the one that was not evaluated.
    """
    from backend.sampling.condition import compile_conditions
    from backend.sampling.sampling_function import calc_cond_uncond_batch

    def evaluate(one: Branch, other: Branch | None) -> tuple[Tensor, Tensor]:
        sides = [None if side is None else compile_conditions(_as_encoded(side)) for side in (one, other)]
        return cast("tuple[Tensor, Tensor]", calc_cond_uncond_batch(network, *sides, x, sigma, {}))

    network = model.forge_objects.unet.model
    with without_references(model):
        if uncond is None:
            return evaluate(cond, None)[0], None
        if cond["crossattn"].shape != uncond["crossattn"].shape:
            return evaluate(cond, None)[0], evaluate(uncond, None)[0]
        return evaluate(cond, uncond)


def of_one_length(cond: Branch, uncond: Branch) -> tuple[Branch, Branch]:
    """Repeat the tokens of both branches to one length, where the host does so to evaluate them in one pass.

    To transformers that is another text. So a prompt's own branch depends on its negative prompt, also where it is
    evaluated alone.
    """
    from backend.sampling.condition import ConditionCrossAttn

    texts = [side["crossattn"] for side in (cond, uncond)]
    first, second = map(ConditionCrossAttn, texts)
    if texts[0].shape == texts[1].shape or texts[0].dim() != 3 or not first.can_concat(second):
        return cond, uncond
    both = first.concat([second]).chunk(2)
    return {**cond, "crossattn": both[0]}, {**uncond, "crossattn": both[1]}


def _as_encoded(side: Branch) -> object:
    """Return a branch as the host's text encoder gave it: a tensor where there is nothing beside the tokens."""
    return dict(side) if len(side) > 1 else side["crossattn"]


@contextmanager
def without_references(model: HostModel) -> Iterator[None]:
    """Keep pictures that the user edits elsewhere in the host out of what a model sees, for a while."""
    if not host.is_flow(model):
        yield
        return
    from backend.args import dynamic_args

    before = dynamic_args.ref_latents, model.ref_latents, model.ini_latent
    dynamic_args.ref_latents, model.ref_latents, model.ini_latent = [], [], None
    try:
        yield
    finally:
        dynamic_args.ref_latents, model.ref_latents, model.ini_latent = before
