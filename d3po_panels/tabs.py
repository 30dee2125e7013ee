"""The tabs around the gallery, and the gallery itself as HTML."""

from __future__ import annotations

import html
from collections.abc import Callable

import gradio as gr

from d3po_core.run.run import RunLibrary

from . import panels, tastes
from .controls import Component, Refresh
from .import_panel import import_panel
from .other_methods import other_ways
from .words import WORDS
from .worker import Worker

PANELS: dict[str, Callable[[RunLibrary, Worker, Component], Refresh | None]] = {
    "compare": panels.compare,
    "others": other_ways,
    "bring": import_panel,
    "files": panels.files,
    "trouble": panels.trouble,
}
"""The tabs that every page has besides picking and beginning, by their words."""


def gallery_element(library: RunLibrary, taste: str | None, base: str = "/d3po") -> str:
    """Return the gallery of a taste as HTML.

    Args:
        library: of all tastes.
        taste: its label.
        base: where the gallery's API is mounted.
    """
    run = tastes.find(library, taste)
    if run is None:
        return f"<p>{html.escape(WORDS['no_taste'])}</p>"
    return f'<d3po-gallery base="{base}" taste="{run.run_id}" autofocus></d3po-gallery>'


def panel_tabs(
    library: RunLibrary,
    worker: Worker,
    taste: Component,
    above: dict[str, Callable[[], object]],
    panels: dict[str, Callable[[RunLibrary, Worker, Component], Refresh | None]] = PANELS,
) -> dict[str, Component]:
    """Make tabs with panels, and return them by their names.

    Args:
        library: of all tastes.
        worker: does what is asked for.
        taste: the list of tastes; its choice rules all panels.
        above: by tab, what makes components above its panel.
        panels: by tab, what makes its panel.
    """
    tabs = {}
    for name, panel in panels.items():
        with gr.Tab(WORDS[name], elem_id=f"d3po_{name}") as tabs[name]:
            above.get(name, lambda: None)()
            refresh = panel(library, worker, taste)
        if refresh:
            for event in (tabs[name].select, taste.change):
                event(refresh.update, taste, refresh.outputs, show_progress="hidden")
    return tabs
