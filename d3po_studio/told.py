"""Mistakes in what a page's controls do."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import gradio as gr

from d3po_core.errors import D3POError


def told(work: Callable[..., Any]) -> Callable[..., Any]:
    """An event's work, whose mistakes are shown as a sentence."""

    @functools.wraps(work)
    def shown(*values: Any) -> Any:
        try:
            return work(*values)
        except D3POError as error:
            raise gr.Error(str(error)) from error

    return shown
