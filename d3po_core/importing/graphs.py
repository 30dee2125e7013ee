"""The prompts of ComfyUI's graphs, in the form of its API:

    {"3": {"class_type": "KSampler", "inputs": {"positive": ["6", 0], ...}}, "6": {...}, ...}

An input is a value, or a link [node, output]. From the node that saved an image the nearest samplers are looked for,
and their positive and negative inputs are followed, output by output, to texts. What ComfyUI's own nodes do to a text
is done here too. Other packs have thousands of kinds of nodes: of those a text is taken where the node can hardly be
anything but a box for it, or keeps the text that came out. What else a node makes (a language model, a wildcard, a line
of a list) cannot be known from its inputs, and no text is better than a wrong one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TypedDict, TypeGuard

Inputs = dict[str, object]


class Node(TypedDict, total=False):
    """A node of a graph; `inputs` is always there."""

    class_type: object
    inputs: Inputs


Graph = Mapping[str, Node]
Texts = tuple[str, str]
"""The prompt and the negative prompt; empty where they are not known."""

SIDES = ("positive", "negative")
ENCODED = (
    *("populated_text", "text", "t5xxl", "text_g", "text_l", "clip_g", "clip_l", "prompt", "user_prompt"),
    *("bert", "mt5xl", "llama", "qwen25_7b", "caption", "tags"),
)
"""Inputs of nodes that encode texts. If a node has several (SDXL's and Flux's encoders), the longest is taken."""
KEPT = ("populated_text",)
"""Inputs in which a node keeps the text that came out of it."""
BOXES = ("text", "string", "value", "prompt", "positive", "negative", "multiline_text", "str", "source", "any_01")
"""The only input of nodes that hold or pass on a text as it is."""
PIECE = re.compile(r"(?:text|string|prompt)_?(?:[a-z]|\d+)")
"""Inputs of nodes that join texts."""
JOINS = re.compile(r"concat|join|combine|merge|append", re.IGNORECASE)
MADE = re.compile(
    r"llm|gpt|ollama|generat|random|wildcard|dynamic|styler?\b|caption|interrogat|translat|describe|llava|florence|vlm|"
    r"tagger|load|file|list|line|csv|qwen|gemini|claude",
    re.IGNORECASE,
)
"""Parts of the names of nodes whose text is another than that of their inputs."""
SHOWS = re.compile(r"show|display|preview", re.IGNORECASE)
"""Parts of the names of nodes that keep the text that came through them, beside their link."""
OUTPUTS: dict[str, dict[int, str]] = {
    "LTXVReferenceAudio": {1: "positive", 2: "negative"},
    "WanInfiniteTalkToVideo": {1: "positive", 2: "negative"},
    "WanPhantomSubjectToVideo": {0: "positive", 1: "negative", 2: "negative"},
    "Efficient Loader": {1: "positive", 2: "negative"},
    "FromBasicPipe": {3: "positive", 4: "negative"},
    "FromBasicPipe_v2": {4: "positive", 5: "negative"},
    "FromDetailerPipe": {3: "positive", 4: "negative"},
    "FromDetailerPipe_v2": {4: "positive", 5: "negative"},
    "Context (rgthree)": {4: "positive", 5: "negative"},
    "Context Big (rgthree)": {4: "positive", 5: "negative"},
    "Context Switch (rgthree)": {4: "positive", 5: "negative"},
    "Context Merge (rgthree)": {4: "positive", 5: "negative"},
}
"""Which side nodes have at which output, of those that have both and do not begin with the positive one."""
BESIDES = {"CLIPTextEncodeControlnet": "conditioning", "GLIGENTextBoxApply": "conditioning_to"}
"""Nodes whose own text is for a ControlNet or a place in the image: the input that has the prompt."""
SELECTORS = ("select", "index", "input", "switch", "boolean", "cond", "boolean_value")
CHOICES = {True: ("on_true", "tt_value", "true", "input_true"), False: ("on_false", "ff_value", "false", "input_false")}
EXTRA_NETWORK = re.compile(r"<\w+:[^>]+>")
"""`<lora:name:weight>` and the like choose networks, and are no words of a prompt."""
MAX_DEPTH = 100
"""Nodes between a sampler and its text, at most: a damaged graph may have cycles."""


class UnknownText(Exception):
    """What came out of a node cannot be known from the graph."""


def parse_graph(text: str, saved_as: str = "") -> Texts:
    """Return the prompt and the negative prompt of an image that has this graph, as JSON.

    Args:
        text: the graph.
        saved_as: the image's file name without its ending, which tells which of several nodes saved it.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return "", ""
    graph: Graph = {name: node for name, node in data.items() if _is_node(node)} if isinstance(data, dict) else {}
    found = {_sampled(graph, node) for node in _samplers(graph, _savers(graph, saved_as))}
    return found.pop() if len(found) == 1 else ("", "")


