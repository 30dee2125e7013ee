"""What flow models need of Forge Neo: its levels of noise and its predictions, by its own functions.

Beside host.py, queue_host.py and register.py this is the only file that imports the host's modules.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

from torch import Tensor

from d3po_core.errors import D3POError

from . import host
from .flow_settings import FlowSettings
from .host import HostModel

BY_SIZE = "Flux2"
"""The schedule that depends on the size of images."""


def schedules() -> list[str]:
    """Return the host's names of all spacings of levels that can be chosen for a flow model."""
    from modules import sd_schedulers

    return [each.label for each in sd_schedulers.all_schedulers if each.function is not None]


def levels(model: HostModel, steps: int, settings: FlowSettings, size: Sequence[int]) -> Tensor:
    """Return a schedule's levels of noise as txt2img would have them, float64 (steps + 1,).

    Args:
        model: the host's.
        steps: number of steps.
        settings: schedule and shift.
        size: height and width in pixels, on which *Flux2* depends.

    Raises:
        D3POError: the host has no schedule of that name.
    """
    from k_diffusion.external import ForgeScheduleLinker
    from modules import sd_schedulers

    named = (each for each in sd_schedulers.all_schedulers if each.label == settings.schedule and each.function)
    if (schedule := next(named, None)) is None:
        raise D3POError(
            f"This web UI has no schedule type '{settings.schedule}'.",
            f"Begin anew with one of {', '.join(schedules())}.",
        )
    with _shifted(model, settings.slider):
        linker = ForgeScheduleLinker(host.predictor(model))
        given: dict[str, Any] = {
            "n": steps,
            "sigma_min": float(linker.sigmas[0]),
            "sigma_max": float(linker.sigmas[-1]),
        }
        if schedule.need_inner_model:
            given["inner_model"] = linker
        if schedule.label == BY_SIZE:
            given |= {"height": size[0], "width": size[1]}
        found = schedule.function(**given, device="cpu")
    return cast("Tensor", found).double().cpu()


@contextmanager
def _shifted(model: HostModel, shift: float) -> Iterator[None]:
    """Give a model's levels another shift for a while, if it takes one; what it predicts at a level stays the same."""
    if not shift or not model.use_shift:
        yield
        return
    before = host.predictor(model).shift
    model.set_shift(shift)
    try:
        yield
    finally:
        model.set_shift(before)


def predict(
    model: HostModel, x: Tensor, sigma: Tensor, cond: Mapping[str, Tensor], uncond: Mapping[str, Tensor] | None
) -> tuple[Tensor, Tensor | None]:
    """Predict the clean latents, with gradients if they are enabled.

    Args:
        model: the host's.
        x: noisy latents (B, ...).
        sigma: levels of noise (B,), on the device of x.
        cond, uncond: what the host's text encoder made of prompts and negative prompts, B rows of each; None evaluates
            the prompts only.

    Returns:
        Both branches, each like x; None for the one that was not evaluated.
    """
    from backend.sampling.condition import compile_conditions
    from backend.sampling.sampling_function import calc_cond_uncond_batch

    sides = [None if side is None else compile_conditions(_as_encoded(side)) for side in (cond, uncond)]
    with without_references(model):
        both = calc_cond_uncond_batch(model.forge_objects.unet.model, *sides, x, sigma, {})
    return both[0], None if uncond is None else both[1]


def _as_encoded(side: Mapping[str, Tensor]) -> object:
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
