"""What nodes of a ComfyUI graph make of texts, as far as that can be known; see graphs.py."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TypedDict

Inputs = dict[str, object]


class Node(TypedDict, total=False):
    """A node of a graph; `inputs` is always there."""

    class_type: object
    inputs: Inputs


Graph = Mapping[str, Node]


class UnknownText(Exception):
    """What came out of a node cannot be known from the graph."""


def linked(graph: Graph, value: object) -> tuple[Node, int] | None:
    """Return the node that a link leads to, and the number of its output; None for any other value."""
    if isinstance(value, list) and len(value) == 2 and isinstance(value[0], str | int) and isinstance(value[1], int):
        node = graph.get(str(value[0]))
        return (node, value[1]) if node else None
    return None


def kind_of(node: Node) -> str:
    """Return a node's class."""
    return str(node.get("class_type", ""))


Get = Callable[[str], str]
"""Returns the text of an input by its name; raises UnknownText."""
Change = Callable[[str], str]
MAX_TEXT = 100_000
"""Letters of a text, at most: nodes that replace or repeat could make any number."""

BOXES = (
    *("text", "string", "textmultiline", "multilinetext", "multilinestring", "stringmultiline", "stringconstant"),
    *("stringconstantmultiline", "stringliteral", "textliteral", "prompttext", "positive", "negative", "textbox"),
    *("textinput", "textstring", "simpletext", "powerprompt", "powerpromptsimple"),
)
"""Names of nodes that hold one text, without their pack's, spaces and marks; see `_plain`."""
PASSES = ("reroute", "show", "display", "preview")
"""How the names begin of nodes that pass on what they are linked to. What they show was there before this image."""
JOINED = {
    "textconcatenate": r"text_?[a-z\d]",
    "joinstrings": r"string_?\d+",
    "joinstringmulti": r"string_\d+",
    "promptconcat": r"prompt\d",
}
"""Nodes that join texts: which inputs, in the order of their names."""
DELIMITERS = ("delimiter", "separator")


def text_of_node(graph: Graph, node: Node, follow: Callable[[object], str]) -> str:
    """Return the text that comes out of a node.

    Args:
        graph: the nodes by id.
        node: that makes or has a text.
        follow: returns the text of an input's value, or raises UnknownText.

    Raises:
        UnknownText: what it does is not known.
    """
    inputs, kind = node["inputs"], kind_of(node)

    def get(name: str) -> str:
        return follow(inputs.get(name))

    if kind in OWN:
        text = OWN[kind](get, inputs)
    elif isinstance(inputs.get("populated_text"), str):  # a wildcard's outcome, which the host writes before it runs
        text = get("populated_text")
    elif _plain(kind) in JOINED:
        text = _joined(get, inputs, JOINED[_plain(kind)])
    else:
        text = get(_passed(graph, node))
    if len(text) > MAX_TEXT:
        raise UnknownText
    return text


def _plain(kind: str) -> str:
    """Return a node's name without pack, spaces and marks: "CR Text Concatenate" is "textconcatenate"."""
    name = re.sub(r"\(.*?\)|\|.*", "", kind)
    name = re.sub(r"^(CR|ttN|easy|JW|WAS|KJ|DF)[\s_]*(?=[A-Za-z])", "", name)
    return re.sub(r"[^a-z]", "", name.lower()).removesuffix("node")


def _passed(graph: Graph, node: Node) -> str:
    """Return the input that a node passes on: its only text, or its only link.

    Raises:
        UnknownText: it may do something else.
    """
    inputs, name = node["inputs"], _plain(kind_of(node))
    links = [each for each in inputs if linked(graph, inputs[each])]
    texts = [each for each, value in inputs.items() if isinstance(value, str)]
    others = [each for each in inputs if each not in links and each not in texts]
    if name.startswith(PASSES) and len(links) == 1:
        return links[0]
    if name in BOXES and not others:
        linked_texts = [each for each in links if not each.startswith(("opt_", "clip", "model"))]
        if len(found := [*texts, *linked_texts]) == 1:
            return found[0]
    raise UnknownText


def _joined(get: Get, inputs: Inputs, pieces: str) -> str:
    names = [name for name in inputs if re.fullmatch(pieces, name)]
    names.sort(key=lambda name: (len(name), name))
    if isinstance(count := inputs.get("inputcount"), int):
        names = names[:count]
    between = next((inputs[name] for name in DELIMITERS if name in inputs), None)
    if not isinstance(between, str):
        raise UnknownText
    return between.replace("\\n", "\n").join(text for text in map(get, names) if text.strip())


def _number(inputs: Inputs, name: str) -> int:
    value = inputs.get(name)
    if not isinstance(value, int):
        raise UnknownText
    return value


def _mode(changes: dict[object, Change], inputs: Inputs) -> Change:
    mode = inputs.get("mode")
    if not isinstance(mode, str):
        raise UnknownText
    return changes.get(mode, str)


def _replaced(text: str, find: str, by: str) -> str:
    if (text.count(find) if find else len(text) + 1) * len(by) > MAX_TEXT:
        raise UnknownText
    return text.replace(find, by)


CASES: dict[object, Change] = {
    "UPPERCASE": str.upper,
    "lowercase": str.lower,
    "Capitalize": str.capitalize,
    "Title Case": str.title,
}
TRIMS: dict[object, Change] = {"Both": str.strip, "Left": str.lstrip, "Right": str.rstrip}
OWN: dict[str, Callable[[Get, Inputs], str]] = {
    "PrimitiveString": lambda get, inputs: get("value"),
    "PrimitiveStringMultiline": lambda get, inputs: get("value"),
    "CustomCombo": lambda get, inputs: get("choice"),
    "PreviewAny": lambda get, inputs: get("source"),
    "SaveText": lambda get, inputs: get("text"),
    "StringConcatenate": lambda get, inputs: get("delimiter").join((get("string_a"), get("string_b"))),
    "StringSubstring": lambda get, inputs: get("string")[_number(inputs, "start") : _number(inputs, "end")],
    "StringReplace": lambda get, inputs: _replaced(get("string"), get("find"), get("replace")),
    "StringTrim": lambda get, inputs: _mode(TRIMS, inputs)(get("string")),
    "CaseConverter": lambda get, inputs: _mode(CASES, inputs)(get("string")),
    "TextToLowercase": lambda get, inputs: get("texts").lower(),
    "TextToUppercase": lambda get, inputs: get("texts").upper(),
    "TruncateText": lambda get, inputs: get("texts")[: _number(inputs, "max_length")],
    "AddTextPrefix": lambda get, inputs: get("prefix") + get("texts"),
    "AddTextSuffix": lambda get, inputs: get("texts") + get("suffix"),
    "ReplaceText": lambda get, inputs: _replaced(get("texts"), get("find"), get("replace")),
    "StripWhitespace": lambda get, inputs: get("texts").strip(),
}
"""What ComfyUI's own nodes do. Those with regular expressions are left out: a stranger's may never end."""
