"""Gradio controls made from the core's settings, so that no setting is described twice.

Written to what gradio 3.41, 4.40 and 6 have in common, because the tab inside A1111 and Forge uses them too.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any

import gradio as gr

from d3po_core.errors import D3POError
from d3po_core.settings import LoraSettings, RewardSettings, SampleSettings, TrainSettings, replace

SECTIONS: dict[str, type] = {"sample": SampleSettings, "train": TrainSettings, "lora": LoraSettings}
"""What a taste is begun with."""
KINDS: dict[str, type] = {**SECTIONS, "reward": RewardSettings}
LEFT_OUT = {("sample", "groups"), ("reward", "seed")}
"""How many to draw is for the one who looks to say, not for the taste; and every round by a reward has its own luck."""


def controls(advanced: bool, defaults: dict[str, dict[str, Any]], sections: Iterable[str] = SECTIONS) -> dict[str, Any]:
    """Controls by "section.field": those that everybody sees, or the advanced ones.

    Args:
        advanced: which of the two.
        defaults: values by section that win over the settings' own.
        sections: of `KINDS`.
    """
    return {
        f"{section}.{item.name}": control(section, item, defaults.get(section, {}).get(item.name, item.default))
        for section in sections
        for item in dataclasses.fields(KINDS[section])
        if item.metadata["advanced"] is advanced and (section, item.name) not in LEFT_OUT
    }


def control(section: str, item: dataclasses.Field[Any], value: Any) -> Any:
    """One setting's control."""
    about = {"label": item.name.replace("_", " "), "info": item.metadata["help"]}
    about["elem_id"] = f"d3po_{section}_{item.name}"
    low, high, choices = item.metadata["low"], item.metadata["high"], item.metadata["choices"]
    if choices:
        return gr.Dropdown(**about, choices=list(choices), value=value)
    if isinstance(value, bool):
        return gr.Checkbox(**about, value=value)
    if isinstance(value, str):
        return gr.Textbox(**about, value=value)
    if isinstance(value, int) and low is not None and high is not None and high - low <= 100:
        return gr.Slider(**about, minimum=low, maximum=high, step=1, value=value)
    return gr.Number(**about, value=value, precision=0 if isinstance(value, int) else None)


def settings_of(keys: list[str], values: list[Any]) -> dict[str, Any]:
    """Checked settings by section, from controls' values; of those sections that have any.

    Raises:
        D3POError: a value is missing or out of range.
    """
    given: dict[str, dict[str, Any]] = {}
    for key, value in zip(keys, values, strict=True):
        section, _, name = key.partition(".")
        item = next(item for item in dataclasses.fields(KINDS[section]) if item.name == name)
        kind = item.metadata["kind"]
        try:
            empty = "" if kind is str else None
            unset = value is None and (kind is str or item.default is None)
            given.setdefault(section, {})[name] = empty if unset else kind(value)
        except (TypeError, ValueError) as error:
            raise D3POError(f"{name.replace('_', ' ')} is empty or no number.", "Put a number there.") from error
    return {section: replace(KINDS[section](), found) for section, found in given.items()}


def show_errors(work: Callable[..., Any]) -> Callable[..., Any]:
    """An event's work, whose mistakes are shown as a sentence."""

    @functools.wraps(work)
    def shown(*values: Any) -> Any:
        try:
            return work(*values)
        except D3POError as error:
            raise gr.Error(str(error)) from error

    return shown