def side_text(graph: Graph, inputs: Inputs, side: str) -> str:
    """Return the text that a sampler's positive or negative input leads to; empty if it is not known.

    Args:
        graph: the nodes by id.
        inputs: of the sampler.
        side: one of `SIDES`.
    """
    try:
        text = _conditioning(graph, inputs.get(side), side)
    except UnknownText:
        return ""
    return EXTRA_NETWORK.sub("", text).strip()


def _is_node(node: object) -> TypeGuard[Node]:
    return isinstance(node, dict) and isinstance(node.get("inputs"), dict)


def _link(graph: Graph, value: object) -> tuple[Node, int] | None:
    """Return the node that a link leads to, and the number of its output; None for any other value."""
    if isinstance(value, list) and len(value) == 2 and isinstance(value[0], str | int) and isinstance(value[1], int):
        node = graph.get(str(value[0]))
        return (node, value[1]) if node else None
    return None


def _linked(graph: Graph, values: Iterable[object]) -> list[Node]:
    return [link[0] for value in values if (link := _link(graph, value))]


def _kind(node: Node) -> str:
    return str(node.get("class_type", ""))


def _savers(graph: Graph, saved_as: str) -> list[Node]:
    """Return the nodes that may have saved an image: by its name, else all that save, else all that show, else all."""
    saving = [node for node in graph.values() if "save" in _kind(node).lower()]
    named = [node for node in saving if _names(node["inputs"].get("filename_prefix"), saved_as)]
    showing = [node for node in graph.values() if "preview" in _kind(node).lower()]
    return named or saving or showing or list(graph.values())


def _names(prefix: object, saved_as: str) -> bool:
    """Return whether ComfyUI may have given this name for a prefix: a counter follows, %...% stand for anything."""
    if not isinstance(prefix, str) or not saved_as:
        return False
    last = re.split(r"[\\/]", prefix)[-1]
    parts = [re.escape(part) if i % 2 == 0 else ".*" for i, part in enumerate(last.split("%"))]
    return re.fullmatch("".join(parts) + r"_\d+_?", saved_as) is not None


def _samplers(graph: Graph, ends: list[Node]) -> list[Node]:
    """Return the first node with a prompt on every way upstream from these.

    A node that takes an image and changes parts of it (a detailer, an upscaler) has the prompt of a part: if the image
    has a sampler of its own, that one counts.
    """
    found: list[Node] = []
    queue, seen = list(ends), set[int]()
    while queue:
        node = queue.pop(0)
        if id(node) in seen:
            continue
        seen.add(id(node))
        inputs = node["inputs"]
        if not _is_sampler(graph, node):
            queue += _linked(graph, inputs.values())
            continue
        images = _linked(graph, (value for name, value in inputs.items() if name in ("image", "images")))
        of_image = _samplers(graph, images) if images and not _link(graph, inputs.get("latent_image")) else []
        found += of_image or [node]
    return found


def _is_sampler(graph: Graph, node: Node) -> bool:
    inputs = node["inputs"]
    sampling = any(name in inputs for name in ("latent_image", "latent", "seed", "noise_seed", "steps", "cfg", "noise"))
    if _link(graph, inputs.get("guider")):
        return True
    return sampling and any(_link(graph, inputs.get(name)) for name in (*SIDES, "conditioning", *PIPES))


PIPES = ("pipe", "basic_pipe", "detailer_pipe", "base_ctx", "context")


def _sampled(graph: Graph, sampler: Node) -> Texts:
    """Return the texts of a sampler's sides."""
    inputs = sampler["inputs"]
    guider = _link(graph, inputs.get("guider"))
    inputs = {**(guider[0]["inputs"] if guider else {}), **inputs}
    named = next((name for name in ("positive", "conditioning", "cond1", *PIPES) if _link(graph, inputs.get(name))), "")
    against = next((name for name in ("negative", "neg_conditioning", *PIPES) if _link(graph, inputs.get(name))), "")
    positive, negative = inputs.get(named), inputs.get(against)
    of_sides = {"positive": positive, "negative": negative}
    return side_text(graph, of_sides, "positive"), side_text(graph, of_sides, "negative")


