"""The Studio's page: the gallery, and around it what begins, compares and takes away a taste."""

from __future__ import annotations

from typing import Any

import gradio as gr

from d3po_core.run.library import RunLibrary
from d3po_panels import panels
from d3po_panels.tabs import around, gallery_element
from d3po_panels.words import WORDS
from d3po_panels.worker import Worker

HEAD = """
<script type="module" src="/d3po/web/gallery.mjs"></script>
<style>
  d3po-gallery { display: block; height: calc(100vh - 200px); min-height: 420px; }
  .d3po-grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(260px, 100%), 1fr)); }
  .d3po-grid { align-items: end; gap: 16px; }
  .d3po-grid > .form { display: contents; }
</style>
"""


def build(shelf: RunLibrary, worker: Worker) -> Any:
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
