"""The prompts of the embedded model: "a {colour} {kind} {sky}"."""

from __future__ import annotations

import re

KINDS = ("tulip", "daisy", "poppy", "bellflower")
COLOURS = ("red", "yellow", "blue", "white", "purple")
SKIES = ("by day", "at sunset", "at night")
ATTRIBUTES = {"kind": KINDS, "colour": COLOURS, "sky": SKIES}
PROMPTS = [f"a {colour} {kind} {sky}" for kind in KINDS for colour in COLOURS for sky in SKIES]


def parse(prompt: str) -> dict[str, str]:
    """Return the attributes that a prompt names, such as {"kind": "tulip", "colour": "red", "sky": "by day"}."""
    text = prompt.lower()
    named = {}
    for name, values in ATTRIBUTES.items():
        for value in values:
            if re.search(rf"\b{value}\b", text):
                named[name] = value
                break
    return named


def split_prompts() -> tuple[list[str], list[str]]:
    """Return 44 training and 16 held-out prompts, the latter balanced over kinds, colours and skies."""
    held = [
        f"a {colour} {kind} {SKIES[(k + c) % 3]}"
        for k, kind in enumerate(KINDS)
        for c, colour in enumerate(COLOURS)
        if k != c
    ]
    return [prompt for prompt in PROMPTS if prompt not in held], held