def _conditioning(graph: Graph, value: object, side: str, depth: int = 0) -> str:
    """Return the text of the conditioning that an input holds or is linked to; "" for none.

    Args:
        graph: the nodes by id.
        value: of the input.
        side: which one it is followed for, for nodes that do not tell by their outputs.
        depth: number of nodes that were passed.

    Raises:
        UnknownText: it is not known.
    """
    link = _link(graph, value)
    if link is None or depth > MAX_DEPTH:
        if isinstance(value, str):  # a loader's own text box
            return value
        raise UnknownText
    node, output = link
    inputs, kind = node["inputs"], _kind(node)
    if kind == "ConditioningZeroOut":
        return ""

    def join(names: Iterable[str], side: str = side) -> str:
        texts = (_conditioning(graph, inputs[name], side, depth + 1) for name in names)
        return ", ".join(dict.fromkeys(text for text in texts if text.strip()))

    if (chosen := _choose(graph, node)) is not None:
        return _conditioning(graph, chosen, side, depth + 1)
    if sided := _sides(graph, node):
        side = OUTPUTS.get(kind, dict(enumerate(SIDES))).get(output, side)
        return join(sided[side], side)
    if kind in BESIDES:
        return join([BESIDES[kind]])
    before = [name for name in inputs if name.startswith(("cond", "base_pos")) and _link(graph, inputs[name])]
    own = [name for name in ENCODED if name in inputs]
    if own and (before or "clip" in inputs or not MADE.search(kind)):
        encoded = _encoded(graph, node, own, depth)
        return ", ".join(text for text in (join(before), encoded) if text.strip())
    if before:
        return join(before)
    links = [name for name, each in inputs.items() if _link(graph, each)]
    pipes = [name for name in links if name in PIPES]
    if len(pipes or links) != 1:
        raise UnknownText
    return join(pipes or links)


def _sides(graph: Graph, node: Node) -> dict[str, list[str]]:
    """Return the inputs of either side of a node that has both; {} for other nodes."""
    inputs = node["inputs"]
    sided = {
        side: [
            name
            for name, value in inputs.items()
            if (name == side or name.startswith((f"{side}_", f"base_{side}"))) and (_link(graph, value) or name == side)
        ]
        for side in SIDES
    }
    if "prompt" in inputs and "negative_prompt" in inputs and not sided["positive"]:
        sided = {"positive": ["prompt"], "negative": ["negative_prompt"]}
    return sided if all(sided.values()) else {}


def _encoded(graph: Graph, node: Node, names: list[str], depth: int) -> str:
    """Return the longest of the texts that a node encodes."""
    kept = [name for name in KEPT if name in names]
    return max((_string(graph, node["inputs"][name], depth + 1) for name in kept or names), key=len)


def _string(graph: Graph, value: object, depth: int = 0) -> str:
    """Return the text that an input holds or is linked to.

    Raises:
        UnknownText: it is not known.
    """
    if isinstance(value, str):
        return value
    link = _link(graph, value)
    if link is None or depth > MAX_DEPTH:
        raise UnknownText
    node, _ = link
    inputs, kind = node["inputs"], _kind(node)

    def get(name: str) -> str:
        return _string(graph, inputs.get(name), depth + 1)

    if kind in OWN_STRINGS:
        return OWN_STRINGS[kind](get, inputs)
    if SHOWS.search(kind):
        shown = [each for name, each in inputs.items() if name.startswith("text") and isinstance(each, str)]
        if shown:
            return shown[-1]
    if kept := [name for name in KEPT if isinstance(inputs.get(name), str)]:
        return get(kept[0])
    if (chosen := _choose(graph, node)) is not None:
        return _string(graph, chosen, depth + 1)
    pieces = [name for name in inputs if PIECE.fullmatch(name)]
    if pieces and JOINS.search(kind):
        delimiter = inputs.get("delimiter", inputs.get("separator", ""))
        texts = [get(name) for name in pieces]
        return (delimiter if isinstance(delimiter, str) else "").replace("\\n", "\n").join(filter(str.strip, texts))
    return get(_box(graph, node))


