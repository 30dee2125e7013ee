"""Prompts in words: CONDITIONING does not say what text it was made from, the graph does."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from ..d3po_core.errors import D3POError
from ..d3po_core.run import Run
from .host.conditioning import Cond, key_of
from .host.model import HostModel

UNKNOWN = "prompt"
MOST = 1000
"""Prompts that a list may stand for."""


def text_of(graph: dict[str, Any] | None, node: str | None, name: str) -> str:
    """The texts that lead to an input, joined; "prompt" where the graph shows none.

    Args:
        graph: as the host executes it: nodes by id, inputs being values or [node, output].
        node: id of the node.
        name: of its input.
    """
    found: list[str] = []

    def visit(link: Any, seen: set[str]) -> None:
        if not (isinstance(link, list) and len(link) == 2) or str(link[0]) in seen:
            return
        inputs = (graph or {}).get(str(link[0]), {}).get("inputs", {})
        texts = [value.strip() for key, value in inputs.items() if isinstance(value, str) and key.startswith("text")]
        found.extend(text for text in texts if text and text not in found)
        if not texts:
            for value in inputs.values():
                visit(value, seen | {str(link[0])})

    visit((graph or {}).get(str(node), {}).get("inputs", {}).get(name), set())
    return " | ".join(found) or UNKNOWN


def listed(text: str) -> list[str]:
    """The prompts of a list: one a line, and of a line with {a|b} each choice.

    Raises:
        D3POError: they are more than 1,000.
    """
    found = list(islice((one for line in text.splitlines() if line.strip() for one in _choices(line)), MOST + 1))
    if len(found) > MOST:
        raise D3POError(
            f"The prompt list stands for more than {MOST:,} prompts.", "Take out some lines or some {a|b} choices."
        )
    return list(dict.fromkeys(" ".join(one.split()) for one in found if one.strip()))


def _choices(line: str) -> Iterator[str]:
    """A line with every combination of its choices, the innermost first."""
    choice = re.search(r"\{([^{}]*)\}", line)
    if choice is None:
        yield line
        return
    for option in choice[1].split("|"):
        yield from _choices(line[: choice.start()] + option + line[choice.end() :])


def encoder(clip: Any, like: Cond) -> Callable[[str], Cond]:
    """What makes a text CONDITIONING; what one entry of another carries besides its text (a ControlNet, an area) goes
    along.

    Raises:
        D3POError: there is no CLIP.
    """
    if clip is None:
        raise D3POError(
            "There is a prompt list, and no CLIP to read it.", "Connect the checkpoint's CLIP, or empty the list."
        )
    besides = {k: v for k, v in like[0][1].items() if k != "pooled_output"} if len(like) == 1 else {}

    def encode(text: str) -> Cond:
        found = clip.encode_from_tokens_scheduled(clip.tokenize(text))
        return [[tensor, {**besides, **options}] for tensor, options in found]

    return encode


def label(run: Run, model: HostModel, text: str, positive: Cond, negative: Cond, against: str = "") -> str:
    """The text, numbered where the same text stands for another conditioning in this run, and known to the model.

    Args:
        against: text of the negative prompt.
    """
    known = {prompt.text: prompt.id for prompt in run.prompts.all() if prompt.negative == against}
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
