from __future__ import annotations

import html
from collections.abc import Callable
from typing import Any

import gradio as gr

from d3po_core.run.library import RunLibrary

from . import panels, tastes
from .bring import bring
from .other_methods import other_ways
from .words import WORDS
from .worker import Worker

PANELS: dict[str, Callable[[RunLibrary, Worker, Any], Any]] = {
    "compare": panels.compare,
    "others": other_ways,
    "bring": bring,
    "files": panels.files,
    "trouble": panels.trouble,
}
"""The tabs that every page has besides picking and beginning, by their words. What a panel gives back is done when its
tab is opened, and when another taste is chosen: a function of the taste, and what it changes."""


def gallery_element(shelf: RunLibrary, taste: str | None, base: str = "/d3po") -> str:
    """The gallery for the taste that the list calls so, as HTML."""
    run = tastes.find(shelf, taste)
    if run is None:
        return f"<p>{html.escape(WORDS['no_taste'])}</p>"
    return f'<d3po-gallery base="{base}" taste="{run.run_id}"></d3po-gallery>'


def around(shelf: RunLibrary, worker: Worker, taste: Any, above: dict[str, Callable[[], Any]]) -> dict[str, Any]:
    """The tabs of `PANELS`, by their names; `above` makes what some hold besides, before the panel."""
    tabs = {}
    for name, panel in PANELS.items():
        with gr.Tab(WORDS[name], elem_id=f"d3po_{name}") as tabs[name]:
            above.get(name, lambda: None)()
            refresh = panel(shelf, worker, taste)
        if refresh:
            for event in (tabs[name].select, taste.change):
                event(refresh[0], taste, refresh[1], show_progress="hidden")
    return tabs
