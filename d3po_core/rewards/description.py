"""What is known of a run's pictures: statistics, computed when needed, and what else was noted and is kept with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from typing import cast

import torch
from torch import Tensor

from ..diffusion.denoiser import Denoiser
from ..errors import D3POError, check_stop
from ..run import Run
from ..run.run import read_images
from .activations import describe
from .features import NETWORK, STATISTICS, Features, Joined, Kind, Noted, get_features

Looked = Callable[[int, int], object]
"""Called with how many groups were looked at, and how many there are; what it raises ends that."""
NEARLY_ALL = 0.9
"""Share of groups of which something must have been noted so that a judge looks at it."""


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


def seen_in(run: Run, group_ids: Collection[str], kinds: Collection[str]) -> Kind:
    """Return what groups are described by: statistics, and beside them what was noted of nearly all of them.

    Where a kind is used, the few groups that lack it (a damaged or imported one) are left out.

    Args:
        run: the run.
        group_ids: of groups.
        kinds: names of what may have been noted.
    """
    noted = Counter[tuple[str, int]]()
    for group_id in group_ids:
        noted.update((name, value.shape[-1]) for name, value in run.groups.features(group_id).items() if name in kinds)
    parts = [Noted(*each) for each, count in sorted(noted.items()) if count >= NEARLY_ALL * len(group_ids)]
    statistics = get_features(STATISTICS)
    return Joined([statistics, *parts]) if parts else statistics


@torch.no_grad()
def note_network(run: Run, denoiser: Denoiser, show: Looked = lambda done, total: None) -> None:
    """Note what the network sees in the pictures of groups of which that is not known yet.

    Args:
        run: the run.
        denoiser: the base model, which drew its pictures.
        show: called before each group; what was noted stays.
    """
    drawn = [group for group in run.groups.select(freed=False) if run.prompts.has_conditioning(group.prompt_id)]
    unseen = [group for group in drawn if NETWORK not in run.groups.features(group.id)]
    for done, group in enumerate(unseen):
        show(done, len(unseen))
        with suppress(D3POError):  # damaged groups are told of where they are needed
            latents = run.groups.trajectory(group.id).get("latents")
            if latents is not None:
                rows = [run.prompts.conditioning(group.prompt_id)] * len(latents)
                guidance_scale, at_once = group.settings.get("guidance_scale", 1.0), group.settings.get("batch", 1)
                seen = describe(denoiser, latents, rows, guidance_scale, at_once)
                if seen is not None:
                    note(run, group.id, NETWORK, seen)


def note_features(run: Run, features: Features) -> None:
    """Note features of every picture that has none of this name yet, so that a judge sees them too.

    Stopped, it keeps what was noted.

    Args:
        run: the run.
        features: by a name that no others have.
    """
    for group in run.groups.select():
        if features.name not in run.groups.features(group.id):
            check_stop()
            with suppress(D3POError, OSError), torch.no_grad():
                note(run, group.id, features.name, features(read_images(run, group)).cpu())


def note(run: Run, group_id: str, name: str, features: Tensor) -> None:
    """Keep features (C, F) of a group's candidates by a name, where the disk allows."""
    with suppress(D3POError):  # a full disk costs time only
        run.groups.save_features(group_id, {name: features.float()})
