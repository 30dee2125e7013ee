"""The embedded model: a tiny model of garden images in the layout of Stable Diffusion, and a classifier of its images.

| file | what is in it |
|---|---|
| `garden/` | the model, as a StableDiffusionPipeline folder; `garden/judge/` has the classifier's weights |
| `classifier` | `GardenClassifier`, which says what an image shows |

`tools/garden` has what made the model, and README.md tells of it. This file has names, paths and the 60
prompts, with their split for preference learning; importing it takes no time.
"""

from __future__ import annotations

import re
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

KINDS = ("tulip", "daisy", "poppy", "bellflower")
COLOURS = ("red", "yellow", "blue", "white", "purple")
SKIES = ("by day", "at sunset", "at night")
ATTRIBUTES = {"kind": KINDS, "colour": COLOURS, "sky": SKIES}
PROMPTS = [f"a {colour} {kind} {sky}" for kind in KINDS for colour in COLOURS for sky in SKIES]


def parse(prompt: str) -> dict[str, str]:
    """Return the attributes that a prompt names, such as {"kind": "tulip", "colour": "red", "sky": "by day"}."""
    text = prompt.lower()
    found = {name: [v for v in values if re.search(rf"\b{v}\b", text)] for name, values in ATTRIBUTES.items()}
    return {name: values[0] for name, values in found.items() if values}


def split_prompts() -> tuple[list[str], list[str]]:
    """Return 44 training and 16 held-out prompts, the latter balanced over kinds, colours and skies."""
    held = [
        f"a {colour} {kind} {SKIES[(k + c) % 3]}"
        for k, kind in enumerate(KINDS)
        for c, colour in enumerate(COLOURS)
        if k != c
    ]
    return [prompt for prompt in PROMPTS if prompt not in held], held
