"""The D3PO tab: the gallery, what begins a taste, and the shared panels."""

from __future__ import annotations

import html
import json
import secrets
from collections.abc import Sequence

import gradio as gr

from d3po_core.app.loras import lora_of
from d3po_core.run.run import RunLibrary
from d3po_panels import panels, tastes
from d3po_panels.controls import Component, Update, show_errors
from d3po_panels.tabs import gallery_element, panel_tabs
from d3po_panels.words import WORDS
from d3po_panels.worker import Worker

from .cards import Cards
from .new_taste import new_taste

GROUPS = 8
"""Groups that the button draws."""
NO_TASTE = """<div class="d3po-empty">
<h2>Teach your model your taste</h2>
<p>Choose among pictures that it draws for your prompts. Sixty or so choices become a small LoRA of your own.</p>
<button type="button" onclick="d3po_open('d3po_new')">Begin a taste</button>
</div>"""


def build(
    library: RunLibrary,
    worker: Worker,
    cards: Cards,
    problem: str = "",
    key: str = "",
    schedules: Sequence[str] = (),
) -> Component:
    """Make the tab; the choice of taste at its top rules all panels. It needs gradio and no host.

    Args:
        library: of all tastes.
        worker: draws and trains.
        cards: taught LoRAs in the host.
        problem: what is wrong with the library's folder, in a sentence.
        key: lets whoever has the page use the gallery's routes.
        schedules: the host's, for flow models; empty where it has no such models.
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
            gallery = gr.HTML(elem_id="d3po_gallery")
        with gr.Tab(WORDS["new"], elem_id="d3po_new"):
            new_taste(library, worker, taste, schedules)
        kept: list[Component] = []
        tabs = panel_tabs(library, worker, taste, {"files": lambda: kept.append(starred(library, taste, cards))})
        taste.change(lambda taste: gallery_html(library, taste), taste, gallery)
        for event in (taste.change, tabs["files"].select):
            event(lambda taste: stars(library, taste, cards), taste, kept[0])
        draw.click(show_errors(lambda taste: worker.draw(tastes.chosen(library, taste), GROUPS)), taste, None)
        stop.click(show_errors(lambda taste: worker.stop(tastes.chosen(library, taste))), taste, None)
        skip.click(show_errors(lambda taste: worker.queue.skip(tastes.chosen(library, taste))), taste, None)
        tag = gr.Textbox(visible=False, elem_id="d3po_tag")
        tagged = use.click(show_errors(lambda taste: lora_tag(library, taste, cards)), taste, tag)
        tagged.then(None, tag, None, _js="d3po_use")
        page.load(lambda: opened(library), None, [taste, gallery])
    for component in page.blocks.values():
        component.do_not_save_to_config = True  # the host keeps values by label, and two of ours have the same
    return page


def opened(library: RunLibrary) -> tuple[Update, str]:
    """Return the list of tastes and the gallery as a page shows them first."""
    return panels.choose_taste(library), gallery_html(library, next(iter(tastes.labels(library)), None))


def gallery_html(library: RunLibrary, taste: str | None) -> str:
    """Return the gallery of the taste with this label; an invitation to begin one if there is none."""
    return gallery_element(library, taste, "d3po") if tastes.find(library, taste) else NO_TASTE


def starred(library: RunLibrary, taste: Component, cards: Cards) -> Component:
    """Make the list of a taste's LoRAs among the host's cards, to tick those that stay, and return it."""
    kept = gr.CheckboxGroup(
        choices=[],
        label="LoRAs among the cards: tick those that you want to keep there",
        info="Those of the newest rounds stay in any case (how many: Settings, D3PO). The taste itself keeps all.",
        elem_id="d3po_kept",
    )
    done = kept.input(
        show_errors(lambda taste, names: cards.star(tastes.chosen(library, taste), names)), [taste, kept], None
    )
    done.then(None, None, None, _js="d3po_cards")  # else the host would write over it what it had read before
    return kept


def stars(library: RunLibrary, taste: str | None, cards: Cards) -> Update:
    """Return what `starred` shows for a taste."""
    run = tastes.find(library, taste)
    loras = cards.of(run) if run else {}
    return gr.update(choices=list(loras), value=[name for name, star in loras.items() if star])


def lora_tag(library: RunLibrary, taste: str | None, cards: Cards) -> str:
    """Return what the page writes into txt2img's prompt: JSON of the tag, and of all names of this taste's LoRAs.

    Raises:
        D3POError: nothing was taught yet, or the LoRA cannot be put among the host's.
    """
    run = tastes.chosen(library, taste)
    name, strength = cards.current(run)
    if not name:
        lora_of(run)  # raises: nothing was taught yet
    names = sorted({*cards.names(run), name})
    return json.dumps({"tag": f"<lora:{name}:{strength:g}>", "names": names, "press": secrets.token_hex(4)})
