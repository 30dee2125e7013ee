"""What the graph says: the nodes on the way to a MODEL, what changed among them, and other samplers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, TypeGuard

from .host.model import checkpoint
from .host.types import Graph, GraphNode, Patcher, Widgets

OTHER_NOISE = re.compile(r"sde|seeds_|ancestral|lcm|ddpm|sa_solver", re.IGNORECASE)
"""Of the host's samplers that add noise on the way."""
OURS = ("euler_ancestral", "ddpm")
"""Those that add it as groups are drawn, with eta 1: an ancestral step of Euler's is one of DDPM's."""
UNKNOWN = "unknown"
SOURCES = ("D3PO_PairedTrajectorySampler", "D3PO_LoadPreferenceRun")
"""Where trajectories come from."""
Upstream = list[tuple[str, Widgets]]
"""Nodes on the way to an input, the nearest first: class and widgets. JSON keeps the pairs as lists."""


def upstream(graph: Graph | None, node: str | None, name: str = "model") -> Upstream:
    """Return the nodes that lead to an input."""
    nodes: Upstream = []
    seen: set[str] = set()
    links = [inputs_of(graph, node).get(name)]
    while links:
        link = links.pop(0)
        if not is_link(link) or str(link[0]) in seen:
            continue
        seen.add(str(link[0]))
        source = (graph or {}).get(str(link[0]), GraphNode())
        inputs = source.get("inputs", {})
        nodes.append((source.get("class_type", ""), {k: v for k, v in inputs.items() if not is_link(v)}))
        further = {key: value for key, value in inputs.items() if is_link(value)}
        models = [value for key, value in further.items() if key.startswith((name, "model", "unet"))]
        links += models or list(further.values())  # a reroute or switch calls its input something else
    return nodes


def is_used(graph: Graph | None, node: str | None, output: int) -> bool:
    """Return whether anything takes an output: what nobody takes need not be made."""
    inputs = (value for each in (graph or {}).values() for value in each.get("inputs", {}).values())
    return any(is_link(value) and value == [str(node), output] for value in inputs)


def has_link(graph: Graph | None, node: str | None, name: str) -> bool:
    """Return whether an input is connected."""
    return is_link(inputs_of(graph, node).get(name))


def taste_of(graph: Graph | None, node: str | None) -> str:
    """Return the taste that is named where a node's trajectories come from; "" if none is."""
    named = (widgets.get("taste") for kind, widgets in upstream(graph, node, "trajectories") if kind in SOURCES)
    return next((taste for taste in named if isinstance(taste, str)), "")


def checkpoint_of(model: Patcher, nodes: Upstream) -> str:
    """Return what a MODEL was loaded from, without folder and ending: as the host says or, where its loader does not
    tell it, as the graph does."""
    return checkpoint(model) or next((file for _, widgets in reversed(nodes) for file in files(widgets)), UNKNOWN)


def names_of(checkpoint: str, nodes: Upstream) -> list[str]:
    """Return what a MODEL was loaded from, and the files of all nodes on the way to it."""
    return [checkpoint, *(file for _, widgets in nodes for file in files(widgets))]


def sampler_advice(graph: Graph | None) -> str:
    """Return a sentence, beginning with a space, if the graph draws by another sampler that adds noise; else ""."""
    names = [each.get("inputs", {}).get("sampler_name") for each in (graph or {}).values()]
    others = [name for name in names if isinstance(name, str) and OTHER_NOISE.search(name) and name not in OURS]
    if not others:
        return ""
    return (
        f" Groups are drawn as by euler_ancestral, which is nearest to {others[0]} here; the LoRA is for any sampler, "
        f"{others[0]} too."
    )


def difference(then: Upstream, now: Upstream) -> str:
    """Return what differs, in words that the graph shows, "" if nothing does.

    An example: "LoraLoader add_detail: strength_model 0.8, and your graph has 0.5".
    """
    before, after = _numbered(then), _numbered(now)
    parts = [f"{_title(*before[key])}, which your graph does not have" for key in before if key not in after]
    for key in before.keys() & after.keys():
        kind, old = before[key]
        new = after[key][1]
        for widget in old.keys() | new.keys():
            if old.get(widget) != new.get(widget):
                was, is_ = _shown(old.get(widget)), _shown(new.get(widget))
                parts.append(f"{_title(kind, old)}: {widget} {was}, and your graph has {is_}")
    added = [_title(*after[key]) for key in after if key not in before]
    if added:
        parts.append(f"no {' nor '.join(sorted(added))}, which your graph adds")
    return "; ".join(sorted(parts))


def files(widgets: Widgets) -> list[str]:
    """Return the files that a node loads, without folders and endings."""
    return [Path(value).stem for key, value in widgets.items() if key.endswith("_name") and isinstance(value, str)]


def is_link(value: object) -> TypeGuard[list[Any]]:
    """Return whether an input's value is a link [node, output]."""
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int)


def inputs_of(graph: Graph | None, node: str | None) -> Widgets:
    """Return a node's values and links by name; none where the graph has no such node."""
    return (graph or {}).get(str(node), GraphNode()).get("inputs", {})


def _numbered(nodes: Upstream) -> dict[tuple[str, int], tuple[str, Widgets]]:
    """Return each node by its class and its place among nodes of that class."""
    numbered: dict[tuple[str, int], tuple[str, Widgets]] = {}
    for kind, widgets in nodes:
        numbered[kind, sum(other == kind for other, _ in numbered)] = (kind, widgets)
    return numbered


def _title(kind: str, widgets: Widgets) -> str:
    """Return a node's class and the file that it loads."""
    return " ".join([kind, *files(widgets)[:1]])


def _shown(value: object) -> str:
    return "none" if value is None else Path(value).stem if isinstance(value, str) else str(value)
