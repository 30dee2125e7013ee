"""Gradio controls made from the core's settings, so that no setting is described twice.

Written to what gradio 3.41, 4.40 and 6 have in common, because the tab inside A1111 and Forge uses them too.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, Protocol, TypedDict, TypeVar, cast

import gradio as gr

from d3po_core.errors import D3POError
from d3po_core.settings import LoraSettings, RewardSettings, SampleSettings, TrainSettings, replace

Component = Any  # a gradio component, whose class and methods differ by version
Update = Any  # what an event gives back to a component: a value, or gr.update
P = ParamSpec("P")
R = TypeVar("R")

SECTIONS: dict[str, type] = {"sample": SampleSettings, "train": TrainSettings, "lora": LoraSettings}
"""Settings that a taste is begun with."""
KINDS: dict[str, type] = {**SECTIONS, "reward": RewardSettings}
LEFT_OUT = {("sample", "groups"), ("reward", "seed")}
"""Settings without a control: groups are drawn as somebody looks, and every round by a reward has a seed of its own."""


QUIET: dict[str, Any] = (
    {"print_exception": False} if "print_exception" in inspect.signature(gr.Error.__init__).parameters else {}
)
"""For `gr.Error`: later versions of gradio can leave out the traceback of what a person got wrong."""


class ChosenSettings(TypedDict, total=False):
    """Checked settings by section."""

    sample: SampleSettings
    train: TrainSettings
    lora: LoraSettings
    reward: RewardSettings


@dataclass(frozen=True)
class Refresh:
    """How a panel is brought up to date when its tab is opened or another taste is chosen.

    Attributes:
        update: of the taste's label to what the outputs become.
        outputs: components.
    """

    update: Callable[[str | None], Update]
    outputs: list[Component]


class UploadedFile(Protocol):
    """An uploaded file as gradio 3 hands it over."""

    name: str


Upload = str | UploadedFile | None
"""An uploaded file as any gradio hands it over; None without one."""


def controls(
    advanced: bool, defaults: Mapping[str, Mapping[str, object]], sections: Iterable[str] = SECTIONS
) -> dict[str, Component]:
    """Make controls by "section.field".

    Args:
        advanced: those that are hidden until somebody asks for them, or those that everybody sees.
        defaults: values by section that win over the settings' own.
        sections: of `KINDS`.
    """
    return {
        f"{section}.{item.name}": control(section, item, defaults.get(section, {}).get(item.name, item.default))
        for section in sections
        for item in dataclasses.fields(KINDS[section])
        if item.metadata["advanced"] is advanced and (section, item.name) not in LEFT_OUT
    }


def control(section: str, item: dataclasses.Field[object], value: Any) -> Component:
    """Make a setting's control, with a value of the setting's kind."""
    common = {
        "label": item.name.replace("_", " "),
        "info": item.metadata["help"],
        "elem_id": f"d3po_{section}_{item.name}",
    }
    low, high, choices = item.metadata["low"], item.metadata["high"], item.metadata["choices"]
    if choices:
        return gr.Dropdown(**common, choices=list(choices), value=value)
    if isinstance(value, bool):
        return gr.Checkbox(**common, value=value)
    if item.default is None:  # no Number: gradio 3 shows 0 in an empty one
        return gr.Textbox(**common, value="" if value is None else f"{value:g}", max_lines=1)
    if isinstance(value, str):
        return gr.Textbox(**common, value=value)
    if isinstance(value, int) and low is not None and high is not None and high - low <= 100:
        return gr.Slider(**common, minimum=low, maximum=high, step=1, value=value)
    return gr.Number(**common, value=value, precision=0 if isinstance(value, int) else None)


def settings_of(keys: list[str], values: list[object]) -> ChosenSettings:
    """Return checked settings of those sections that have any, from their controls' values.

    Args:
        keys: of the controls, "section.field".
        values: in the same order; None or "" where a field was left empty.

    Raises:
        D3POError: a value is missing or out of range.
    """
    by_section: dict[str, dict[str, object]] = {}
    for key, value in zip(keys, values, strict=True):
        section, _, name = key.partition(".")
        item = next(item for item in dataclasses.fields(KINDS[section]) if item.name == name)
        by_section.setdefault(section, {})[name] = _value_of(item, value)
    return cast("ChosenSettings", {name: replace(KINDS[name](), chosen) for name, chosen in by_section.items()})


def _value_of(item: dataclasses.Field[object], value: object) -> object:
    kind = item.metadata["kind"]
    if value is None and kind is str:
        return ""
    if value in (None, "") and item.default is None:
        return None
    try:
        return kind(value)
    except (TypeError, ValueError) as error:
        raise D3POError(f"{item.name.replace('_', ' ')} is empty or no number.", "Put a number there.") from error


def show_errors(work: Callable[P, R]) -> Callable[P, R]:
    """Wrap an event's work so that its errors are shown as a sentence."""

    @functools.wraps(work)
    def shown(*values: P.args, **named: P.kwargs) -> R:
        try:
            return work(*values, **named)
        except D3POError as error:
            raise as_shown(error) from None

    return shown


def as_shown(error: D3POError) -> gr.Error:
    """Return an error as gradio shows it: a sentence, and nothing in the terminal if this version can leave it out."""
    return gr.Error(str(error), **QUIET)


def path_of(file: str | UploadedFile) -> Path:
    """Return where an uploaded file is."""
    return Path(file if isinstance(file, str) else file.name)
