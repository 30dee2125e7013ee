"""What nodes share: their schemas, whose texts stand in `locales/`, the wires between them, and widgets made from the
core's settings."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict

from comfy_api.latest import io

from ..d3po_core.app.sampling import DrawnGroup
from ..d3po_core.settings import SampleSettings, Settings, replace
from . import folders
from .host import memory
from .host.denoiser import schedules
from .host.types import Options

ALIASES = ["taste", "favourite", "favorite", "preference", "rlhf", "dpo", "d3po", "train lora"]
"""What people search for."""
REWARD = io.Custom("D3PO_REWARD")
TRAJECTORIES = io.Custom("D3PO_TRAJECTORIES")
ADVANCED = {"advanced": True, "optional": True}
"""Of inputs that few people need; graphs made by hand need not name them."""
TEXTS = json.loads((Path(__file__).parents[1] / "locales" / "en" / "nodeDefs.json").read_text("utf-8"))
"""By node, what it and its inputs and outputs are called, and the help on each. The host's page reads the same file."""


class Trajectories(TypedDict):
    """What is on a wire of trajectories.

    Attributes:
        run: id of the taste.
        groups: ids of groups in it.
        pending: groups that wait for their images, which the Preference Collector adds.
    """

    run: str
    groups: list[str]
    pending: list[DrawnGroup]


def node_schema(
    node_id: str,
    inputs: list[io.Input],
    outputs: list[io.Output],
    aliases: Sequence[str] = (),
    hidden: Sequence[io.Hidden] = (io.Hidden.unique_id, io.Hidden.prompt),
    **flags: bool,
) -> io.Schema:
    """Return a node's schema, with the texts of `locales/en/nodeDefs.json`.

    Args:
        inputs: those with a tooltip keep it: a setting's help, or what is made from code.
        aliases: what people search for beside `ALIASES`.
        flags: further facts of the host's `Schema`.
    """
    texts = TEXTS[node_id]
    for slot in inputs:
        text = texts["inputs"][slot.id]
        slot.tooltip = slot.tooltip or text["tooltip"]
        if text["name"] != slot.id:
            slot.display_name = text["name"]
    for number, slot in enumerate(outputs):
        text = texts["outputs"][str(number)]
        slot.display_name, slot.tooltip = text["name"], text.get("tooltip")
    return io.Schema(
        node_id=node_id,
        display_name=texts["display_name"],
        category="D3PO",
        description=texts["description"],
        search_aliases=[*ALIASES, *aliases],
        inputs=inputs,
        outputs=outputs,
        hidden=list(hidden),
        **flags,
    )


def taste_input() -> io.Input:
    """Return the widget that all our nodes share."""
    return io.String.Input("taste", default=folders.AUTO)


def schedule_input() -> io.Input:
    """Return the widget of the nodes that draw; `sample_settings` reads it."""
    return io.Combo.Input("schedule", options=schedules(), default=SampleSettings.schedule, **ADVANCED)


def memory_input(tooltip: str | None = None) -> io.Input:
    """Return the widget of the nodes that train."""
    return io.Combo.Input(
        "memory", options=[memory.AUTO, *memory.PRESETS], default=memory.AUTO, tooltip=tooltip, **ADVANCED
    )


def prompts_input() -> io.Input:
    """Return the widget of a prompt list, which `prompts.listed` reads."""
    return io.String.Input("prompts", default="", multiline=True, **ADVANCED)


def inputs(
    names: Sequence[str], *kinds: type, shown: Sequence[str] = (), defaults: Mapping[str, object] | None = None
) -> list[io.Input]:
    """Return widgets for fields of settings dataclasses.

    Args:
        names: of the fields, in the order of the widgets.
        kinds: the dataclasses.
        shown: fields that everybody sees; the others are advanced.
        defaults: values that win over the settings' own.
    """
    fields = {item.name: item for kind in kinds for item in dataclasses.fields(kind)}
    defaults = defaults or {}
    return [_input(fields[name], defaults.get(name, fields[name].default), name not in shown) for name in names]


def settings(kind: type[Settings], values: Mapping[str, object], left_out: Sequence[str] = ()) -> Settings:
    """Return checked settings from a node's inputs, in which 0 stands for empty.

    Raises:
        D3POError: a value is out of range.
    """
    fields = {item.name: item for item in dataclasses.fields(kind) if item.name not in left_out}
    chosen = {name: value for name, value in values.items() if name in fields}
    empty = {name: None for name, value in chosen.items() if fields[name].default is None and value == 0}
    return replace(kind(), {**chosen, **empty})


def sample_settings(values: Mapping[str, object], left_out: Sequence[str] = ()) -> SampleSettings:
    """Return how images are drawn; the schedule is any of the host's, of which the core knows two.

    Raises:
        D3POError: a value is out of range.
    """
    chosen = settings(SampleSettings, values, ("schedule", *left_out))
    return dataclasses.replace(chosen, schedule=str(values.get("schedule", SampleSettings.schedule)))


def _input(item: dataclasses.Field[object], default: object, advanced: bool) -> io.Input:
    low, high, choices = (item.metadata[name] for name in ("low", "high", "choices"))
    facts: Options = {"display_name": item.name.replace("_", " "), "tooltip": item.metadata["help"]}
    if advanced:
        facts |= ADVANCED
    if choices:
        return io.Combo.Input(item.name, options=list(choices), default=default, **facts)
    if isinstance(default, bool):
        return io.Boolean.Input(item.name, default=default, **facts)
    if isinstance(default, str):
        return io.String.Input(item.name, default=default, **facts)
    if isinstance(default, int):
        return io.Int.Input(item.name, default=default, min=low, max=high, **facts)
    if default is None:  # the host's widgets cannot be empty
        facts["tooltip"] += " Here 0 stands for empty."
        default = low = 0.0
    step = 10.0 ** (-4 if isinstance(default, float) and default < 0.1 else -2)
    return io.Float.Input(item.name, default=default, min=low, max=high, step=step, **facts)
