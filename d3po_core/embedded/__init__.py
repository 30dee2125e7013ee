"""The embedded model: a tiny Stable-Diffusion-layout model of little garden pictures, and its judge.

Only paths here, so that importing the package costs nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

GARDEN = "garden"
"""The name of the embedded model."""
GARDEN_DEFAULTS: dict[str, Any] = {"guidance_scale": 2.5}
"""Sampling settings that the embedded model was made for."""

GARDEN_FOLDER = Path(__file__).parent / "garden"  # a StableDiffusionPipeline folder
CLASSIFIER_FOLDER = GARDEN_FOLDER / "judge"  # the judge's weights
