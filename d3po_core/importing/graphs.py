"""The prompts of ComfyUI's graphs, in the form of its API:

    {"3": {"class_type": "KSampler", "inputs": {"positive": ["6", 0], ...}}, "6": {...}, ...}

An input is a value, or a link [node, output]. From the node that saved an image the nearest samplers are looked for,
and their positive and negative inputs are followed, output by output, to texts. What ComfyUI's own nodes do to a text
is done here too (graph_texts.py). Other packs have thousands of kinds of nodes: those are believed that are listed, or
that can have one meaning only. What any other makes of its inputs cannot be known, and no text is better than a wrong
one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from typing import TypeGuard

from .graph_texts import Graph, Inputs, Node, UnknownText, kind_of, linked, text_of_node

Texts = tuple[str, str]
"""The prompt and the negative prompt; empty where they are not known."""

SIDES = ("positive", "negative")
PIPES = ("pipe", "basic_pipe", "detailer_pipe", "base_ctx", "context")
"""Inputs that bring both sides, beside a model and more."""
_MODEL_FIRST = (
    *("LTXVReferenceAudio", "WanInfiniteTalkToVideo", "ApplyInstantID", "BrushNet", "PowerPaint"),
    *("Efficient Loader", "KSampler (Efficient)", "KSampler Adv. (Efficient)"),
)
_LAYOUTS: tuple[tuple[dict[int, str], tuple[str, ...]], ...] = (
    ({1: "positive", 2: "negative"}, _MODEL_FIRST),
    ({0: "positive", 1: "negative", 2: "negative"}, ("WanPhantomSubjectToVideo",)),
    ({3: "positive", 4: "negative"}, ("FromBasicPipe", "FromDetailerPipe")),
    ({4: "positive", 5: "negative"}, ("FromBasicPipe_v2", "FromDetailerPipe_v2")),
    ({4: "positive", 5: "negative"}, ("Context (rgthree)", "Context Big (rgthree)")),
)
OUTPUTS = {kind: sides for sides, kinds in _LAYOUTS for kind in kinds}
"""Which side nodes have at which output, of those that do not begin with the positive one and the negative one."""
BESIDES = {"CLIPTextEncodeControlnet": "conditioning", "GLIGENTextBoxApply": "conditioning_to"}
"""Nodes whose own text is for a ControlNet or a place in the image: the input that has the prompt."""
ENCODED = (
    *("populated_text", "t5xxl", "llama", "qwen25_7b", "mt5xl", "text", "text_g", "text_l", "clip_g", "clip_l"),
    *("prompt", "user_prompt", "bert", "caption", "tags"),
)
"""Inputs of nodes that encode texts. Of several, the first `WHOLE` that is not empty is taken, else the longest."""
WHOLE = ENCODED[:5]
"""What came out of a node, and texts for language models, which are whole sentences beside tags for CLIP."""
ENCODES = re.compile(r"encode", re.IGNORECASE)
CHANGES = re.compile(r"translat|nsp|schedul|travel|wildcard|style", re.IGNORECASE)
"""Parts of the names of encoders that change their text first."""
JOINS = re.compile(r"Conditioning(Combine|Concat|Average|SetDefaultCombine|SetPropertiesAndCombine)")
"""ComfyUI's nodes that put several conditionings together."""
BRINGS = re.compile(r"pipe|context|sampler", re.IGNORECASE)
"""Parts of the names of nodes that pass on what comes through a pipe."""
SELECTORS = ("select", "index", "input", "switch", "boolean", "cond", "boolean_value")
CHOICES = {True: ("on_true", "tt_value", "true", "input_true"), False: ("on_false", "ff_value", "false", "input_false")}
"""Inputs that choose, and what stands for either answer."""
MAX_DEPTH = 100
"""Nodes between a sampler and its text, at most: a damaged graph may have cycles."""
MAX_NODES = 20_000
"""Visits to nodes of one image, at most."""
EXTRA_NETWORK = re.compile(r"<(?:lora|lyco|lycoris|hypernet|loha|lokr):[^<>]+>", re.IGNORECASE)
"""`<lora:name:weight>` and the like choose networks, and are no words of a prompt."""


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
    return _side(graph, inputs, (side,))


def _is_node(node: object) -> TypeGuard[Node]:
    return isinstance(node, dict) and isinstance(node.get("inputs"), dict)


def _upstream(graph: Graph, values: Iterable[object]) -> list[Node]:
    return [link[0] for value in values if (link := linked(graph, value))]


def _savers(graph: Graph, saved_as: str) -> list[Node]:
    """Return the nodes that may have saved an image: by its name, else all that save, else all that show, else all."""
    saving = [node for node in graph.values() if "save" in kind_of(node).lower()]
    showing = [node for node in graph.values() if "preview" in kind_of(node).lower()]
    if "_temp_" in saved_as:  # that is how the host calls what is only shown
        return showing
    named = [node for node in saving if _names(node["inputs"].get("filename_prefix"), saved_as)]
    return named or saving or showing or list(graph.values())


