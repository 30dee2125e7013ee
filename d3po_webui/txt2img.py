"""Read what txt2img sends: what a new taste takes over from its settings, and which have no effect on a taste."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TypedDict

from .flow_settings import FlowSettings

COMMENT = re.compile(r"#[^\n]*")
"""A comment, which hosts leave out of prompts unless a setting of theirs says otherwise."""
TAG = re.compile(r"<[^<>:]+:[^<>]*>")
"""<lora:name:0.8>, <hypernet:...> and the like."""
SCHEDULED = re.compile(r"(?<!\\)\[[^\[\]]*[:|][^\[\]]*\]|\bAND\b")
"""[cat:dog:0.5], [cat|dog], and prompts joined by AND."""
QUALITY = re.compile(r"masterpiece|(best|high|top|amazing) quality|highres|absurdres|score_\w+|\d+k|raw photo", re.I)
"""Words in front of many prompts that name nothing."""
KARRAS = ("DPM++ 2M", "DPM++ SDE", "DPM++ 2S a", "DPM2", "DPM2 a", "Restart")
"""Samplers whose "Automatic" schedule is karras."""
LIKE_OURS = ("Euler a", "Euler")
FLOW_SELDOM, FLOW_NEVER = "xl", "sd"
"""Forge Neo's presets for models of which few, and for those of which none, are flow models."""
NAME_LENGTH = 40


class Page(TypedDict):
    """txt2img's controls, as d3po_txt2img.mjs reads them.

    Attributes:
        distilled_cfg_scale: the slider of Forge Neo and Forge, which flow models take; 0 in hosts without it.
        preset: of Forge Neo and Forge, for a kind of model; "" in hosts without it.
        comments: whether the host leaves out comments.
        variation: whether a seed variation is on.
        on: labels of extensions and other parts that are on.
    """

    prompt: str
    negative: str
    comments: bool
    steps: float
    cfg_scale: float
    distilled_cfg_scale: float
    preset: str
    width: float
    height: float
    sampler: str
    scheduler: str
    batch_count: int
    batch_size: int
    seed: int
    variation: bool
    styles: list[str]
    script: str
    on: list[str]


@dataclass(frozen=True)
class Txt2ImgSettings:
    """What a taste takes over from txt2img.

    Attributes:
        name: from the prompt.
        prompt: on one line.
        settings: by "section.field".
        flow: for a flow model; None where the model is none.
        without_effect: names of what is on in txt2img and has no effect on a taste.
    """

    name: str
    prompt: str
    settings: dict[str, str | int | float]
    flow: FlowSettings | None
    without_effect: tuple[str, ...]


def read(text: str, flow_models: bool = False) -> Txt2ImgSettings:
    """Return what a taste takes over of a `Page`, as JSON.

    Args:
        text: the JSON.
        flow_models: whether the host has some that can be taught.

    Raises:
        D3POError: the slider for flow models is out of range.
    """
    page: Page = json.loads(text)
    if not flow_models:
        page["preset"] = ""  # Forge has them, too, and for other models
    prompt, tags = _plain(page["prompt"], page["comments"])
    negative, more_tags = _plain(page["negative"], page["comments"])
    sampler, scheduler = page["sampler"], page["scheduler"]
    karras = scheduler == "Karras" or (scheduler == "Automatic" and sampler in KARRAS)
    karras = karras and page["preset"] in ("", FLOW_SELDOM, FLOW_NEVER)
    settings: dict[str, str | int | float] = {
        "sample.negative": negative,
        "sample.schedule": "karras" if karras else "model",
        "sample.steps": int(page["steps"]),
        "sample.guidance_scale": float(page["cfg_scale"]),
        "sample.width": int(page["width"]),
        "sample.height": int(page["height"]),
    }
    scheduled = [f"{match[0]} (read as plain words)" for match in SCHEDULED.finditer(f"{prompt} {negative}")]
    in_prompts = dict.fromkeys([*tags, *more_tags, *scheduled])
    return Txt2ImgSettings(name_of(prompt), prompt, settings, _flow(page), (*in_prompts, *_without_effect(page)))


def _flow(page: Page) -> FlowSettings | None:
    if page["preset"] in ("", FLOW_NEVER):
        return None
    return FlowSettings(float(page["distilled_cfg_scale"]), page["scheduler"] or FlowSettings().schedule)


def _without_effect(page: Page) -> list[str]:
    """Name what is on in txt2img, outside its prompts, and is not taken over."""
    sampler, scheduler, preset = page["sampler"], page["scheduler"], page["preset"]
    seldom = preset in ("", FLOW_SELDOM, FLOW_NEVER)
    unless = " (but for flow models)" if preset == FLOW_SELDOM else ""
    others = {
        f"script {page['script']}": page["script"] not in ("", "None"),
        f"sampler {sampler} (a taste draws as Euler a)": sampler not in LIKE_OURS,
        f"schedule type {scheduler}{unless}": scheduler not in ("", "Automatic", "Karras") and seldom,
        "batch count": page["batch_count"] > 1,
        "batch size": page["batch_size"] > 1,
        "seed": page["seed"] != -1,
        "seed variation": page["variation"],
    }
    styles = [f"style {style}" for style in page["styles"]]
    return [*page["on"], *styles, *(name for name, is_on in others.items() if is_on)]


def name_of(prompt: str) -> str:
    """Return a taste's name from a prompt: its first words that name something; "My taste" if there are none."""
    plain = re.sub(r"\\(.)", r"\1", re.sub(r":\s*[\d.]+\s*(?=[)\]])", "", prompt))
    parts = [re.sub(r"[^\w\s'-]+", " ", part).split() for part in re.split(r"[,.;]|\bBREAK\b|\bAND\b", plain)]
    named = [" ".join(part) for part in parts if part and not QUALITY.fullmatch(" ".join(part))]
    name = named[0] if named else "My taste"
    return name if len(name) <= NAME_LENGTH else name[: NAME_LENGTH + 1].rpartition(" ")[0] or name[:NAME_LENGTH]


def _plain(prompt: str, comments: bool) -> tuple[str, list[str]]:
    """Return a prompt on one line without tags (and comments, if the host leaves them out), and the tags."""
    prompt = COMMENT.sub("", prompt) if comments else prompt
    tags = TAG.findall(prompt)
    words = " ".join(TAG.sub(" ", prompt).split())
    return re.sub(r"\s+,", ",", words).strip(" ,"), tags
