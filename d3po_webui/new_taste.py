"""The panel that begins a taste in the tab: by hand, or with txt2img's prompts and settings."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Mapping

import gradio as gr

from d3po_core.errors import D3POError
from d3po_core.run import Run
from d3po_core.run.run import RunLibrary
from d3po_panels import controls, panels, tastes
from d3po_panels.controls import Component, Update, show_errors
from d3po_panels.words import WORDS
from d3po_panels.worker import Worker

from . import txt2img

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


def new_taste(library: RunLibrary, worker: Worker, taste: Component) -> None:
    """Make the panel: prompts, settings, and a button. The model is the one that is loaded."""
    notice = gr.HTML(elem_id="d3po_notice")
    with gr.Row():
        prompts = gr.Textbox(
            label=WORDS["prompts"], lines=5, elem_id="d3po_prompts", placeholder="a lake at dawn\na hill in the rain"
        )
        negative = gr.Textbox(label="Negative prompt, for all of them", lines=5, elem_id="d3po_sample_negative")
    fields = {"sample.negative": negative}
    with gr.Row(elem_classes=["d3po-grid"]):
        fields |= {key: control(key) for key in SHOWN}
    name = gr.Textbox(label=WORDS["name"], elem_id="d3po_name", max_lines=1, placeholder="empty: from the first prompt")
    with gr.Accordion(WORDS["advanced"], open=False, elem_id="d3po_more"):
        for section, title in TITLES.items():
            gr.Markdown(f"#### {title}")
            with gr.Row(elem_classes=["d3po-grid"]):
                fields |= {key: control(key) for key in FIELDS if key.startswith(f"{section}.") and key not in fields}
    button = gr.Button(WORDS["begin"], variant="primary", elem_id="d3po_begin")
    begun = gr.Textbox(visible=False, elem_id="d3po_begun")

    @show_errors
    def begin(name: str, prompts: str, *values: object) -> Update:
        chosen = controls.settings_of(list(fields), list(values))
        settings = (chosen["sample"], chosen["train"], chosen["lora"])
        lines = tastes.prompts_of(prompts)
        for tag in txt2img.TAG.findall("\n".join((*lines, chosen["sample"].negative))):
            raise D3POError(f"{tag} has no effect in a taste.", "Take it out of the prompts.")

        if worker.is_training():
            gr.Info(WAITS)

        def make() -> Run:
            model = worker.host.models.get("")
            source = f"{getattr(model, 'name', 'model')}.safetensors"  # a suffix: the name may have a dot in it
            return tastes.begin(library, model, source, name.strip() or txt2img.name_of(lines[0]), lines, *settings)

        run = worker.queue.call(make).result()
        panels.show_notices(run, guidance_is_input=False)
        return panels.choose_taste(library, run.run_id), run.run_id, ""

    clicked = button.click(begin, [name, prompts, *fields.values()], [taste, begun, notice])
    clicked.then(None, begun, None, _js="d3po_begun")
    take_over(fields, name, prompts, notice)


def control(key: str) -> Component:
    """Make a setting's control, by the name that it has in txt2img."""
    section, item = FIELDS[key]
    control = controls.control(section, item, item.default)
    control.label = SHOWN.get(key, control.label.capitalize())
    if control.info == f"{control.label}.":  # it says no more
        control.info = None
    return control


def take_over(fields: Mapping[str, Component], name: Component, prompts: Component, notice: Component) -> None:
    """Make a hidden button, which the page presses to send txt2img's settings into the panel's controls."""
    page = gr.Textbox(visible=False, elem_id="d3po_sent")
    button: Component = gr.Button("Send from txt2img", elem_id="d3po_send")
    keys = [key for key in fields if key.startswith("sample.")]

    def take(page: str) -> Update:
        taste = txt2img.read(page)
        updates = [gr.update(value=taste.settings[key]) if key in taste.settings else gr.update() for key in keys]
        return [taste.name, taste.prompt, note(taste), *updates]

    outputs = [name, prompts, notice, *(fields[key] for key in keys)]
    button.click(take, page, outputs, _js="d3po_sent")


def note(taste: txt2img.Txt2ImgSettings) -> str:
    """Return what was taken over and what was not, as HTML."""
    if not taste.without_effect:
        return "<p>From txt2img: its prompts and settings. Press Begin when they are as you want them.</p>"
    left = "".join(f"<li>{html.escape(name)}</li>" for name in taste.without_effect)
    return f"<p>From txt2img. These are on there and have no effect on a taste:</p><ul>{left}</ul>"
