"""The graph that ComfyUI writes into pictures, in its API's form, and the prompts in it:

    {"3": {"class_type": "KSampler", "inputs": {"positive": ["6", 0], ...}}, "6": {...}, ...}

An input is a value, or a link [node, output]. The sampler nearest to what saves the picture is asked for its positive
and negative input, and these are followed upstream until somebody says a text. Nodes are known by the names of their
inputs, because packs bring thousands of them. What a node computes (a language model, a wildcard) cannot be known,
unless the graph also says what came out.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterable
from typing import Any

Node = dict[str, Any]
Graph = dict[str, Node]

TEXTS = (
    *("populated_text", "text", "t5xxl", "text_g", "text_l", "clip_g", "clip_l", "prompt", "user_prompt"),
    *("bert", "mt5xl", "string", "value"),
)
"""Inputs that hold a whole text. Where a node has several (SDXL's and Flux's encoders), the longest is the fullest."""
PIECE = re.compile(r"(?:text|string|prompt)_?(?:[a-z]|\d+)")
"""Inputs of nodes that put texts together."""
NOTHING = "ConditioningZeroOut"
LONGEST_WAY = 100
"""Nodes between a sampler and its text, at most: a made-up graph may go in circles."""


def parse_graph(text: str) -> tuple[str, str]:
    """Prompt and negative prompt of a picture's graph; empty where there is none to be found."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return "", ""
    graph = {name: node for name, node in found.items() if _is_node(node)} if isinstance(found, dict) else {}
    sampler = _nearest_sampler(graph)
    if sampler is None:
        return "", ""
    guider = _linked(graph, sampler.get("guider")) or {}
    asked = {**guider.get("inputs", {}), **sampler}
    positive = next((asked[name] for name in ("positive", "conditioning", "cond1") if name in asked), None)
    return _text(graph, positive, "positive").strip(), _text(graph, asked.get("negative"), "negative").strip()


def _is_node(node: Any) -> bool:
    return isinstance(node, dict) and isinstance(node.get("inputs"), dict)


def _linked(graph: Graph, value: Any) -> Node | None:
    """The node that a link leads to; None for any other value."""
    if isinstance(value, list) and len(value) == 2 and isinstance(value[0], str | int) and isinstance(value[1], int):
        return graph.get(str(value[0]))
    return None


def _nearest_sampler(graph: Graph) -> dict[str, Any] | None:
    """The inputs of the first node upstream of what saves pictures that has a positive input or a guider."""
    for ends in (_named(graph, "Save"), _named(graph, "Preview"), list(graph.values())):
        waiting, seen = deque(reversed(ends)), set[int]()
        while waiting:
            node = waiting.popleft()
            if id(node) in seen:
                continue
            seen.add(id(node))
            inputs: dict[str, Any] = node["inputs"]
            if _linked(graph, inputs.get("positive")) or _linked(graph, inputs.get("guider")):
                return inputs
            waiting.extend(before for value in inputs.values() if (before := _linked(graph, value)))
    return None


def _named(graph: Graph, part: str) -> list[Node]:
    return [node for node in graph.values() if part in str(node.get("class_type"))]


def _text(graph: Graph, value: Any, role: str, way: int = 0) -> str:
    """The text that an input holds or is linked to.

    Args:
        value: of the input.
        role: "positive" or "negative", for nodes that pass on both.
        way: how many nodes lie behind.
    """
    if isinstance(value, str):
        return value
    node = _linked(graph, value)
    if node is None or way > LONGEST_WAY or node.get("class_type") == NOTHING:
        return ""
    inputs = node["inputs"]

    def texts(names: Iterable[str]) -> list[str]:
        """What these inputs say, the same thing once."""
        found = (_text(graph, inputs[name], role, way + 1) for name in names if name in inputs)
        return list(dict.fromkeys(text for text in found if text.strip()))

    if str(node.get("class_type")).startswith("ShowText"):  # beside its link it keeps what came through it
        shown = [kept for name, kept in inputs.items() if name.startswith("text") and isinstance(kept, str)]
        if shown:
            return shown[-1]
    if whole := texts((*TEXTS, role, f"text_{role}", f"{role}_prompt")):
        return max(whole, key=len)
    if pieces := texts(name for name in inputs if PIECE.fullmatch(name)):
        between = inputs.get("delimiter", inputs.get("separator", ""))
        return (between if isinstance(between, str) else "").join(pieces)
    if joined := texts(name for name in inputs if name.startswith("cond")):
        return ", ".join(joined)
    links = [name for name, each in inputs.items() if _linked(graph, each)]
    return "".join(texts(links)) if len(links) == 1 else ""  # a node that passes on, such as Reroute
