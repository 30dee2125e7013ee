"""Prompts in words: CONDITIONING does not say what text it was made from, the graph does."""

from __future__ import annotations

from typing import Any

from ..d3po_core.run import Run
from .conditioning import Cond, key_of
from .host import HostModel

UNKNOWN = "prompt"


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


def label(run: Run, model: HostModel, text: str, positive: Cond, negative: Cond) -> str:
    """The text, numbered where the same text stands for another conditioning in this run, and known to the model."""
    known = {prompt.text: prompt.id for prompt in run.prompts()}
    name, number = text, 1
    while True:
        model.prompts[name] = (positive, negative)
        if name not in known or not run.has_conditioning(known[name]):
            return name
        if key_of(run.conditioning(known[name])) == key_of(model.encode([name])[0]):
            return name
        del model.prompts[name]
        number += 1
        name = f"{text} ({number})"
