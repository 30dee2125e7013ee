"""Models that are distilled to few steps, or to draw without guidance: which they are, how to draw with them for a
taste, and which method cannot teach them.

A model is known by the names of its files, because nothing in its weights says so. How one draws and learns was
measured on a student of the embedded model (`benchmarks/few_step_garden.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..run import Run
from ..settings import SampleSettings
from .runs import newest_sample_settings, train_settings

WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
"""Of a file's name, also where only a capital begins it: sdxlTurbo."""
STEP_DISTILLED = re.compile(
    r"\b(?:"
    r"(?:sd|xl|sdxl|krea|image|flux|pony)?turbov?|schnell|lcm|tcd|dmd|zit|sprint|"
    r"lightning(?! (?:bolt|storm|strike|effect|magic|mage|style)s?\b)|"
    r"hyper(?= (?:sd|sdxl|flux|\d+ steps?)\b|$)|flash (?:sd|sdxl|flux)|[1-8] steps?|"
    r"flux (?:\d )*klein(?!.* base\b)|klein \d+ b(?!.* base\b)"
    r")\b"
)
"""Files of models, and of LoRAs that make one of any model. FLUX.2 [klein] is one, its base model is none."""
GUIDANCE_DISTILLED = re.compile(r"\bflux (?:\d )*(?:krea )?dev\b(?!.*\bde ?distill)")
"""Files of models that take guidance as an input, and draw without a negative prompt."""
MAX_STEPS, MAX_GUIDANCE = 12, 3.0
"""Beyond either a step-distilled model is drawn with as others are."""
NOT_FOR_FEW_STEPS = "diffusion-nft"
"""A method, see `method_warning`."""
FEW, LITTLE_GUIDANCE = 8, 1.5
"""Steps and guidance at most, with which none but a step-distilled model gives a picture."""


def words(name: str) -> str:
    """Return the words of a file's name in small letters with spaces between; digits are words of their own."""
    return " ".join(WORD.findall(name)).lower()


def step_distilled(names: Iterable[str]) -> str:
    """Return the first name that is a step-distilled model's or LoRA's, "" if there is none."""
    return next((name for name in names if STEP_DISTILLED.search(words(name))), "")


def guidance_distilled(names: Iterable[str]) -> str:
    """Return the first name that is a guidance-distilled model's and no step-distilled one's, "" if there is none."""
    names = list(names)
    if step_distilled(names):
        return ""
    return next((name for name in names if GUIDANCE_DISTILLED.search(words(name))), "")


def drawing_advice(names: Iterable[str], settings: SampleSettings, guidance_is_input: bool = False) -> str:
    """Return a sentence on how to draw with a distilled model, "" where it is drawn with so, or is none.

    Args:
        names: of the model's file and of LoRAs on it.
        settings: of drawing.
        guidance_is_input: whether a guidance-distilled network gets the guidance scale, as in diffusers; elsewhere the
            scale weighs a negative prompt.
    """
    names = list(names)
    if name := step_distilled(names):
        return step_advice(name, settings)
    name = guidance_distilled(names)
    if not name or guidance_is_input or settings.guidance_scale == 1:
        return ""
    return f"{name} looks like a guidance-distilled model: guidance 1 suits it, and takes half the time."


def step_advice(name: str, settings: SampleSettings) -> str:
    """Return a sentence on how to draw with a step-distilled model, "" where it is drawn with so.

    Args:
        name: of its file.
        settings: of drawing.
    """
    if settings.steps <= MAX_STEPS and settings.guidance_scale <= MAX_GUIDANCE:
        return ""
    return f"{name} looks like a few-step model: 4 to 8 steps at guidance 1 suit most of them."


def method_warning(method: str, names: Iterable[str], settings: SampleSettings) -> str:
    """Return a sentence if a method is not made for the model that draws the pictures; else "".

    DiffusionNFT's authors say that it does not support step-distilled models, because it is built on the loss of flow
    matching (Zheng et al. 2025, arXiv 2509.16117; https://github.com/NVlabs/DiffusionNFT/issues/45).

    Args:
        method: that picks are taught by.
        names: of the model's file and of LoRAs on it.
        settings: that pictures are drawn with.
    """
    name = step_distilled(names)
    few = settings.steps <= FEW and settings.guidance_scale <= LITTLE_GUIDANCE
    if method != NOT_FOR_FEW_STEPS or not (name or few):
        return ""
    drawn = f"{settings.steps} steps at guidance {settings.guidance_scale:g} are a step-distilled model's"
    seen = f"{name} looks like a step-distilled model" if name else drawn
    return f"{seen}, which {method} is not made for (its authors, arXiv 2509.16117, do not support them): use d3po."


def names_of(run: Run) -> list[str]:
    """Return the names that a run knows its model by: as it is shown, and that of its file or folder."""
    file = re.split(r"[\\/]", run.model.get("source", "").rstrip("\\/"))[-1]
    return [run.model.get("name", ""), file.removesuffix(".safetensors")]


def notices(run: Run, guidance_is_input: bool) -> list[str]:
    """Return what there is to say of a run's model when it is begun; see `drawing_advice` and `method_warning`."""
    names, settings = names_of(run), newest_sample_settings(run)
    advice = drawing_advice(names, settings, guidance_is_input)
    warning = method_warning(train_settings(run).method, names, settings)
    return [sentence for sentence in (advice, warning) if sentence]
