"""Every setting once: default, range, help, and whether it is advanced.

Command-line flags, node inputs and gradio controls are generated from these dataclasses, so a setting is added here and
nowhere else.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, TypeVar

from .errors import D3POError


def setting(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] | None = None,
    advanced: bool = False,
) -> Any:
    """A dataclass field that knows how to present itself."""
    return field(
        default=default, metadata={"help": help, "low": low, "high": high, "choices": choices, "advanced": advanced}
    )


@dataclass(frozen=True)
class SampleSettings:
    """How candidates are drawn."""

    groups: int = setting(32, "How many more groups to draw. You make one choice in each.", low=1, high=100_000)
    candidates: int = setting(
        4, "Images to choose from in each group. Four teach far more per click than two.", low=2, high=8
    )
    steps: int = setting(20, "Sampling steps.", low=1, high=1000)
    guidance_scale: float = setting(7.5, "Classifier-free guidance; 1 turns it off.", low=1.0, high=30.0)
    seed: int = setting(0, "Seed of the run. Group number and candidate are mixed in.", low=0, high=2**32 - 1)
    negative: str = setting("", "Negative prompt, for all groups.", advanced=True)
    width: int = setting(0, "Width in pixels; 0 takes the model's own.", low=0, high=8192, advanced=True)
    height: int = setting(0, "Height in pixels; 0 takes the model's own.", low=0, high=8192, advanced=True)
    sampler: str = setting(
        "ancestral",
        "How noise is injected: ancestral (DDIM with eta; also for flow models), flow_sde (Flow-GRPO), lcm.",
        choices=("ancestral", "flow_sde", "lcm"),
        advanced=True,
    )
    schedule: str = setting(
        "model", "Spacing of noise levels: the model's own, or karras.", choices=("model", "karras"), advanced=True
    )
    eta: float = setting(1.0, "Amount of noise in a stochastic step.", low=0.01, high=2.0, advanced=True)
    window: str = setting(
        "early",
        "Which steps carry noise and can be trained: early (noise level at least window_sigma), first (the first "
        "window_fraction of the steps), all (as published).",
        choices=("early", "first", "all"),
        advanced=True,
    )
    window_sigma: float = setting(
        2.5, "For window early: lowest noise-to-signal ratio at which a step still starts.", low=0.0, advanced=True
    )
    window_fraction: float = setting(
        0.3, "For window first: share of the steps, at least one step.", low=0.0, high=1.0, advanced=True
    )
    noise: str = setting(
        "window",
        "Inject noise in the window only, with deterministic steps after it, or in all steps.",
        choices=("window", "all"),
        advanced=True,
    )
    start: str = setting(
        "same",
        "Starting noise within a group: the same for all candidates, or independent.",
        choices=("same", "independent"),
        advanced=True,
    )
    held_out: float = setting(
        0.125,
        "Share of groups never trained on, drawn at random, that show whether the taste is understood.",
        low=0.0,
        high=0.5,
    )
    batch: int = setting(8, "Images sampled at once. Lower it when memory runs out.", low=1, high=1024)


@dataclass(frozen=True)
class LoraSettings:
    """What is trained."""

    rank: int = setting(8, "Rank of the LoRA: its capacity.", low=1, high=512)
    alpha: float = setting(8.0, "Scale of the LoRA is alpha / rank.", low=0.001, high=1024, advanced=True)
    targets: str = setting(
        "attention",
        "Layers that get a LoRA: attention (projections), attention+feedforward, all (convolutions too).",
        choices=("attention", "attention+feedforward", "all"),
        advanced=True,
    )


@dataclass(frozen=True)
class TrainSettings:
    """How picks become a LoRA."""

    method: str = setting(
        "d3po",
        "How judgements teach. Of recorded steps: d3po (pairs), ddpo and dpok (scores). Of finished pictures, which "
        "may come from anywhere: diffusion-dpo (pairs), diffusion-kto (likes and dislikes), diffusion-nft (scores).",
        choices=("d3po", "ddpo", "dpok", "diffusion-dpo", "diffusion-kto", "diffusion-nft"),
        advanced=True,
    )
    level: str = setting(
        "trajectory",
        "For d3po: compare whole trajectories (log-ratios summed over steps) or every step by itself, as published.",
        choices=("trajectory", "step"),
        advanced=True,
    )
    beta: float = setting(
        0.0,
        "The method's beta; 0 takes its own. For d3po the weight of the log-ratio, a mean over latent elements: its "
        "own, 205, is .2 on a sum of 1,024; published: .1.",
        low=0.0,
        advanced=True,
    )
    clip: float = setting(
        0.0,
        "Clamp each probability ratio to 1 +/- this; 0 takes the method's own: for d3po not to. Published: .1.",
        low=0,
        high=1,
        advanced=True,
    )
    guided_loss: bool = setting(
        False, "Loss on the guided policy. Off: on the conditional branch, which learns faster.", advanced=True
    )
    reference: str = setting(
        "base", "Policy that training departs from.", choices=("base", "last_round"), advanced=True
    )
    reevaluate_reference: bool = setting(
        False,
        "Evaluate the reference anew instead of trusting what was recorded: for a model that has changed since.",
        advanced=True,
    )
    epochs: int = setting(4, "Times that every pick is used.", low=1, high=1000)
    learning_rate: float = setting(
        0.0, "AdamW's learning rate; 0 takes the method's own, 1e-3 for d3po.", low=0.0, high=1.0, advanced=True
    )
    draws: int = setting(
        4, "For methods of finished pictures: noise levels drawn for each update.", low=1, high=64, advanced=True
    )
    lowest_sigma: float = setting(
        2.5,
        "For methods of finished pictures: lowest noise-to-signal ratio that they are noised to.",
        low=0.0,
        advanced=True,
    )
    batch: int = setting(4, "Pairs per update; whole groups are taken until there are as many.", low=1, high=4096)
    warmup: int = setting(4, "Updates over which the learning rate rises.", low=0, high=10_000, advanced=True)
    grad_clip: float = setting(1.0, "Largest gradient norm.", low=1e-6, advanced=True)
    label_smoothing: float = setting(
        0.0, "Share of picks taken to be mistaken (conservative DPO).", low=0.0, high=0.49, advanced=True
    )
    cross_check: bool = setting(
        True,
        "Predict each half of the picks from the other first, to see how long to train and how far to trust it.",
        advanced=True,
    )
    drift_limit: float = setting(
        0.06,
        "Stop when the KL from base passes this many nats per image and latent element; 0 is off.",
        low=0.0,
        advanced=True,
    )
    patience: int = setting(
        2,
        "Without cross_check: stop after so many epochs without a better held-out loss; 0 never.",
        low=0,
        high=1000,
        advanced=True,
    )
    micro_batch: int = setting(
        0, "(image, step) rows per backward pass; 0 finds it by memory.", low=0, high=65536, advanced=True
    )
    checkpointing: bool = setting(False, "Recompute activations: less memory, slower.", advanced=True)
    seed: int = setting(0, "Seed of shuffling and of the LoRA's start.", low=0, high=2**32 - 1, advanced=True)


@dataclass(frozen=True)
class RewardSettings:
    """How a differentiable reward becomes a LoRA."""

    variant: str = setting(
        "draft-lv",
        "draft-lv: the last step, at several fresh noises. draft-k: the last steps. draft: all steps. refl: one late "
        "step, another one each time.",
        choices=("draft-lv", "draft-k", "draft", "refl"),
    )
    updates: int = setting(30, "How often the LoRA is changed.", low=1, high=100_000)
    last: int = setting(1, "For draft-k: steps that the reward is followed through.", low=1, high=1000, advanced=True)
    noises: int = setting(2, "For draft-lv: fresh noises for each picture.", low=1, high=64, advanced=True)
    batch: int = setting(4, "Pictures per update.", low=1, high=1024, advanced=True)
    learning_rate: float = setting(1e-3, "AdamW's learning rate.", low=1e-8, high=1.0, advanced=True)
    warmup: int = setting(4, "Updates over which the learning rate rises.", low=0, high=10_000, advanced=True)
    grad_clip: float = setting(1.0, "Largest gradient norm.", low=1e-6, advanced=True)
    drift_limit: float = setting(
        0.06,
        "Stop when the KL from base passes this many nats per image and latent element; 0 is off. A reward that is "
        "climbed too far ruins pictures.",
        low=0.0,
        advanced=True,
    )
    watch: int = setting(5, "Updates between two measures of reward and drift.", low=1, high=10_000, advanced=True)
    micro_batch: int = setting(
        0, "Pictures per backward pass; 0 takes all, and fewer when memory runs out.", low=0, high=1024, advanced=True
    )
    checkpointing: bool = setting(
        True, "Keep only the latents between steps, and recompute the rest: less memory, slower.", advanced=True
    )
    tile: int = setting(
        0,
        "Decode in overlapping tiles of so many pixels a side, where a whole picture is too much for the memory; 0 "
        "decodes whole. Tiles may differ a little in tone.",
        low=0,
        high=8192,
        advanced=True,
    )
    seed: int = setting(0, "Seed of prompts and noises, and of the LoRA's start.", low=0, high=2**32 - 1, advanced=True)


Settings = TypeVar("Settings", SampleSettings, LoraSettings, TrainSettings, RewardSettings)

METHOD_DEFAULTS: dict[str, dict[str, float]] = {
    "d3po": {"beta": 205.0, "clip": 0.0, "learning_rate": 1e-3},
    "ddpo": {"beta": 0.0, "clip": 0.01, "learning_rate": 5e-4},
    "dpok": {"beta": 0.1, "clip": 0.01, "learning_rate": 5e-4},
    "diffusion-dpo": {"beta": 2000.0, "clip": 0.0, "learning_rate": 1e-3},
    "diffusion-kto": {"beta": 2000.0, "clip": 0.0, "learning_rate": 1e-3},
    "diffusion-nft": {"beta": 0.1, "clip": 0.0, "learning_rate": 1e-3},
}
"""What a setting that was left at 0 is, for each method."""

_STEPS, _IMAGES = METHOD_DEFAULTS["d3po"]["beta"], METHOD_DEFAULTS["diffusion-dpo"]["beta"]
SHARPNESS = {"ddpo": _STEPS, "dpok": _STEPS, "diffusion-nft": _IMAGES}
"""For methods whose beta is no inverse temperature: that of their log-ratios where they foretell picks, which is that
of the method of pairs on the same rows."""


def resolved(settings: TrainSettings) -> TrainSettings:
    """The settings with every 0 that stands for the method's own value replaced by it."""
    own: dict[str, Any] = {
        name: getattr(settings, name) or value for name, value in METHOD_DEFAULTS[settings.method].items()
    }
    return dataclasses.replace(settings, **own)


