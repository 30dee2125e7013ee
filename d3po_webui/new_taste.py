"""What begins a taste in the tab: by hand, or with txt2img's prompts and settings."""

from __future__ import annotations

import dataclasses
import html
from typing import TYPE_CHECKING, Any

import gradio as gr

from d3po_core.errors import D3POError
from d3po_core.run import Run
from d3po_core.run.library import RunLibrary
from d3po_panels import controls, panels, tastes
from d3po_panels.controls import show_errors
from d3po_panels.words import WORDS

from . import txt2img

if TYPE_CHECKING:
    from .worker import WebuiWorker

SHOWN = {
    "sample.candidates": "Pictures to choose from",
    "sample.steps": "Sampling steps",
    "sample.guidance_scale": "CFG scale",
    "sample.width": "Width",
    "sample.height": "Height",
}
"""Settings that everybody sees, by the names that they have in txt2img."""
WAITS = (
    "Another taste is being taught, and this one begins when that is done. "
    "Or choose that one and press Interrupt: what it has learnt so far is kept."
)
TITLES = {"sample": "Drawing", "train": "Teaching", "lora": "LoRA"}
FIELDS = {
    f"{section}.{item.name}": (section, item)
    for section, kind in controls.SECTIONS.items()
    for item in dataclasses.fields(kind)
    if (section, item.name) not in controls.LEFT_OUT
}


def new_taste(shelf: RunLibrary, worker: WebuiWorker, taste: Any) -> None:
    """Prompts, settings, and a button; the model is the one that is loaded."""
    notice = gr.HTML(elem_id="d3po_notice")
    with gr.Row():
        prompts = gr.Textbox(
            label=WORDS["prompts"], lines=5, elem_id="d3po_prompts", placeholder="a lake at dawn\na hill in the rain"
        )
        negative = gr.Textbox(label="Negative prompt, for all of them", lines=5, elem_id="d3po_sample_negative")
    made = {"sample.negative": negative}
    with gr.Row(elem_classes=["d3po-grid"]):
        made |= {key: control(key) for key in SHOWN}
    name = gr.Textbox(label=WORDS["name"], elem_id="d3po_name", max_lines=1, placeholder="empty: from the first prompt")
    with gr.Accordion(WORDS["advanced"], open=False, elem_id="d3po_more"):
        for section, title in TITLES.items():
            gr.Markdown(f"#### {title}")
            with gr.Row(elem_classes=["d3po-grid"]):
                made |= {key: control(key) for key in FIELDS if key.startswith(f"{section}.") and key not in made}
    button = gr.Button(WORDS["begin"], variant="primary", elem_id="d3po_begin")
    begun = gr.Textbox(visible=False, elem_id="d3po_begun")

    @show_errors
    def begin(name: str, prompts: str, *values: Any) -> Any:
        found = controls.settings_of(list(made), list(values))
        lines = tastes.prompts_of(prompts)
        for tag in txt2img.TAG.findall("\n".join((*lines, found["sample"].negative))):
            raise D3POError(f"{tag} has no effect in a taste.", "Take it out of the prompts.")

        if worker.teaches():
            gr.Info(WAITS)

        def make() -> Run:
            model: Any = worker.models.get("")
            source = f"{model.name}.safetensors"  # a file's name: what has a dot in it keeps it
            return tastes.begin_run(
                tastes.NewRun(name.strip() or txt2img.name_of(lines[0]), source, lines, **found), model, shelf
            )

        run = worker.call(make).result()
        return panels.choice(shelf, run.run_id), run.run_id, ""

    clicked = button.click(begin, [name, prompts, *made.values()], [taste, begun, notice])
    clicked.then(None, begun, None, _js="d3po_begun")
    take_over(made, name, prompts, notice)


def control(key: str) -> Any:
    """A setting's control, by the name that it has in txt2img."""
    section, item = FIELDS[key]
    found = controls.control(section, item, item.default)
    found.label = SHOWN.get(key, found.label.capitalize())
    if found.info == f"{found.label}.":  # it says no more
        found.info = None
    return found


def take_over(made: dict[str, Any], name: Any, prompts: Any, notice: Any) -> None:
    """A button that nobody sees, which the page presses to send txt2img's settings here."""
    told_by_page = gr.Textbox(visible=False, elem_id="d3po_sent")
    button = gr.Button("Send from txt2img", elem_id="d3po_send")
    keys = [key for key in made if key.startswith("sample.")]

    def take(page: str) -> Any:
        found = txt2img.read(page)
        updates = [gr.update(value=found.settings[key]) if key in found.settings else gr.update() for key in keys]
        return [found.name, found.prompt, note(found), *updates]

    outputs = [name, prompts, notice, *(made[key] for key in keys)]
    button.click(take, told_by_page, outputs, _js="d3po_sent")


def note(found: txt2img.Txt2ImgSettings) -> str:
    """What was taken over and what was not, as HTML."""
    if not found.left:
        return "<p>From txt2img: its prompts and settings. Press Begin when they are as you want them.</p>"
    left = "".join(f"<li>{html.escape(what)}</li>" for what in found.left)
    return f"<p>From txt2img. These are on there and have no effect on a taste:</p><ul>{left}</ul>"
