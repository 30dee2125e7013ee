"""The D3PO tab: the gallery, what begins a taste, and the Studio's own panels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gradio as gr

from d3po_core.drift import recommended_of
from d3po_core.errors import D3POError
from d3po_core.gallery import Shelf
from d3po_core.run import Run
from d3po_studio import controls, panels, tastes
from d3po_studio.page import gallery_element
from d3po_studio.panels import told
from d3po_studio.words import WORDS

from .cards import Cards

if TYPE_CHECKING:
    from .worker import WebuiWorker

AT_ONCE = 8
"""Groups that the button draws."""


def build(shelf: Shelf, worker: WebuiWorker, cards: Cards) -> Any:
    """The tab; the choice of taste at its top rules all panels. It needs gradio and no host."""
    with gr.Blocks(analytics_enabled=False) as page:
        with gr.Row():
            taste = gr.Dropdown(label=WORDS["taste"], choices=[], interactive=True, elem_id="d3po_taste", scale=3)
            draw = gr.Button("Draw more", elem_id="d3po_generate", variant="primary")
            stop = gr.Button("Interrupt", elem_id="d3po_interrupt")
            skip = gr.Button("Skip", elem_id="d3po_skip")
            use = gr.Button("Put the LoRA into txt2img", elem_id="d3po_use")
        gr.HTML('<div id="d3po_progress"></div>')
        tag = gr.Textbox(visible=False, elem_id="d3po_tag")
        with gr.Tab(WORDS["pick"], elem_id="d3po_pick"):
            gallery = gr.HTML(gallery_element(shelf, None), elem_id="d3po_gallery")
        with gr.Tab(WORDS["new"], elem_id="d3po_new"):
            new_taste(shelf, worker, taste)
        with gr.Tab(WORDS["compare"]):
            panels.compare(shelf, worker, taste)
        with gr.Tab(WORDS["files"]):
            panels.files(shelf, worker, taste)
        with gr.Tab(WORDS["trouble"]):
            panels.trouble(shelf, worker, taste)
        taste.change(lambda taste: gallery_element(shelf, taste, "d3po"), taste, gallery)
        draw.click(told(lambda taste: worker.draw(tastes.chosen(shelf, taste), AT_ONCE)), taste, None)
        for button in (stop, skip):
            button.click(told(lambda taste: worker.stop(tastes.chosen(shelf, taste))), taste, None)
        found = use.click(told(lambda taste: lora_tag(tastes.chosen(shelf, taste), cards)), taste, tag)
        found.then(None, tag, None, _js="d3po_use")
        page.load(lambda: panels.choice(shelf), None, taste)
    for component in page.blocks.values():
        component.do_not_save_to_config = True  # the host keeps values by label, and two of ours have the same
    return page


def new_taste(shelf: Shelf, worker: WebuiWorker, taste: Any) -> None:
    """Prompts, settings, and a button; the model is the one that is loaded."""
    name = gr.Textbox(label=WORDS["name"], value="My taste", elem_id="d3po_name")
    prompts = gr.Textbox(label=WORDS["prompts"], lines=5, elem_id="d3po_prompts")
    with gr.Row():
        plain = controls.controls(False, {})
    with gr.Accordion(WORDS["advanced"], open=False):
        advanced = controls.controls(True, {})
    button = gr.Button(WORDS["begin"], variant="primary", elem_id="d3po_begin")
    keys = [*plain, *advanced]

    @told
    def begin(name: str, prompts: str, *values: Any) -> Any:
        found = controls.settings_of(keys, list(values))
        lines = tastes.prompts_of(prompts)

        def make() -> Run:
            model: Any = worker.models.get("")
            return tastes.begin(tastes.Plan(name.strip() or model.name, model.name, lines, **found), model, shelf)

        return panels.choice(shelf, worker.call(make).result().run_id)

    button.click(begin, [name, prompts, *plain.values(), *advanced.values()], taste)


def lora_tag(run: Run, cards: Cards) -> str:
    """What to write into a prompt for what a taste has taught, at the strength that its drift recommends.

    Raises:
        D3POError: nothing was taught yet.
    """
    name = cards.newest(run)
    if not name:
        raise D3POError(WORDS["nothing_taught"], "Pick and teach first.")
    policy = run.current_policy()
    round = next(found for found in run.rounds() if found.lora_hash == policy)
    return f"<lora:{name}:{recommended_of(round.summary):g}>"