PUBLISHED: dict[str, dict[str, Any]] = {
    "sample": {"window": "all", "noise": "all", "eta": 1.0},
    "train": {"level": "step", "beta": 0.1, "clip": 0.1, "guided_loss": True, "cross_check": False, "drift_limit": 0.0},
}
"""D3PO as in the authors' code (Yang et al. 2024, arXiv 2311.13231, and its repository): mean log-prob, ratio clamped
to 1 +/- .1, beta .1, every step by itself. The default preset is the dataclasses' own defaults."""

PRESETS: dict[str, dict[str, dict[str, Any]]] = {"taste": {}, "published": PUBLISHED}

OF_D3PO = ("level", "beta", "clip")
"""What a preset says of these holds for D3PO alone."""


def preset_values(name: str, method: str = TrainSettings.method) -> dict[str, dict[str, Any]]:
    """What a preset sets, by section, where this method is taught with.

    Args:
        name: of `PRESETS`.
        method: as in `TrainSettings`.
    """
    values = PRESETS[name]
    if method == "d3po" or "train" not in values:
        return values
    return {**values, "train": {key: value for key, value in values["train"].items() if key not in OF_D3PO}}


def validate(settings: Settings) -> Settings:
    """The settings themselves, once every value is in range.

    Raises:
        D3POError: names the setting, its value and its range or choices.
    """
    for item in dataclasses.fields(settings):
        value, meta = getattr(settings, item.name), item.metadata
        low, high, choices = meta["low"], meta["high"], meta["choices"]
        if choices and value not in choices:
            raise D3POError(f"{item.name} is '{value}'.", f"Choose one of {', '.join(choices)}.")
        if (low is not None and not value >= low) or (high is not None and not value <= high):
            span = f"between {low:g} and {high:g}" if high is not None else f"at least {low:g}"
            raise D3POError(f"{item.name} is {value}.", f"Choose a value {span}.")
    return settings


def replace(settings: Settings, values: dict[str, Any]) -> Settings:
    """A checked copy with some values changed.

    Raises:
        D3POError: a name is unknown, or a value has the wrong type or is out of range.
    """
    known = {item.name: item for item in dataclasses.fields(settings)}
    for name, value in values.items():
        if name not in known:
            raise D3POError(f"There is no setting called '{name}'.", f"Known are {', '.join(known)}.")
        kind = type(known[name].default)
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            values = {**values, name: float(value)}
        elif type(value) is not kind:
            raise D3POError(f"{name} is {value!r}.", f"It must be of type {kind.__name__}.")
    return validate(dataclasses.replace(settings, **values))
