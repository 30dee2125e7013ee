"""Prompts in words: CONDITIONING does not say what text it was made from, the graph does."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import islice
from typing import cast

from ..d3po_core.errors import D3POError
from ..d3po_core.importing.graphs import Graph as CoreGraph
from ..d3po_core.importing.graphs import side_text
from ..d3po_core.run import Run
from .graph import inputs_of
from .host.conditioning import key_of
from .host.model import HostModel
from .host.types import Clip, Cond, Graph

UNKNOWN = "prompt"
MAX_PROMPTS = 1000
"""That a list may stand for."""


def text_of(graph: Graph | None, node: str | None, side: str) -> str:
    """Return the text that leads to a node's positive or negative input, see `side_text`.

    Where the graph does not tell it, a positive prompt is called "prompt", and a negative one stays empty.
    """
    text = side_text(cast(CoreGraph, graph or {}), inputs_of(graph, node), side)
    return text or (UNKNOWN if side == "positive" else "")


def listed(text: str) -> list[str]:
    """Return the prompts of a list: one a line, and of a line with {a|b} each choice.

    Raises:
        D3POError: they are more than 1,000.
    """
    lines = (line for line in text.splitlines() if line.strip())
    prompts = list(islice((prompt for line in lines for prompt in _choices(line)), MAX_PROMPTS + 1))
    if len(prompts) > MAX_PROMPTS:
        raise D3POError(
            f"The prompt list stands for more than {MAX_PROMPTS:,} prompts.",
            "Take out some lines or some {a|b} choices.",
        )
    return list(dict.fromkeys(" ".join(prompt.split()) for prompt in prompts if prompt.strip()))


def _choices(line: str) -> Iterator[str]:
    """Iterate over a line with every combination of its choices, the innermost first."""
    choice = re.search(r"\{([^{}]*)\}", line)
    if choice is None:
        yield line
        return
    for option in choice[1].split("|"):
        yield from _choices(line[: choice.start()] + option + line[choice.end() :])


def encoder(clip: Clip | None, like: Cond) -> Callable[[str], Cond]:
    """Return what makes CONDITIONING of a text.

    Args:
        clip: reads texts.
        like: what its one entry carries besides its text (a ControlNet, an area) goes along.

    Raises:
        D3POError: there is no CLIP.
    """
    if clip is None:
        raise D3POError(
            "There is a prompt list, and no CLIP to read it.", "Connect the checkpoint's CLIP, or empty the list."
        )
    besides = {k: v for k, v in like[0][1].items() if k != "pooled_output"} if len(like) == 1 else {}

    def encode(text: str) -> Cond:
        entries: Cond = clip.encode_from_tokens_scheduled(clip.tokenize(text))
        return [[tensor, {**besides, **options}] for tensor, options in entries]

    return encode


def label(run: Run, model: HostModel, text: str, positive: Cond, negative: Cond, negative_text: str = "") -> str:
    """Make a prompt known to the model, and return the text that stands for it: numbered where the same text stands
    for another conditioning in this run."""
    known = {prompt.text: prompt.id for prompt in run.prompts.all() if prompt.negative == negative_text}
    name, number = text, 1
    while True:
        model.prompts[name] = (positive, negative)
        if name not in known or not run.prompts.has_conditioning(known[name]):
            return name
        if key_of(run.prompts.conditioning(known[name])) == key_of(model.encode([name])[0]):
            return name
        del model.prompts[name]
        number += 1
        name = f"{text} ({number})"
