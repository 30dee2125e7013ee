"""What is known of a run's pictures: statistics, computed when needed, and what else was noted and is kept with it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from typing import cast

import torch
from torch import Tensor

from ..diffusion.denoiser import Conditioning
from ..diffusion.image_model import ImageModel
from ..errors import D3POError
from ..run import Run
from ..run.run import read_images
from ..settings import SampleSettings
from .activations import describe
from .features import NETWORK, STATISTICS, Features, Joined, Kind, Noted, get_features


def described(run: Run, group_ids: Iterable[str], kind: Kind) -> dict[str, Tensor]:
    """Return what describes each group's candidates, (C, F), float64, by group id.

    Groups are left out of which an image is missing or damaged, or something was not noted.
    """
    found: dict[str, Tensor] = {}
    for group_id in group_ids:
        with suppress(D3POError, OSError, KeyError):  # Pillow's errors are of the second kind
            found[group_id] = group_features(run, group_id, kind)
    return found


@torch.no_grad()
def group_features(run: Run, group_id: str, kind: Kind) -> Tensor:
    """Return what describes a group's candidates, (C, F), float64; statistics of the images are computed only once.

    Raises:
        KeyError: something was not noted of this group.
        D3POError, OSError: an image is missing or damaged.
    """
    if isinstance(kind, Joined):
        return torch.cat([group_features(run, group_id, part) for part in kind.parts], 1)
    keep = kind.name == STATISTICS or isinstance(kind, Noted)
    kept = run.groups.features(group_id).get(kind.name) if keep else None
    if kept is not None and kept.shape[-1] == len(kind.scales[0]):
        return kept.double()
    if isinstance(kind, Noted):
        raise KeyError(kind.name)
    computed = cast(Features, kind)(read_images(run, run.groups.get(group_id))).cpu()
    if keep:
        note(run, group_id, kind.name, computed)
    return computed.double()


def seen_in(run: Run, group_ids: Iterable[str], kinds: Collection[str] | None = None) -> Kind:
    """Return all that every one of these groups is described by: statistics, and beside them what was noted.

    Args:
        run: the run.
        group_ids: of groups.
        kinds: of what was noted, those that are asked for; None for all.
    """
    widths: dict[str, int] | None = None
    for group_id in group_ids:
        noted = {name: value.shape[-1] for name, value in run.groups.features(group_id).items() if name != STATISTICS}
        widths = noted if widths is None else {name: n for name, n in widths.items() if noted.get(name) == n}
    parts = [Noted(name, n) for name, n in sorted((widths or {}).items()) if kinds is None or name in kinds]
    statistics = get_features(STATISTICS)
    return Joined([statistics, *parts]) if parts else statistics


def note_network(run: Run, model: ImageModel, settings: SampleSettings) -> None:
    """Note what the network sees in the pictures of groups that were drawn or imported without that.

    Args:
        run: the run.
        model: the base model.
        settings: as the run is sampled.
    """
    for group in run.groups.select(freed=False):
        if NETWORK in run.groups.features(group.id):
            continue
        with suppress(D3POError):  # damaged groups are told of where they are needed
            latents = run.groups.trajectory(group.id).get("latents")
            if latents is not None and run.prompts.has_conditioning(group.prompt_id):
                rows = [run.prompts.conditioning(group.prompt_id)] * len(latents)
                seen = describe_drawn(model, latents, rows, settings)
                if seen is not None:
                    note(run, group.id, NETWORK, seen)


def note_features(run: Run, features: Features) -> None:
    """Note features of every picture that has none of this name yet, so that a judge sees them too."""
    for group in run.groups.select():
        if features.name not in run.groups.features(group.id):
            with suppress(D3POError, OSError), torch.no_grad():
                note(run, group.id, features.name, features(read_images(run, group)).cpu())


def describe_drawn(
    model: ImageModel, latents: Tensor, conditioning: Sequence[Conditioning], settings: SampleSettings
) -> Tensor | None:
    """Describe pictures by what the network sees in them, where the model can be called; see `describe`."""

    def work() -> Tensor | None:
        return describe(model.denoiser, latents, conditioning, settings.guidance_scale, settings.batch)

    return model.evaluate(conditioning, latents.shape[1:], work)


def note(run: Run, group_id: str, name: str, features: Tensor) -> None:
    """Keep features (C, F) of a group's candidates by a name, where the disk allows."""
    with suppress(D3POError):  # a full disk costs time only
        run.groups.save_features(group_id, {name: features.float()})