def _names(prefix: object, saved_as: str) -> bool:
    """Return whether ComfyUI may have given this name for a prefix: a counter follows, %...% stand for anything."""
    if not isinstance(prefix, str) or not re.search(r"_\d+_?$", saved_as):
        return False
    begin, *rest = re.split(r"[\\/]", prefix)[-1].split("%")
    counted = re.sub(r"_\d+_?$", "", saved_as)
    return counted.startswith(begin) if rest else counted == begin


def _samplers(graph: Graph, ends: list[Node]) -> list[Node]:
    """Return the first node with a prompt on every way upstream from these, or that may have drawn in another way.

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
        inputs = {name: value for name, value in node["inputs"].items() if name != "filename_prefix"}
        if not _is_sampler(graph, node):
            draws = any(name in inputs for name in ("seed", "noise_seed", "steps", "prompt", "text"))
            found += [node] if draws and node not in ends else []
            queue += [] if draws and node not in ends else _upstream(graph, inputs.values())
            continue
        images = _upstream(graph, (inputs.get(name) for name in ("image", "images", "upscaled_image")))
        of_image = _samplers(graph, images) if images and not linked(graph, inputs.get("latent_image")) else []
        found += of_image or [node]
    return found


def _is_sampler(graph: Graph, node: Node) -> bool:
    inputs = node["inputs"]
    if linked(graph, inputs.get("guider")):
        return True
    sampling = any(name in inputs for name in ("latent_image", "latent", "seed", "noise_seed", "steps", "cfg", "noise"))
    return sampling and any(linked(graph, inputs.get(name)) for name in (*SIDES, "conditioning", *PIPES))


def _sampled(graph: Graph, sampler: Node) -> Texts:
    """Return the texts of a sampler's sides."""
    inputs = sampler["inputs"]
    guider = linked(graph, inputs.get("guider"))
    inputs = {**(guider[0]["inputs"] if guider else {}), **inputs}
    positive = _side(graph, inputs, ("positive", "conditioning", "cond1"))
    return positive, _side(graph, inputs, ("negative", "neg_conditioning"))


def _side(graph: Graph, inputs: Inputs, names: tuple[str, ...]) -> str:
    """Return the text of the first of these inputs that is linked, or else of a pipe; the first names the side."""
    name = next((name for name in (*names, *PIPES) if linked(graph, inputs.get(name))), "")
    try:
        text = Follower(graph).conditioning(inputs.get(name), names[0], piped=name in PIPES)
    except UnknownText:
        return ""
    return EXTRA_NETWORK.sub("", text).strip()


