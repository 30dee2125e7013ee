"""Models that draw in few steps, known by their names: they are drawn with other numbers than most."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ..d3po_core.settings import SampleSettings
from .host.model import checkpoint

FEW_STEP_NAMES = re.compile(
    r"lightning|turbo|schnell|(?<![a-z])(lcm|dmd2?|hyper[-_ ]?(sd|flux)|flash[-_ ]sd)(?![a-z])", re.IGNORECASE
)
MAX_STEPS = 12
MAX_GUIDANCE = 3.0


def few_step_advice(checkpoint: str, carried: Carried, chosen: SampleSettings) -> str:
    """A sentence, beginning with a space, if a few-step model or LoRA is drawn as others are; else ""."""
    names = [checkpoint, *(file for _, widgets in carried for file in files(widgets))]
    found = next(filter(FEW_STEP_NAMES.search, names), None)
    if found is None or (chosen.steps <= MAX_STEPS and chosen.guidance_scale <= MAX_GUIDANCE):
        return ""
    return f" {found} looks like a few-step model: 4 to 8 steps at guidance 1 to 2 suit most of them."


UNKNOWN = "unknown"
SOURCES = ("D3PO_PairedTrajectorySampler", "D3PO_LoadPreferenceRun")
"""Where trajectories come from."""
Carried = list[list[Any]]
"""Nodes on the way to a MODEL, the nearest first: [class, {widget: value}]."""


def carried(graph: dict[str, Any] | None, node: str | None, name: str = "model") -> Carried:
    """The nodes that lead to an input.

    Args:
        graph: as the host executes it: nodes by id, inputs being values or [node, output].
        node: id of the node.
        name: of its input.
    """
    found: Carried = []
    seen: set[str] = set()
    links = [(graph or {}).get(str(node), {}).get("inputs", {}).get(name)]
    while links:
        link = links.pop(0)
        if not _is_link(link) or str(link[0]) in seen:
            continue
        seen.add(str(link[0]))
        there = (graph or {}).get(str(link[0]), {})
        inputs = there.get("inputs", {})
        found.append([there.get("class_type", ""), {k: v for k, v in inputs.items() if not _is_link(v)}])
        further = {key: value for key, value in inputs.items() if _is_link(value)}
        models = [value for key, value in further.items() if key.startswith((name, "model", "unet"))]
        links += models or list(further.values())  # a reroute or switch calls its input something else
    return found


def is_used(graph: dict[str, Any] | None, node: str | None, output: int) -> bool:
    """Whether anything takes an output: what nobody takes need not be made."""
    inputs = (value for each in (graph or {}).values() for value in each.get("inputs", {}).values())
    return any(_is_link(value) and value == [str(node), output] for value in inputs)


def has_link(graph: dict[str, Any] | None, node: str | None, name: str) -> bool:
    """Whether an input is connected."""
    return _is_link((graph or {}).get(str(node), {}).get("inputs", {}).get(name))


def taste_of(graph: dict[str, Any] | None, node: str | None, name: str = "trajectories") -> str:
    """The taste that is named where the trajectories at an input come from; "" if none is."""
    named = (widgets.get("taste") for kind, widgets in carried(graph, node, name) if kind in SOURCES)
    return next((taste for taste in named if isinstance(taste, str)), "")


def checkpoint_of(model: Any, nodes: Carried) -> str:
    """What a MODEL was loaded from, without its folder and ending: as the host says or, of loaders that do not tell it,
    as the graph does.
    """
    return checkpoint(model) or next((file for kind, widgets in reversed(nodes) for file in files(widgets)), UNKNOWN)


def changed(then: Carried, now: Carried) -> str:
    """What differs, in words that the graph shows: "LoraLoader add_detail: strength_model 0.8; your graph has 0.5";
    "" if nothing does."""
    before, after = _numbered(then), _numbered(now)
    said = [f"{_title(*before[key])}, which your graph does not have" for key in before if key not in after]
    for key in before.keys() & after.keys():
        kind, old = before[key]
        new = after[key][1]
        for widget in old.keys() | new.keys():
            if old.get(widget) != new.get(widget):
                was, is_ = _plain(old.get(widget)), _plain(new.get(widget))
                said.append(f"{_title(kind, old)}: {widget} {was}, and your graph has {is_}")
    added = [_title(*after[key]) for key in after if key not in before]
    if added:
        said.append(f"no {' nor '.join(sorted(added))}, which your graph adds")
    return "; ".join(sorted(said))


def _numbered(nodes: Carried) -> dict[tuple[str, int], tuple[str, dict[str, Any]]]:
    """Each node by its class and its place among nodes of that class."""
    found: dict[tuple[str, int], tuple[str, dict[str, Any]]] = {}
    for kind, widgets in nodes:
        found[kind, sum(other == kind for other, _ in found)] = (kind, widgets)
    return found


def _title(kind: str, widgets: dict[str, Any]) -> str:
    """A node by its class and the file that it loads."""
    return " ".join([kind, *files(widgets)[:1]])


def files(widgets: dict[str, Any]) -> list[str]:
    """The files that a node loads, without folders and endings."""
    return [Path(value).stem for key, value in widgets.items() if key.endswith("_name") and isinstance(value, str)]


def _plain(value: Any) -> str:
    return "none" if value is None else Path(value).stem if isinstance(value, str) else str(value)


def _is_link(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int)
