"""The Studio's page: the gallery, and around it what begins, compares and takes away a taste."""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import Any

import gradio as gr

from d3po_core.gallery import Shelf

from . import panels, tastes
from .bring import bring
from .other_ways import other_ways
from .words import WORDS
from .worker import Worker

HEAD = """
<script type="module" src="/d3po/web/gallery.mjs"></script>
<style>
  d3po-gallery { display: block; height: calc(100vh - 200px); min-height: 420px; }
  .d3po-grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(260px, 100%), 1fr)); }
  .d3po-grid { align-items: end; gap: 16px; }
  .d3po-grid > .form { display: contents; }
</style>
"""
PANELS: dict[str, Callable[[Shelf, Worker, Any], Any]] = {
    "compare": panels.compare,
    "others": other_ways,
    "bring": bring,
    "files": panels.files,
    "trouble": panels.trouble,
}
"""The tabs that every page has besides picking and beginning, by their words. What a panel gives back is done when its
tab is opened, and when another taste is chosen: a function of the taste, and what it changes."""


def gallery_element(shelf: Shelf, taste: str | None, base: str = "/d3po") -> str:
    """The gallery for the taste that the list calls so, as HTML."""
    run = tastes.find(shelf, taste)
    if run is None:
        return f"<p>{html.escape(WORDS['no_taste'])}</p>"
    return f'<d3po-gallery base="{base}" taste="{run.run_id}"></d3po-gallery>'


def around(shelf: Shelf, worker: Worker, taste: Any, above: dict[str, Callable[[], Any]]) -> dict[str, Any]:
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


def build(shelf: Shelf, worker: Worker) -> Any:
    """The page; the choice of taste at its top rules all panels."""
    with gr.Blocks(title="D3PO Studio", fill_width=True) as page:
        taste = gr.Dropdown(label=WORDS["taste"], choices=[], interactive=True)
        with gr.Tab(WORDS["pick"]):
            gallery = gr.HTML(gallery_element(shelf, None))
        with gr.Tab(WORDS["new"]):
            panels.new_taste(shelf, worker, taste)
        around(shelf, worker, taste, {})
        taste.change(lambda taste: gallery_element(shelf, taste), taste, gallery)
        page.load(lambda: panels.choice(shelf), None, taste)
    return page
