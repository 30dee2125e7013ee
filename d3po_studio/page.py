"""The Studio's page: the gallery, and the panels around it."""

from __future__ import annotations

import gradio as gr

from d3po_core.run.library import RunLibrary
from d3po_panels import panels
from d3po_panels.controls import Component
from d3po_panels.tabs import gallery_element, panel_tabs
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


def build(library: RunLibrary, worker: Worker) -> Component:
    """Make the page; the choice of taste at its top rules all panels."""
    with gr.Blocks(title="D3PO Studio", fill_width=True) as page:
        taste = gr.Dropdown(label=WORDS["taste"], choices=[], interactive=True)
        with gr.Tab(WORDS["pick"]):
            gallery = gr.HTML(gallery_element(library, None))
        with gr.Tab(WORDS["new"]):
            panels.new_taste(library, worker, taste)
        panel_tabs(library, worker, taste, {})
        taste.change(lambda taste: gallery_element(library, taste), taste, gallery)
        page.load(lambda: panels.choose_taste(library), None, taste)
    return page
