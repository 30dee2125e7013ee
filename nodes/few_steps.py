"""Models that draw in few steps, known by their names: they are drawn with other numbers than most."""

from __future__ import annotations

import re

from ..d3po_core.settings import SampleSettings
from .upstream import Carried, files

NAMES = re.compile(
    r"lightning|turbo|schnell|(?<![a-z])(lcm|dmd2?|hyper[-_ ]?(sd|flux)|flash[-_ ]sd)(?![a-z])", re.IGNORECASE
)
MOST_STEPS = 12
MOST_GUIDANCE = 3.0


def advice(checkpoint: str, carried: Carried, chosen: SampleSettings) -> str:
    """A sentence, beginning with a space, if a few-step model or LoRA is drawn as others are; else ""."""
    names = [checkpoint, *(file for _, widgets in carried for file in files(widgets))]
    found = next(filter(NAMES.search, names), None)
    if found is None or (chosen.steps <= MOST_STEPS and chosen.guidance_scale <= MOST_GUIDANCE):
        return ""
    return f" {found} looks like a few-step model: 4 to 8 steps at guidance 1 to 2 suit most of them."
