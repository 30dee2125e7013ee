"""The embedded model: a tiny model of garden images in the layout of Stable Diffusion, and a classifier of its images.

| file | what is in it |
|---|---|
| `garden/` | the model, as a StableDiffusionPipeline folder; `garden/judge/` has the classifier's weights |
| `prompts` | the 60 prompts, their attributes, and their split for preference learning |
| `classifier` | `GardenClassifier`, which says what an image shows |

`tools/garden` has what made the model, and README.md tells of it. This file has names and paths only, so that importing
it takes no time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

GARDEN = "garden"
"""The name of the embedded model."""
GARDEN_DEFAULTS: dict[str, Any] = {"guidance_scale": 2.5}
"""Sampling settings that the embedded model was made for."""
GARDEN_FOLDER = Path(__file__).parent / "garden"
"""The model, as a StableDiffusionPipeline folder."""
CLASSIFIER_FOLDER = GARDEN_FOLDER / "judge"
"""The classifier's weights."""
