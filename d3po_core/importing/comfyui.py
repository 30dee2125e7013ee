"""The prompts in the graph that ComfyUI writes into images, in the form of its API:

    {"3": {"class_type": "KSampler", "inputs": {"positive": ["6", 0], ...}}, "6": {...}, ...}

An input is a value, or a link [node, output]. The positive and the negative input of the sampler nearest to the node
that saves the image are followed upstream until a node has a text. Nodes are recognised by the names of their inputs,
because node packs have thousands of kinds. What a node computes (a language model, a wildcard) is not known unless the
graph has the result too.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterable
from typing import TypedDict, TypeGuard

Inputs = dict[str, object]


class Node(TypedDict, total=False):
    """A node of a graph; `inputs` is always there."""

    class_type: object
    inputs: Inputs


Graph = dict[str, Node]

TEXTS = (
    *("populated_text", "text", "t5xxl", "text_g", "text_l", "clip_g", "clip_l", "prompt", "user_prompt"),
    *("bert", "mt5xl", "string", "value"),
)
"""Inputs that hold a complete text. If a node has several (SDXL's and Flux's encoders), the longest is taken."""
PIECE = re.compile(r"(?:text|string|prompt)_?(?:[a-z]|\d+)")
"""Inputs of nodes that join texts."""
ZERO_OUT = "ConditioningZeroOut"
MAX_DEPTH = 100
"""Nodes between a sampler and its text, at most: a damaged graph may have cycles."""


def parse_graph(text: str) -> tuple[str, str]:
    """Return the prompt and the negative prompt of a graph, as JSON; empty if none is found."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return "", ""
    graph: Graph = {name: node for name, node in data.items() if _is_node(node)} if isinstance(data, dict) else {}
    sampler = _nearest_sampler(graph)
    if sampler is None:
        return "", ""
    guider = _linked(graph, sampler.get("guider"))
    inputs = {**(guider["inputs"] if guider else {}), **sampler}
    positive = next((inputs[name] for name in ("positive", "conditioning", "cond1") if name in inputs), None)
    return _text(graph, positive, "positive").strip(), _text(graph, inputs.get("negative"), "negative").strip()


def _is_node(node: object) -> TypeGuard[Node]:
    return isinstance(node, dict) and isinstance(node.get("inputs"), dict)


def _linked(graph: Graph, value: object) -> Node | None:
    """Return the node that a link leads to; None for any other value."""
    if isinstance(value, list) and len(value) == 2 and isinstance(value[0], str | int) and isinstance(value[1], int):
        return graph.get(str(value[0]))
    return None


def _nearest_sampler(graph: Graph) -> Inputs | None:
    """Return the inputs of the first node upstream of one that saves images that has a positive input or a guider."""
    for ends in (_named(graph, "Save"), _named(graph, "Preview"), list(graph.values())):
        queue, seen = deque(reversed(ends)), set[int]()
        while queue:
            node = queue.popleft()
            if id(node) in seen:
                continue
            seen.add(id(node))
            inputs = node["inputs"]
            if _linked(graph, inputs.get("positive")) or _linked(graph, inputs.get("guider")):
                return inputs
            queue.extend(upstream for value in inputs.values() if (upstream := _linked(graph, value)))
    return None


def _named(graph: Graph, part: str) -> list[Node]:
    return [node for node in graph.values() if part in str(node.get("class_type"))]


def _text(graph: Graph, value: object, role: str, depth: int = 0) -> str:
    """Return the text that an input holds or is linked to; empty if there is none.

    Args:
        graph: the nodes by id.
        value: of the input.
        role: "positive" or "negative", for nodes that pass on both.
        depth: number of nodes that were passed.
    """
    if isinstance(value, str):
        return value
    node = _linked(graph, value)
    if node is None or depth > MAX_DEPTH or node.get("class_type") == ZERO_OUT:
        return ""
    inputs = node["inputs"]

    def texts(names: Iterable[str]) -> list[str]:
        """Return the texts of these inputs without repetitions."""
        every = (_text(graph, inputs[name], role, depth + 1) for name in names if name in inputs)
        return list(dict.fromkeys(text for text in every if text.strip()))

    if str(node.get("class_type")).startswith("ShowText"):  # it has its link and the text that came through it
        shown = [kept for name, kept in inputs.items() if name.startswith("text") and isinstance(kept, str)]
        if shown:
            return shown[-1]
    if complete := texts((*TEXTS, role, f"text_{role}", f"{role}_prompt")):
        return max(complete, key=len)
    if pieces := texts(name for name in inputs if PIECE.fullmatch(name)):
        delimiter = inputs.get("delimiter", inputs.get("separator", ""))
        return (delimiter if isinstance(delimiter, str) else "").join(pieces)
    if joined := texts(name for name in inputs if name.startswith("cond")):
        return ", ".join(joined)
    links = [name for name, each in inputs.items() if _linked(graph, each)]
    return "".join(texts(links)) if len(links) == 1 else ""  # a node that passes on, such as Reroute
