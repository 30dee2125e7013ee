"""The rewards that need no file, by name."""

from __future__ import annotations

import dataclasses

from . import colours, garden, jpeg, smooth_jpeg
from .reward import Reward

REWARDS: dict[str, Reward] = {
    reward.name: dataclasses.replace(reward, written=reward.name)
    for reward in (
        Reward("compressibility", "images that make a small JPEG: smooth, empty, blurred", jpeg.compressibility, False),
        Reward("incompressibility", "images that make a large JPEG: busy, grainy", jpeg.incompressibility, False),
        Reward("warmth", "warm colours: mean of red minus mean of blue", colours.warmth, True),
        Reward("contrast", "light beside dark: the spread of brightness", colours.contrast, True),
        Reward(
            "smooth-compressibility",
            "as compressibility, by a size that has a gradient",
            smooth_jpeg.smooth_compressibility,
            True,
        ),
        Reward(
            "smooth-incompressibility",
            "as incompressibility, by a size that has a gradient",
            smooth_jpeg.smooth_incompressibility,
            True,
        ),
        Reward("garden-size", "large blooms (embedded model only)", garden.garden_size, True),
        Reward("garden-lean", "flowers that lean to the right (embedded model only)", garden.garden_lean, True),
    )
}