class Follower:
    """Follows links to texts, each only once, and gives up on graphs that were made to take for ever."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._known: dict[tuple[int, int, str], str] = {}
        self._visits = 0

    def conditioning(self, value: object, side: str, depth: int = 0, piped: bool = False) -> str:
        """Return the text of the conditioning that an input is linked to; "" for none.

        Args:
            value: of the input.
            side: which one it is followed for, for nodes that do not tell by their outputs.
            depth: number of nodes that were passed.
            piped: whether the link is a pipe, which has both sides.

        Raises:
            UnknownText: it is not known.
        """
        follow = self._of_pipe if piped else self._conditioning
        return self._once(value, side, depth, follow)

    def string(self, value: object, depth: int = 0) -> str:
        """Return the text that an input holds or is linked to; raises as `conditioning` does."""
        if isinstance(value, str):
            return value
        return self._once(value, "", depth, self._string)

    def _once(self, value: object, side: str, depth: int, follow: Callable[[Node, int, str, int], str]) -> str:
        link = linked(self.graph, value)
        self._visits += 1
        if link is None or depth > MAX_DEPTH or self._visits > MAX_NODES:
            raise UnknownText
        node, output = link
        key = (id(node), output, f"{follow.__name__} {side}")
        if key not in self._known:
            self._known[key] = follow(node, output, side, depth + 1)
        return self._known[key]

    def _string(self, node: Node, output: int, side: str, depth: int) -> str:
        if (chosen := self._chosen(node)) is not None:
            return self.string(chosen, depth)
        return text_of_node(self.graph, node, lambda value: self.string(value, depth))

    def _of_pipe(self, node: Node, output: int, side: str, depth: int) -> str:
        """Return a side's text of what comes through a pipe: the node's own, or else of the pipe that it takes."""
        if (chosen := self._chosen(node)) is not None:
            return self.conditioning(chosen, side, depth, piped=True)
        inputs = node["inputs"]
        if names := _sides(self.graph, node).get(side):
            if CHANGES.search(kind_of(node)):
                raise UnknownText
            return _joined(self._of_side(inputs[name], side, depth) for name in names)
        links = [name for name in inputs if linked(self.graph, inputs[name])]
        pipes = [name for name in links if name in PIPES] or links
        if len(pipes) != 1 or not BRINGS.search(kind_of(node)):
            raise UnknownText
        return self.conditioning(inputs[pipes[0]], side, depth, piped=True)

    def _conditioning(self, node: Node, output: int, side: str, depth: int) -> str:
        inputs, kind = node["inputs"], kind_of(node)
        if kind == "ConditioningZeroOut":
            return ""
        if (chosen := self._chosen(node)) is not None:
            return self.conditioning(chosen, side, depth)
        if kind in BESIDES:
            return self.conditioning(inputs.get(BESIDES[kind]), side, depth)
        pipe = next((inputs[name] for name in PIPES if linked(self.graph, inputs.get(name))), None)
        sided = _sides(self.graph, node)
        if sided or pipe is not None:
            return self._of_pipe(node, output, _side_at(node, output, pipe is not None), depth)
        return self._of_one_side(node, side, depth)

    def _of_side(self, value: object, side: str, depth: int) -> str:
        """Return the text of a side's input, which in loaders is a box for it."""
        if isinstance(value, str):
            return value
        try:
            return self.conditioning(value, side, depth)
        except UnknownText:
            return self.string(value, depth)

    def _of_one_side(self, node: Node, side: str, depth: int) -> str:
        """Return the text of a node that encodes one, or passes on or puts together conditionings."""
        inputs, kind = node["inputs"], kind_of(node)
        given = [name for name in inputs if name.startswith("cond") and linked(self.graph, inputs[name])]
        own = [name for name in ENCODED if name in inputs]
        if own and not given:
            changed = CHANGES.search(kind) is not None and "populated_text" not in own
            if changed or "clip" not in inputs or not ENCODES.search(kind):
                raise UnknownText
            return self._encoded(inputs, own, depth)
        if kind == "ConditioningAverage" and (strength := inputs.get("conditioning_to_strength")) in (0, 1):
            given = ["conditioning_to" if strength else "conditioning_from"]
        if not given:  # a node that passes on, such as Reroute
            given = [name for name in inputs if linked(self.graph, inputs[name])]
        if len(given) != 1 and not JOINS.match(kind):
            raise UnknownText
        return _joined(self.conditioning(inputs[name], side, depth) for name in given)

    def _encoded(self, inputs: Inputs, names: list[str], depth: int) -> str:
        """Return the text that stands for all that a node encodes."""
        if inputs.get("with_SDXL") is False:  # such nodes have the texts of both kinds
            names = ["text"]
        for name in names:
            if name in WHOLE and (text := self.string(inputs[name], depth)).strip():
                return text
        return max((self.string(inputs[name], depth) for name in names), key=len)

    def _chosen(self, node: Node) -> object | None:
        """Return the value that a switch lets through; None for nodes that are none.

        Raises:
            UnknownText: something else decides which one.
        """
        inputs, kind = node["inputs"], kind_of(node)
        if kind in ("Any Switch (rgthree)", "Context Switch (rgthree)"):
            return next((inputs[name] for name in sorted(inputs) if linked(self.graph, inputs[name])), None)
        if not re.search(r"switch|branch", kind, re.IGNORECASE):
            return None
        selector = next((value for name, value in inputs.items() if name.lower() in SELECTORS), None)
        if linked(self.graph, selector):
            selector = self._constant(selector)
        names: list[str] = []
        if isinstance(selector, bool):
            names = [name for name in CHOICES[selector] if name in inputs]
        elif isinstance(selector, int):
            names = [name for name in inputs if re.fullmatch(rf"[a-zA-Z_]+?0*{abs(selector)}", name)]
        if len(names) != 1:
            raise UnknownText
        return inputs[names[0]]

    def _constant(self, value: object) -> object:
        """Return the value of a primitive; None for any other node."""
        link = linked(self.graph, value)
        return link[0]["inputs"].get("value") if link and kind_of(link[0]).startswith("Primitive") else None


def _joined(texts: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(text for text in texts if text.strip()))


def _sides(graph: Graph, node: Node) -> dict[str, list[str]]:
    """Return the inputs of each side of a node that takes both; {} for other nodes."""
    inputs = node["inputs"]
    sided = {
        side: [
            name
            for name, value in inputs.items()
            if (name in (side, side[:3]) and value is not None)
            or (name.startswith((f"{side}_", f"base_{side}")) and linked(graph, value))
        ]
        for side in SIDES
    }
    if "prompt" in inputs and "negative_prompt" in inputs and not sided["positive"]:
        sided = {"positive": ["prompt"], "negative": ["negative_prompt"]}
    piped = any(linked(graph, inputs.get(name)) for name in PIPES)
    return sided if all(sided.values()) or (piped and any(sided.values())) else {}


def _side_at(node: Node, output: int, piped: bool) -> str:
    """Return which side a node has at an output that is no pipe.

    Args:
        node: it takes both sides, or a pipe.
        output: number of the output.
        piped: whether it takes a pipe.

    Raises:
        UnknownText: its outputs are not known. With a model among its inputs it may begin with that one.
    """
    kind, inputs = kind_of(node), node["inputs"]
    if kind in OUTPUTS and output in OUTPUTS[kind]:
        return OUTPUTS[kind][output]
    if kind in OUTPUTS or "model" in inputs or piped or output >= len(SIDES):
        raise UnknownText
    return SIDES[output]
