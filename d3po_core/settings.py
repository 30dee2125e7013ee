"""Every setting once: default, range, help, and whether it is advanced.

Command-line flags, node inputs and gradio controls are made from these dataclasses, so what a setting is stands here
and nowhere else; its place in a node is in `nodes/`.
"""

from __future__ import annotations

import csv
import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from .errors import D3POError


def setting(
    default: object,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] | None = None,
    advanced: bool = False,
    kind: type | None = None,
) -> Any:
    """Return a dataclass field that knows how to present itself.

    Args:
        default: the value where nobody chose one; None where the method decides.
        help: one sentence or two.
        low, high: the range, ends included.
        choices: the only values.
        advanced: hidden until somebody asks for it.
        kind: type of the value; needed where the default is None.
    """
    facts = {"help": help, "low": low, "high": high, "choices": choices, "advanced": advanced}
    return field(default=default, metadata={**facts, "kind": kind or type(default)})


def keep_prompt_setting() -> Any:
    """Return the field of both kinds of training that limits what the prompt may lose."""
    return setting(
        0.9,
        "Least share of the prompt that pictures of the LoRA keep, by the base model's own judgement; it is used "
        "weaker until then. 0 is off.",
        low=0.0,
        high=1.0,
        advanced=True,
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
        "related",
        "Starting noises within a group: related (half of their variance is shared), the same for all, as published, "
        "or independent.",
        choices=("related", "same", "independent"),
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
        "auto",
        "Layers that get a LoRA: attention (projections), attention+feedforward, all (convolutions too, which decide "
        "where things are); fewer need less memory. auto: all for picks, attention where a reward is followed.",
        choices=("auto", "attention", "attention+feedforward", "all"),
        advanced=True,
    )

    def with_targets(self, own: str) -> LoraSettings:
        """Return the settings with these targets where they are automatic."""
        return dataclasses.replace(self, targets=own) if self.targets == "auto" else self


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
    credit: str = setting(
        "picture",
        "For d3po: what a recorded step is credited with. picture: the finished picture that it led to, which says far "
        "more of a taste. step: the noise of that step alone, as published.",
        choices=("picture", "step"),
        advanced=True,
    )
    beta: float | None = setting(
        None,
        "Strength of the preference term, on log-ratios averaged over latent elements; empty: the method's own, for "
        "D3PO 2000 (with credit step 205; for 1,024 elements that is 0.2 on their sum). The paper: 0.1.",
        low=0.0,
        advanced=True,
        kind=float,
    )
    clip: float | None = setting(
        None,
        "Clamp each probability ratio to 1 ± this, 0 does not; empty: the method's own, for D3PO 0. The paper: 0.1.",
        low=0.0,
        high=1.0,
        advanced=True,
        kind=float,
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
    epochs: int = setting(
        6,
        "Times that every picture is used, at steps not trained yet; a picture of which all were trained is used no "
        "more.",
        low=1,
        high=1000,
    )
    learning_rate: float | None = setting(
        None,
        "AdamW's learning rate; empty: the method's own, for D3PO 1e-3 (with credit step 1.5e-3).",
        low=1e-8,
        high=1.0,
        advanced=True,
        kind=float,
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
    batch: int = setting(1, "Pairs per update; whole groups are taken until there are as many.", low=1, high=4096)
    warmup: int = setting(4, "Updates over which the learning rate rises.", low=0, high=10_000, advanced=True)
    decay: bool = setting(
        True,
        "Let the learning rate fall to 0 over the round, so that the last pictures do not count most. Off: it stays, "
        "as published.",
        advanced=True,
    )
    grad_clip: float = setting(1.0, "Largest gradient norm.", low=1e-6, advanced=True)
    label_smoothing: float = setting(
        0.0, "Share of picks taken to be mistaken (conservative DPO).", low=0.0, high=0.49, advanced=True
    )
    judge: bool = setting(
        True,
        "Fit a judge to the picks: it decides whether there is evidence of a taste, and orders all pictures that were "
        "drawn, also those that nobody saw. Off: the picks alone teach, as published.",
        advanced=True,
    )
    drift_limit: float = setting(
        0.15,
        "Use the LoRA weaker until the KL from base is within this many nats per image and latent element; 0 is off.",
        low=0.0,
        advanced=True,
    )
    keep_prompt: float = keep_prompt_setting()
    trained_steps: int = setting(
        1,
        "Recorded steps of each picture that an update trains, others every time; 0 trains all of them every time.",
        low=0,
        high=1000,
        advanced=True,
    )
    micro_batch: int = setting(
        0, "(image, step) rows per backward pass; 0 finds it by memory.", low=0, high=65536, advanced=True
    )
    checkpointing: bool = setting(False, "Recompute activations: less memory, slower.", advanced=True)
    seed: int = setting(0, "Seed of shuffling and of the LoRA's start.", low=0, high=2**32 - 1, advanced=True)
    people: str = setting(
        "",
        "Whose picks teach: names, separated by commas; empty: everybody's.",
        advanced=True,
    )
    people_weight: str = setting(
        "same",
        "Where several people picked: same (every pick counts as much), or agreement (by how much a person agrees with "
        "the others on groups that both judged).",
        choices=("same", "agreement"),
        advanced=True,
    )


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
    keep_prompt: float = keep_prompt_setting()
    watch: int = setting(5, "Updates between two measures of reward and drift.", low=1, high=10_000, advanced=True)
    micro_batch: int = setting(
        0, "Pictures per backward pass; 0 takes all, and fewer when memory runs out.", low=0, high=1024, advanced=True
    )
    checkpointing: bool = setting(
        True, "Keep only the latents between steps, and recompute the rest: less memory, slower.", advanced=True
    )
    tile: int = setting(
        0,
        "Decode in overlapping tiles of this many pixels a side, where a whole picture is too much for the memory; 0 "
        "decodes whole. Tiles may differ a little in tone.",
        low=0,
        high=8192,
        advanced=True,
    )
    seed: int = setting(0, "Seed of prompts and noises, and of the LoRA's start.", low=0, high=2**32 - 1, advanced=True)


NAMELESS = '""'
"""Means people without a name in a list of names."""


def names_in(written: str) -> frozenset[str] | None:
    """Return the names of a list; None for everybody, which an empty one means.

    Args:
        written: names separated by commas. A name with a comma in it is put in double quotes, and so is the empty name
            of people who never gave one.
    """
    written = " ".join(written.split())  # also line breaks, which the reader of lists refuses
    names = next(csv.reader([written], skipinitialspace=True), [])
    nameless = NAMELESS in (part.strip() for part in written.split(","))
    return frozenset({" ".join(name.split()) for name in names if name.strip()} | ({""} if nameless else set())) or None


def listed(names: Iterable[str]) -> str:
    """Return names, sorted, as `names_in` reads them."""
    return ", ".join(_quoted(name) for name in sorted(names))


def _quoted(name: str) -> str:
    """Return a name as it is written in a list: in quotes where it is empty or has a comma or quotes in it."""
    if not name or "," in name or '"' in name:
        return '"' + name.replace('"', '""') + '"'
    return name


Settings = TypeVar("Settings", SampleSettings, LoraSettings, TrainSettings, RewardSettings)


@dataclass(frozen=True)
class FilledTrainSettings(TrainSettings):
    """Training settings in which the method's own values stand where a setting was left empty, see `fill_in`."""

    beta: float = setting(0.0, "", low=0.0)
    clip: float = setting(0.0, "", low=0.0, high=1.0)
    learning_rate: float = setting(0.0, "", low=0.0, high=1.0)


@dataclass(frozen=True)
class MethodDefaults:
    """What a method uses where a setting is left empty.

    Attributes:
        beta, clip, learning_rate: see `TrainSettings`.
        prediction_beta: inverse temperature that turns a difference of log-ratios into the probability of a pick. It
            equals beta for D3PO, Diffusion-DPO and Diffusion-KTO; the other methods' beta weighs a KL term or is
            unused, so they take that of the pair method on the same rows, `OF_STEPS` or Diffusion-DPO's. None: whatever
            beta is.
    """

    beta: float
    clip: float
    learning_rate: float
    prediction_beta: float | None = None


METHOD_DEFAULTS: dict[str, MethodDefaults] = {
    "d3po": MethodDefaults(beta=2000.0, clip=0.0, learning_rate=1e-3),
    "ddpo": MethodDefaults(beta=0.0, clip=0.01, learning_rate=5e-4, prediction_beta=205.0),
    "dpok": MethodDefaults(beta=0.1, clip=0.01, learning_rate=5e-4, prediction_beta=205.0),
    "diffusion-dpo": MethodDefaults(beta=2000.0, clip=0.0, learning_rate=1e-3),
    "diffusion-kto": MethodDefaults(beta=2000.0, clip=0.0, learning_rate=1e-3),
    "diffusion-nft": MethodDefaults(beta=0.1, clip=0.0, learning_rate=1e-3, prediction_beta=2000.0),
}
OF_STEPS = MethodDefaults(beta=205.0, clip=0.0, learning_rate=1.5e-3)
"""D3PO's own where a step is credited with its own noise."""
BETA_WEIGHS_KL = ("ddpo", "dpok")
"""Methods whose beta may be 0; the gradient of the others is proportional to it."""
METHOD_DECIDES = ("beta", "clip", "learning_rate")
"""Settings that are empty unless somebody chose a value."""
ZERO_WAS_EMPTY = ("beta", "clip", "learning_rate")
"""Those of them of which the first runs kept 0, see `from_stored`."""
DEFAULTS_OF_0_1_0 = {"epochs": 4, "batch": 4, "drift_limit": 0.06}
"""Of version 0.1.0, where others stand now, see `from_stored`."""
FILLED = "filled"
"""Key beside stored settings of which none was left empty, see `from_stored`."""


def fill_in(settings: TrainSettings) -> FilledTrainSettings:
    """Return the settings with the method's own value wherever one was left empty."""
    own = OF_STEPS if (settings.method, settings.credit) == ("d3po", "step") else METHOD_DEFAULTS[settings.method]
    values = {item.name: getattr(settings, item.name) for item in dataclasses.fields(TrainSettings)}
    empty = {name: getattr(own, name) for name in METHOD_DECIDES if values[name] is None}
    return FilledTrainSettings(**{**values, **empty})


def prediction_beta(settings: FilledTrainSettings) -> float:
    """Return the inverse temperature at which these settings' log-ratios predict picks, see `MethodDefaults`."""
    own = METHOD_DEFAULTS[settings.method].prediction_beta
    return settings.beta if own is None else own


def useful_epochs(settings: TrainSettings, recorded: int) -> int:
    """Return how often every picture is used: as often as the settings say, but no recorded step of it twice.

    What a step teaches a second time is about its own noise more than about the taste. Where every update trains all
    steps, it is as the settings say.

    Args:
        settings: how it is trained.
        recorded: steps of a picture; 0 for no limit.
    """
    if not settings.trained_steps or not recorded:
        return settings.epochs
    return min(settings.epochs, -(-recorded // settings.trained_steps))


PresetValues = dict[str, dict[str, object]]
"""Values that a preset sets, by section and name."""
PUBLISHED: PresetValues = {
    "sample": {"window": "all", "noise": "all", "eta": 1.0, "start": "same"},
    "lora": {"targets": "attention"},
    "train": {
        **{
            "credit": "step",
            "level": "step",
            "beta": 0.1,
            "clip": 0.1,
            "guided_loss": True,
            "judge": False,
            "drift_limit": 0.0,
        },
        **{"trained_steps": 0, "epochs": 4, "learning_rate": 1e-3, "batch": 4, "keep_prompt": 0.0},
        "decay": False,
    },
}
"""D3PO as in the authors' code (Yang et al. 2024, arXiv 2311.13231, and its repository): mean log-prob, ratio clamped
to 1 ± 0.1, beta 0.1, every step by itself. The default preset is the dataclasses' own defaults."""

PRESETS: dict[str, PresetValues] = {"taste": {}, "published": PUBLISHED}

OF_D3PO = ("credit", "level", "beta", "clip", "learning_rate")
"""Settings of a preset that mean something for D3PO alone."""


def preset_values(name: str, method: str = TrainSettings.method) -> PresetValues:
    """Return the values that a preset sets where a method is used, by section."""
    values = PRESETS[name]
    if method == "d3po" or "train" not in values:
        return values
    return {**values, "train": {key: value for key, value in values["train"].items() if key not in OF_D3PO}}


def validate(settings: Settings) -> Settings:
    """Return the settings themselves, once every value is in range.

    Raises:
        D3POError: names the setting, its value and its range or choices; or with this beta nothing would be learnt.
    """
    for item in dataclasses.fields(settings):
        value, facts = getattr(settings, item.name), item.metadata
        low, high, choices = facts["low"], facts["high"], facts["choices"]
        if value is None and item.default is None:
            continue
        if isinstance(value, float) and not math.isfinite(value):
            raise D3POError(f"{item.name} is {value}.", "Choose a finite number.")
        if choices and value not in choices:
            raise D3POError(f"{item.name} is '{value}'.", f"Choose one of {', '.join(choices)}.")
        if (low is not None and not value >= low) or (high is not None and not value <= high):
            span = f"between {low:g} and {high:g}" if high is not None else f"at least {low:g}"
            raise D3POError(f"{item.name} is {value}.", f"Choose a value {span}.")
    if isinstance(settings, TrainSettings) and settings.beta == 0 and settings.method not in BETA_WEIGHS_KL:
        raise D3POError(f"With beta 0, {settings.method} learns nothing.", "Leave it empty for the method's own.")
    return settings


def replace(settings: Settings, values: Mapping[str, object]) -> Settings:
    """Return a checked copy with some values changed.

    Raises:
        D3POError: a name is unknown, or a value has the wrong type or is out of range.
    """
    known = {item.name: item for item in dataclasses.fields(settings)}
    changed: dict[str, Any] = {}
    for name, value in values.items():
        if name not in known:
            raise D3POError(f"There is no setting called '{name}'.", f"Known are {', '.join(known)}.")
        kind = known[name].metadata["kind"]
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if type(value) is not kind and not (value is None and known[name].default is None):
            raise D3POError(f"{name} is {value!r}.", f"It must be of type {kind.__name__}.")
        changed[name] = value
    return validate(dataclasses.replace(settings, **changed))


def from_stored(kind: type[Settings], stored: Mapping[str, object]) -> Settings:
    """Return settings as a run keeps them: the one place where those of another version of this program are read.

    Names that this version does not know are dropped, and those that are missing get their defaults. The first runs
    kept 0 for what was left to the method, where there is null now. So a 0 is read as empty if nothing is null, unless
    `FILLED` says that nothing was left empty.
    """
    known = {item.name for item in dataclasses.fields(kind)}
    values: dict[str, Any] = {name: value for name, value in stored.items() if name in known}
    if None not in [values.get(name) for name in ZERO_WAS_EMPTY] and not stored.get(FILLED):
        values |= {name: None for name in ZERO_WAS_EMPTY if values[name] == 0}
    if "cross_check" in stored:
        values = _of_0_1_0(values, bool(stored["cross_check"]))
    if kind is TrainSettings and "credit" not in values and values.get("method", "d3po") == "d3po":
        chosen = any(values.get(name) for name in ("beta", "learning_rate"))
        values |= {"credit": "step"} if chosen else {}  # what these were chosen for
    return kind(**values)


def _of_0_1_0(values: dict[str, Any], checked: bool) -> dict[str, Any]:
    """Return settings of training as version 0.1.0 kept them, which checked evidence by training on halves.

    With that check what was left at its default gets today's; without, all is as it was.
    """
    if checked:
        return {name: value for name, value in values.items() if (name, value) not in DEFAULTS_OF_0_1_0.items()}
    values = {**values, "judge": False, "trained_steps": 0, "keep_prompt": 0.0, "decay": False, "credit": "step"}
    own_rate = values.get("method", "d3po") == "d3po" and values.get("learning_rate") is None
    return {**values, "learning_rate": 1e-3} if own_rate else values
