"""The panel that begins a taste in the tab: by hand, or with txt2img's prompts and settings."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Mapping, Sequence
from typing import cast

import gradio as gr

from d3po_core.errors import D3POError
from d3po_core.run import Run
from d3po_core.run.run import RunLibrary
from d3po_panels import controls, panels, tastes
from d3po_panels.controls import Component, Update, show_errors
from d3po_panels.words import WORDS
from d3po_panels.worker import Worker

from . import txt2img
from .flow_settings import FlowModel, FlowSettings

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


def new_taste(library: RunLibrary, worker: Worker, taste: Component, schedules: Sequence[str] = ()) -> None:
    """Make the panel: prompts, settings, and a button. The model is the one that is loaded.

    Args:
        library: of all tastes.
        worker: draws and trains.
        taste: the choice of taste.
        schedules: the host's, for flow models; empty where it has no such models.
    """
    notice = gr.HTML(elem_id="d3po_notice")
    with gr.Row():
        prompts = gr.Textbox(
            label=WORDS["prompts"], lines=5, elem_id="d3po_prompts", placeholder="a lake at dawn\na hill in the rain"
        )
        negative = gr.Textbox(label="Negative prompt, for all of them", lines=5, elem_id="d3po_sample_negative")
    fields = {"sample.negative": negative}
    with gr.Row(elem_classes=["d3po-grid"]):
        fields |= {key: control(key) for key in SHOWN}
    flow = flow_controls(schedules)
    name = gr.Textbox(label=WORDS["name"], elem_id="d3po_name", max_lines=1, placeholder="empty: from the first prompt")
    with gr.Accordion(WORDS["advanced"], open=False, elem_id="d3po_more"):
        for section, title in TITLES.items():
            gr.Markdown(f"#### {title}")
            with gr.Row(elem_classes=["d3po-grid"]):
                fields |= {key: control(key) for key in FIELDS if key.startswith(f"{section}.") and key not in fields}
    button = gr.Button(WORDS["begin"], variant="primary", elem_id="d3po_begin")
    begun = gr.Textbox(visible=False, elem_id="d3po_begun")

    @show_errors
    def begin(name: str, prompts: str, slider: float | None, schedule: str, *values: object) -> Update:
        chosen = controls.settings_of(list(fields), list(values))
        settings = (chosen["sample"], chosen["train"], chosen["lora"])
        lines = tastes.prompts_of(prompts)
        for tag in txt2img.TAG.findall("\n".join((*lines, chosen["sample"].negative))):
            raise D3POError(f"{tag} has no effect in a taste.", "Take it out of the prompts.")

        if worker.is_training():
            gr.Info(WAITS)

        flow_settings = FlowSettings(float(slider or 0), schedule)

        def make() -> Run:
            model = worker.host.models.get("")
            source = f"{getattr(model, 'name', 'model')}.safetensors"  # a suffix: the name may have a dot in it
            called = name.strip() or txt2img.name_of(lines[0])
            more: dict[str, object] = {}
            if model.denoiser.family == "flow":
                sample, more = chosen["sample"], flow_settings.section()
                model = cast("FlowModel", model).drawing(sample.height, sample.width, flow_settings)
            return tastes.begin(library, model, source, called, lines, *settings, more)

        run = worker.queue.call(make).result()
        panels.show_notices(run, guidance_is_input=False)
        return panels.choose_taste(library, run.run_id), run.run_id, ""

    clicked = button.click(begin, [name, prompts, *flow, *fields.values()], [taste, begun, notice])
    clicked.then(None, begun, None, _js="d3po_begun")
    take_over(fields, name, prompts, flow, notice, bool(schedules))


def flow_controls(schedules: Sequence[str]) -> list[Component]:
    """Make the controls of `FlowSettings`, in their order; unseen in hosts without flow models."""
    own = FlowSettings()
    with gr.Row(elem_classes=["d3po-grid"], visible=bool(schedules)):
        return [
            gr.Number(
                label="Distilled CFG Scale or Shift",
                info="For flow models, as in txt2img; 0 is the model's own.",
                value=own.slider,
                elem_id="d3po_flow_slider",
            ),
            gr.Dropdown(
                label="Schedule type",
                info="For flow models, as in txt2img.",
                choices=list(schedules) or [own.schedule],
                value=own.schedule,
                elem_id="d3po_flow_schedule",
            ),
        ]


def control(key: str) -> Component:
    """Make a setting's control, by the name that it has in txt2img."""
    section, item = FIELDS[key]
    control = controls.control(section, item, item.default)
    control.label = SHOWN.get(key, control.label.capitalize())
    if control.info == f"{control.label}.":  # it says no more
        control.info = None
    return control


def take_over(
    fields: Mapping[str, Component],
    name: Component,
    prompts: Component,
    flow: list[Component],
    notice: Component,
    flow_models: bool,
) -> None:
    """Make a hidden button, which the page presses to send txt2img's settings into the panel's controls."""
    page = gr.Textbox(visible=False, elem_id="d3po_sent")
    button: Component = gr.Button("Send from txt2img", elem_id="d3po_send")
    keys = [key for key in fields if key.startswith("sample.")]

    @show_errors
    def take(page: str) -> Update:
        taste = txt2img.read(page, flow_models)
        updates = [gr.update(value=taste.settings[key]) if key in taste.settings else gr.update() for key in keys]
        of_flow = taste.flow or FlowSettings()
        return [taste.name, taste.prompt, of_flow.slider, of_flow.schedule, note(taste), *updates]

    outputs = [name, prompts, *flow, notice, *(fields[key] for key in keys)]
    button.click(take, page, outputs, _js="d3po_sent")


def note(taste: txt2img.Txt2ImgSettings) -> str:
    """Return what was taken over and what was not, as HTML."""
    if not taste.without_effect:
        return "<p>From txt2img: its prompts and settings. Press Begin when they are as you want them.</p>"
    left = "".join(f"<li>{html.escape(name)}</li>" for name in taste.without_effect)
    return f"<p>From txt2img. These are on there and have no effect on a taste:</p><ul>{left}</ul>"
