"""The Studio's page: the gallery, and around it what begins, compares and takes away a taste."""

from __future__ import annotations

import html
from typing import Any

import gradio as gr

from d3po_core.gallery import Shelf

from . import panels, tastes
from .words import WORDS
from .worker import Worker

HEAD = """
<script type="module" src="/d3po/web/gallery.js"></script>
<style>
  d3po-gallery { display: block; height: calc(100vh - 200px); min-height: 420px; }
</style>
"""


def gallery_element(shelf: Shelf, taste: str | None, base: str = "/d3po") -> str:
    """The gallery for the taste that the list calls so, as HTML."""
    run = tastes.find(shelf, taste)
    if run is None:
        return f"<p>{html.escape(WORDS['no_taste'])}</p>"
    return f'<d3po-gallery base="{base}" taste="{run.run_id}"></d3po-gallery>'


def build(shelf: Shelf, worker: Worker) -> Any:
    """The page; the choice of taste at its top rules all panels."""
    with gr.Blocks(title="D3PO Studio", fill_width=True) as page:
        taste = gr.Dropdown(label=WORDS["taste"], choices=[], interactive=True)
        with gr.Tab(WORDS["pick"]):
            gallery = gr.HTML(gallery_element(shelf, None))
        with gr.Tab(WORDS["new"]):
            panels.new_taste(shelf, worker, taste)
        with gr.Tab(WORDS["compare"]):
            panels.compare(shelf, worker, taste)
        with gr.Tab(WORDS["files"]):
            panels.files(shelf, worker, taste)
        with gr.Tab(WORDS["trouble"]):
            panels.trouble(shelf, worker, taste)
        taste.change(lambda taste: gallery_element(shelf, taste), taste, gallery)
        page.load(lambda: panels.choice(shelf), None, taste)
    return page
