"""The D3PO tab: the gallery, what begins a taste, and the Studio's own panels."""

from __future__ import annotations

import html
import json
import secrets
from typing import TYPE_CHECKING, Any

import gradio as gr

from d3po_core.errors import D3POError
from d3po_core.run.library import RunLibrary
from d3po_panels import panels, tastes
from d3po_panels.controls import show_errors
from d3po_panels.tabs import around, gallery_element
from d3po_panels.words import WORDS

from .cards import Cards
from .new_taste import new_taste

if TYPE_CHECKING:
    from .worker import WebuiWorker

AT_ONCE = 8
"""Groups that the button draws."""
NO_TASTE = """<div class="d3po-empty">
<h2>Teach your model your taste</h2>
<p>Choose among pictures that it draws for your prompts. Sixty or so choices become a small LoRA of your own.</p>
<button type="button" onclick="d3po_open('d3po_new')">Begin a taste</button>
</div>"""


def build(shelf: RunLibrary, worker: WebuiWorker, cards: Cards, problem: str = "", key: str = "") -> Any:
    """The tab; the choice of taste at its top rules all panels. It needs gradio and no host.

    Args:
        shelf: all tastes.
        worker: draws and teaches.
        cards: taught LoRAs in the host.
        problem: what is wrong with the shelf's folder, in a sentence.
        key: opens the gallery's routes for whoever was given the page.
    """
    with gr.Blocks(analytics_enabled=False) as page:
        if problem:
            gr.HTML(f'<p class="d3po-problem">{html.escape(problem)}</p>')
        with gr.Row(elem_id="d3po_top"):
            taste = gr.Dropdown(label=WORDS["taste"], choices=[], interactive=True, elem_id="d3po_taste", scale=3)
            draw = gr.Button("Draw more", elem_id="d3po_generate", variant="primary")
            stop = gr.Button("Interrupt", elem_id="d3po_interrupt")
            skip = gr.Button("Skip", elem_id="d3po_skip")
            use = gr.Button("Put the LoRA into txt2img", elem_id="d3po_use")
        gr.HTML(f'<div id="d3po_progress" data-key="{key}"></div>')
        with gr.Tab(WORDS["pick"], elem_id="d3po_pick"):
            gallery = gr.HTML(gallery_html(shelf, None), elem_id="d3po_gallery")
        with gr.Tab(WORDS["new"], elem_id="d3po_new"):
            new_taste(shelf, worker, taste)
        above: dict[str, Any] = {}
        tabs = around(shelf, worker, taste, {"files": lambda: above.update(kept=starred(shelf, taste, cards))})
        taste.change(lambda taste: gallery_html(shelf, taste), taste, gallery)
        for event in (taste.change, tabs["files"].select):
            event(lambda taste: stars(shelf, taste, cards), taste, above["kept"])
        draw.click(show_errors(lambda taste: worker.draw(tastes.chosen(shelf, taste), AT_ONCE)), taste, None)
        stop.click(show_errors(lambda taste: worker.stop(tastes.chosen(shelf, taste))), taste, None)
        skip.click(show_errors(lambda taste: worker.skip(tastes.chosen(shelf, taste))), taste, None)
        tag = gr.Textbox(visible=False, elem_id="d3po_tag")
        found = use.click(show_errors(lambda taste: lora_tag(shelf, taste, cards)), taste, tag)
        found.then(None, tag, None, _js="d3po_use")
        page.load(lambda: panels.choice(shelf), None, taste)
    for component in page.blocks.values():
        component.do_not_save_to_config = True  # the host keeps values by label, and two of ours have the same
    return page


def gallery_html(shelf: RunLibrary, taste: str | None) -> str:
    """The gallery of the taste that the list calls so; a way to the first one, where there is none."""
    return gallery_element(shelf, taste, "d3po") if tastes.find(shelf, taste) else NO_TASTE


def starred(shelf: RunLibrary, taste: Any, cards: Cards) -> Any:
    """A taste's LoRAs among the host's cards, to tick those that stay."""
    kept = gr.CheckboxGroup(
        choices=[],
        label="LoRAs among the cards: tick those that you want to keep there",
        info="Those of the newest rounds stay in any case (how many: Settings, D3PO). The taste itself keeps all.",
        elem_id="d3po_kept",
    )
    done = kept.input(
        show_errors(lambda taste, names: cards.star(tastes.chosen(shelf, taste), names)), [taste, kept], None
    )
    done.then(None, None, None, _js="d3po_cards")  # else the host would write over it what it had read before
    return kept


def stars(shelf: RunLibrary, taste: str | None, cards: Cards) -> Any:
    """What `starred` shows for a taste."""
    run = tastes.find(shelf, taste)
    found = cards.of(run) if run else {}
    return gr.update(choices=list(found), value=[name for name, star in found.items() if star])


def lora_tag(shelf: RunLibrary, taste: str | None, cards: Cards) -> str:
    """What the page is to write into txt2img's prompt: JSON of the tag, and of all names of this taste's LoRAs.

    Raises:
        D3POError: nothing was taught yet, or the LoRA cannot be put among the host's.
    """
    run = tastes.chosen(shelf, taste)
    name, strength = cards.current(run)
    if not name:
        raise D3POError(WORDS["nothing_taught"], "Pick and teach first.")
    names = sorted({*cards.names(run), name})
    return json.dumps({"tag": f"<lora:{name}:{strength:g}>", "names": names, "press": secrets.token_hex(4)})
