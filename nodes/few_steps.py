"""Models that draw in few steps, known by their names: they are drawn with other numbers than most."""

from __future__ import annotations

import re

from ..d3po_core.settings import SampleSettings

NAMES = re.compile(r"lightning|turbo|lcm|schnell|hyper|dmd|flash|distill", re.IGNORECASE)
MOST_STEPS = 12
MOST_GUIDANCE = 3.0


def advice(checkpoint: str, chosen: SampleSettings) -> str:
    """A sentence, beginning with a space, if a few-step model is drawn as others are; else ""."""
    if not NAMES.search(checkpoint) or (chosen.steps <= MOST_STEPS and chosen.guidance_scale <= MOST_GUIDANCE):
        return ""
    return f" {checkpoint} looks like a few-step model: 4 to 8 steps at guidance 1 to 2 suit most of them."