def _box(graph: Graph, node: Node) -> str:
    """Return the only input of a node that holds a text or passes it on as it is.

    Raises:
        UnknownText: it may do something else.
    """
    inputs, kind = node["inputs"], _kind(node)
    links = [name for name, value in inputs.items() if _link(graph, value)]
    values = [name for name in inputs if name not in links and not isinstance(inputs[name], list | None)]
    named = [name for name in values if name in BOXES]
    if MADE.search(kind):
        raise UnknownText
    if len(values) == len(named) == 1 and all(name.startswith(("opt_", "clip", "model")) for name in links):
        return named[0]
    if len(links) == 1 and not values:
        return links[0]
    raise UnknownText


def _choose(graph: Graph, node: Node) -> object | None:
    """Return the value that a switch lets through; None for nodes that are none.

    Raises:
        UnknownText: something else decides which one.
    """
    inputs, kind = node["inputs"], _kind(node)
    if kind == "Any Switch (rgthree)":
        return next((inputs[name] for name in sorted(inputs) if _link(graph, inputs[name])), None)
    if not re.search(r"switch|branch", kind, re.IGNORECASE) or kind in OUTPUTS:
        return None
    selector = next((value for name, value in inputs.items() if name.lower() in SELECTORS), None)
    if _link(graph, selector):
        selector = _constant(graph, selector)
    if isinstance(selector, bool):
        names = [name for name in CHOICES[selector] if name in inputs]
    elif isinstance(selector, int):
        names = [name for name in inputs if re.fullmatch(rf"[a-z_]+?_?0*{selector}", name, re.IGNORECASE)]
    else:
        names = []
    if len(names) != 1:
        raise UnknownText
    return inputs[names[0]]


def _constant(graph: Graph, value: object) -> object:
    """Return the value of a node that holds one, such as a primitive; None for any other."""
    link = _link(graph, value)
    inputs = link[0]["inputs"] if link else {}
    return inputs.get("value") if len(inputs) == 1 else None


Get = Callable[[str], str]


def _number(inputs: Inputs, name: str) -> int:
    value = inputs.get(name)
    if not isinstance(value, int):
        raise UnknownText
    return value


CASES: dict[object, Callable[[str], str]] = {
    "UPPERCASE": str.upper,
    "lowercase": str.lower,
    "Capitalize": str.capitalize,
    "Title Case": str.title,
}
TRIMS: dict[object, Callable[[str], str]] = {"Both": str.strip, "Left": str.lstrip, "Right": str.rstrip}


def _mode(of: dict[object, Callable[[str], str]], inputs: Inputs) -> Callable[[str], str]:
    mode = inputs.get("mode")
    if not isinstance(mode, str):
        raise UnknownText
    return of.get(mode, str)


OWN_STRINGS: dict[str, Callable[[Get, Inputs], str]] = {
    "PrimitiveString": lambda get, inputs: get("value"),
    "PrimitiveStringMultiline": lambda get, inputs: get("value"),
    "CustomCombo": lambda get, inputs: get("choice"),
    "PreviewAny": lambda get, inputs: get("source"),
    "SaveText": lambda get, inputs: get("text"),
    "StringConcatenate": lambda get, inputs: get("delimiter").join((get("string_a"), get("string_b"))),
    "StringSubstring": lambda get, inputs: get("string")[_number(inputs, "start") : _number(inputs, "end")],
    "StringReplace": lambda get, inputs: get("string").replace(get("find"), get("replace")),
    "StringTrim": lambda get, inputs: _mode(TRIMS, inputs)(get("string")),
    "CaseConverter": lambda get, inputs: _mode(CASES, inputs)(get("string")),
    "TextToLowercase": lambda get, inputs: get("texts").lower(),
    "TextToUppercase": lambda get, inputs: get("texts").upper(),
    "TruncateText": lambda get, inputs: get("texts")[: _number(inputs, "max_length")],
    "AddTextPrefix": lambda get, inputs: get("prefix") + get("texts"),
    "AddTextSuffix": lambda get, inputs: get("texts") + get("suffix"),
    "ReplaceText": lambda get, inputs: get("texts").replace(get("find"), get("replace")),
    "StripWhitespace": lambda get, inputs: get("texts").strip(),
}
"""What ComfyUI's own nodes make of texts. Those with regular expressions are left out: a stranger's may never end."""
