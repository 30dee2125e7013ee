"""Node inputs made from the core's settings, so that no setting is described twice."""

from __future__ import annotations

import dataclasses
from typing import Any

from comfy_api.latest import io

from ..d3po_core.settings import SampleSettings, replace
from . import folders
from .host import memory
from .host.denoiser import schedules

ALIASES = ["taste", "favourite", "favorite", "preference", "rlhf", "dpo", "d3po", "train lora"]
"""What people search for."""


def taste_input(tooltip: str = "Name of the taste; auto is one for each checkpoint.") -> Any:
    """The widget that all our nodes share."""
    return io.String.Input("taste", default=folders.AUTO, tooltip=tooltip)


def schedule_input() -> Any:
    """The widget of the nodes that draw; `sample_settings` reads it."""
    return io.Combo.Input(
        "schedule",
        options=schedules(),
        default=SampleSettings.schedule,
        optional=True,
        advanced=True,
        tooltip="Spacing of noise levels: the one that fits the model's kind, or any of the host's.",
    )


def memory_input(trade: str) -> Any:
    """The widget of the nodes that teach.

    Args:
        trade: what each preset costs there.
    """
    return io.Combo.Input(
        "memory",
        options=[memory.AUTO, *memory.PRESETS],
        default=memory.AUTO,
        optional=True,
        advanced=True,
        tooltip=f"What to save memory for: {trade}.",
    )


def inputs(kind: type, shown: tuple[str, ...], left_out: tuple[str, ...] = (), **defaults: Any) -> list[Any]:
    """A widget for each field of a settings dataclass.

    Args:
        kind: the dataclass.
        shown: fields that everybody sees, in this order; the others are advanced.
        left_out: fields that get no widget.
        defaults: values that win over the settings' own.
    """
    fields = {item.name: item for item in dataclasses.fields(kind)}
    names = [*shown, *(name for name in fields if name not in (*shown, *left_out))]
    return [_input(fields[name], defaults.get(name, fields[name].default), name not in shown) for name in names]


def settings(kind: type, values: dict[str, Any], left_out: tuple[str, ...] = ()) -> Any:
    """Checked settings from a node's inputs.

    Raises:
        D3POError: a value is out of range.
    """
    fields = {item.name: item for item in dataclasses.fields(kind) if item.name not in left_out}
    chosen = {name: value for name, value in values.items() if name in fields}
    empty = {name: None for name, value in chosen.items() if fields[name].default is None and value == 0}
    return replace(kind(), {**chosen, **empty})


def sample_settings(values: dict[str, Any], left_out: tuple[str, ...] = ()) -> SampleSettings:
    """How pictures are drawn, from a node's inputs; the schedule is any of the host's, of which the core knows two.

    Raises:
        D3POError: a value is out of range.
    """
    chosen = settings(SampleSettings, values, ("schedule", *left_out))
    return dataclasses.replace(chosen, schedule=values.get("schedule", SampleSettings.schedule))


def _input(item: dataclasses.Field[Any], default: Any, advanced: bool) -> Any:
    meta = item.metadata
    about: dict[str, Any] = {"display_name": item.name.replace("_", " "), "tooltip": meta["help"]}
    if advanced:  # graphs made by hand need not name them
        about |= {"advanced": True, "optional": True}
    if meta["choices"]:
        return io.Combo.Input(item.name, options=list(meta["choices"]), default=default, **about)
    if isinstance(default, bool):
        return io.Boolean.Input(item.name, default=default, **about)
    if isinstance(default, str):
        return io.String.Input(item.name, default=default, **about)
    low, high = meta["low"], meta["high"]
    if default is None:  # the host's widgets cannot be empty
        about["tooltip"] += " 0 is empty here."
        default = low = 0.0
    if isinstance(default, int):
        return io.Int.Input(item.name, default=default, min=low, max=high, **about)
    step = 10.0 ** (-4 if default < 0.1 else -2)
    return io.Float.Input(item.name, default=default, min=low, max=high, step=step, **about)
