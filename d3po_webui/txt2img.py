"""What txt2img sends: what a new taste takes over from its settings, and what of them it leaves."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

COMMENT = re.compile(r"#[^\n]*")
"""What hosts leave out of prompts unless a setting of theirs says otherwise."""
TAG = re.compile(r"<[^<>:]+:[^<>]*>")
"""<lora:name:0.8>, <hypernet:...> and the like."""
CHANGING = re.compile(r"(?<!\\)\[[^\[\]]*[:|][^\[\]]*\]|\bAND\b")
"""[cat:dog:0.5], [cat|dog], and prompts joined by AND."""
PRAISE = re.compile(r"masterpiece|(best|high|top|amazing) quality|highres|absurdres|score_\w+|\d+k|raw photo", re.I)
"""What stands in front of many prompts and names nothing."""
KARRAS = ("DPM++ 2M", "DPM++ SDE", "DPM++ 2S a", "DPM2", "DPM2 a", "Restart")
"""Samplers that take the karras schedule where it is left to them."""
LIKE_OURS = ("Euler a", "Euler")
NAME_LENGTH = 40


@dataclass(frozen=True)
class Txt2ImgSettings:
    """A taste as it comes from txt2img.

    Attributes:
        name: from the prompt.
        prompt: on one line.
        settings: by "section.field".
        left: what was on in txt2img and is not taken over.
    """

    name: str
    prompt: str
    settings: dict[str, Any]
    left: tuple[str, ...]


def read(told: str) -> Txt2ImgSettings:
    """What the page told of txt2img (see d3po_txt2img.mjs), as a taste takes it."""
    page = json.loads(told)
    prompt, tags = _plain(page["prompt"], page["comments"])
    negative, more_tags = _plain(page["negative"], page["comments"])
    sampler, scheduler = page["sampler"], page["scheduler"]
    karras = scheduler == "Karras" or (scheduler == "Automatic" and sampler in KARRAS)
    settings = {
        **{"sample.negative": negative, "sample.schedule": "karras" if karras else "model"},
        **{"sample.steps": int(page["steps"]), "sample.guidance_scale": float(page["cfg_scale"])},
        **{"sample.width": int(page["width"]), "sample.height": int(page["height"])},
    }
    changing = [f"{found[0]} (read as plain words)" for found in CHANGING.finditer(f"{prompt} {negative}")]
    return Txt2ImgSettings(
        name_of(prompt), prompt, settings, (*dict.fromkeys([*tags, *more_tags, *changing]), *_left(page))
    )


def _left(page: dict[str, Any]) -> list[str]:
    """What is on in txt2img outside its prompts and is not taken over."""
    sampler, scheduler = page["sampler"], page["scheduler"]
    left = [*page["on"], *(f"style {style}" for style in page["styles"])]
    if page["script"] not in ("", "None"):
        left.append(f"script {page['script']}")
    if sampler not in LIKE_OURS:
        left.append(f"sampler {sampler} (a taste draws as Euler a)")
    if scheduler not in ("", "Automatic", "Karras"):
        left.append(f"schedule type {scheduler}")
    left += [what for what in ("batch count", "batch size") if page[what.replace(" ", "_")] > 1]
    if page["seed"] != -1:
        left.append("seed")
    if page["variation"]:
        left.append("seed variation")
    return left


def name_of(prompt: str) -> str:
    """A taste's name from a prompt: its first words that say something; "My taste" where there are none."""
    plain = re.sub(r"\\(.)", r"\1", re.sub(r":\s*[\d.]+\s*(?=[)\]])", "", prompt))
    parts = [re.sub(r"[^\w\s'-]+", " ", part).split() for part in re.split(r"[,.;]|\bBREAK\b|\bAND\b", plain)]
    named = [" ".join(part) for part in parts if part and not PRAISE.fullmatch(" ".join(part))]
    name = named[0] if named else "My taste"
    return name if len(name) <= NAME_LENGTH else name[: NAME_LENGTH + 1].rpartition(" ")[0] or name[:NAME_LENGTH]


def _plain(prompt: str, comments: bool) -> tuple[str, list[str]]:
    """A prompt on one line without tags (and comments, where the host knows them), and the tags."""
    prompt = COMMENT.sub("", prompt) if comments else prompt
    tags = TAG.findall(prompt)
    words = " ".join(TAG.sub(" ", prompt).split())
    return re.sub(r"\s+,", ",", words).strip(" ,"), tags
