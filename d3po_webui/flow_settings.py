"""How a flow model draws in Forge Neo, beside what holds for every model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from d3po_core.diffusion.image_model import ImageModel
from d3po_core.errors import D3POError

SECTION = "flow"
"""In a run's settings: a `FlowSettings`, where the model is a flow model."""
MAX_SLIDER = 24


@dataclass(frozen=True)
class FlowSettings:
    """A flow model's own settings.

    Attributes:
        slider: the host's *Distilled CFG Scale*, which is an input of networks that were distilled with guidance, and
            the shift of the levels of noise for others; 0 is the model's own.
        schedule: the host's name of how the levels are spaced.
    """

    slider: float = 0.0
    schedule: str = "Simple"

    def __post_init__(self) -> None:
        if not 0 <= self.slider <= MAX_SLIDER:
            wrong = f"Distilled CFG Scale or Shift is {self.slider:g}."
            raise D3POError(wrong, f"Choose 0 for the model's own, or up to {MAX_SLIDER}.")

    def section(self) -> dict[str, object]:
        """Return the entry of a run's settings."""
        return {SECTION: dataclasses.asdict(self)}


class FlowModel(ImageModel, Protocol):
    """The host's flow model."""

    def drawing(self, height: int, width: int, settings: FlowSettings) -> ImageModel:
        """Return the same model for images of a size in pixels, 0 for its own, that are drawn by these settings."""


def stored(settings: Mapping[str, Mapping[str, Any]]) -> FlowSettings:
    """Return what a run's settings say; the model's own where they say nothing."""
    own, section = FlowSettings(), settings.get(SECTION, {})
    return FlowSettings(section.get("slider", own.slider), section.get("schedule", own.schedule))
