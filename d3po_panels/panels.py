"""Panels around the gallery that begin a taste, compare, share and report; errors are shown where they happened."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from d3po_core.app.cost import drawing_cost
from d3po_core.app.few_steps import notices
from d3po_core.app.loras import lora_of
from d3po_core.app.runs import sample_settings
from d3po_core.app.sampling import draw_before_after
from d3po_core.embedded import GARDEN, GARDEN_DEFAULTS, split_prompts
from d3po_core.errors import D3POError
from d3po_core.exchange.lines import export_dataset, import_file
from d3po_core.exchange.share import share
from d3po_core.lora import import_lora
from d3po_core.lora.weights import scale_weights
from d3po_core.run import Run
from d3po_core.run.run import RunLibrary, to_image

from . import controls, tastes
from .controls import Component, Update, Upload, as_shown, path_of, show_errors
from .report import report
from .words import WORDS
from .worker import Worker

FIRST_ROUND = 64
"""Groups whose cost is shown before a taste is begun."""
SEEDS = 4
"""Images before and after, each."""
SHARED = ("with_name", "with_prompts", "with_picks")
"""What a shared zip holds only if it is ticked; `share` and the words call it so."""


def choose_taste(library: RunLibrary, run_id: str | None = None) -> Update:
    """Return the list of tastes as it is now, with one chosen: that of this id, or the newest."""
    labels = tastes.labels(library)
    chosen = [label for label, run in labels.items() if run_id in (None, run.run_id)]
    return gr.update(choices=list(labels), value=chosen[0] if chosen else None)


def new_taste(library: RunLibrary, worker: Worker, taste: Component) -> Component:
    """Make the panel that begins a taste: model, prompts, settings, and a button; return the event of having begun."""
    with gr.Row():
        name = gr.Textbox(label=WORDS["name"], value="Garden")
        source = gr.Textbox(label=WORDS["model"], value=GARDEN, info=WORDS["model_help"], elem_id="d3po_model")
    prompts = gr.Textbox(label=WORDS["prompts"], value="\n".join(split_prompts()[0]), lines=8, max_lines=8)
    with gr.Row():
        plain = controls.controls(False, {"sample": GARDEN_DEFAULTS})
    with gr.Accordion(WORDS["advanced"], open=False):
        advanced = controls.controls(True, {})
    price, memory = gr.Markdown(), gr.Markdown()
    progress = gr.Markdown()
    button = gr.Button(WORDS["begin"], variant="primary", elem_id="d3po_begin")
    keys = [*plain, *advanced]
    inputs = [*plain.values(), *advanced.values()]

    def show_price(source: str, *values: object) -> tuple[str, str]:
        """Return what drawing costs, and no memory: what it was before holds no more."""
        try:
            chosen = controls.settings_of(keys, list(values))
        except D3POError:  # shown when the taste is begun
            return "", ""
        side, sample = 64 if source == GARDEN else 512, chosen["sample"]
        pixels = (sample.width or side) * (sample.height or side)
        cost = drawing_cost(FIRST_ROUND, sample, pixels, worker.drawing.seconds_per_image)
        return f"{WORDS['price']}{cost}.", ""

    def show_memory(source: str, *values: object) -> str:
        try:
            return _memory(source, controls.settings_of(keys, list(values)))
        except D3POError:
            return ""

    for changed in (source, plain["sample.candidates"], advanced["sample.width"], advanced["sample.height"]):
        changed.change(show_price, [source, *inputs], [price, memory])
        # Not at every letter or place of a slider: counting takes seconds.
        for event in filter(None, (getattr(changed, name, None) for name in ("submit", "blur", "release"))):
            event(show_memory, [source, *inputs], memory)

    def begun(name: str, source: str, prompts: str, *values: object) -> Run:
        chosen = controls.settings_of(keys, list(values))
        settings = (chosen["sample"], chosen["train"], chosen["lora"])
        place, lines = tastes.source_of(source), tastes.prompts_of(prompts)

        def work() -> Run:
            return tastes.begin(library, worker.host.models.get(place), place, name.strip(), lines, *settings)

        return worker.queue.call(work).result()

    def begin(*written: Any) -> Iterator[tuple[Update, Update, str]]:
        """Begin a taste. While that is done, the button cannot be pressed again."""
        from d3po_core.models.model import DiffusersModel

        yield gr.update(), gr.update(interactive=False), WORDS["beginning"]
        try:
            run = begun(*written)
            chosen = choose_taste(library, run.run_id)
        except D3POError as error:
            yield gr.update(), gr.update(interactive=True), ""
            raise as_shown(error) from None
        if note := DiffusersModel.plain_words([*written[2].splitlines(), sample_settings(run).negative]):
            gr.Warning(note)
        show_notices(run, guidance_is_input=True)
        yield chosen, gr.update(interactive=True), ""

    outputs = [taste, button, progress]
    return button.click(begin, [name, source, prompts, *inputs], outputs, show_progress_on=progress)


def _memory(source: str, chosen: controls.ChosenSettings) -> str:
    """Return what a model takes in memory, in a sentence; "" where it is none, or cannot be counted."""
    from d3po_core.planning.words import short_plan

    try:
        return short_plan(tastes.source_of(source), chosen["sample"], chosen["train"], chosen["lora"])
    except Exception:  # quantised weights, layers that need values: a panel is not to fail for a sentence
        return ""


def show_notices(run: Run, guidance_is_input: bool) -> None:
    """Show what there is to be said of a taste's model when it is begun, see `few_steps.notices`."""
    for notice in notices(run, guidance_is_input):
        gr.Warning(notice)


def compare(library: RunLibrary, worker: Worker, taste: Component) -> None:
    """Make the panel that draws before and after for a prompt of one's own, at any strength."""
    with gr.Row():
        prompt = gr.Textbox(label=WORDS["prompt"], scale=3)
        strength = gr.Slider(label=WORDS["strength"], minimum=0, maximum=1.5, step=0.05, value=1.0)
    button = gr.Button(WORDS["draw"])
    with gr.Row():
        before = gr.Gallery(label=WORDS["before"], columns=4)
        after = gr.Gallery(label=WORDS["after"], columns=4)

    def first_prompt(taste: str | None) -> str:
        run = tastes.find(library, taste)
        return run.prompts.all()[0].text if run else ""

    @show_errors
    def show(taste: str, prompt: str, strength: float) -> Update:
        run = tastes.chosen(library, taste)
        return worker.queue.call(lambda: before_and_after(run, worker, prompt, strength), run).result()

    taste.change(first_prompt, taste, prompt)
    button.click(show, [taste, prompt, strength], [before, after])


def before_and_after(
    run: Run, worker: Worker, prompt: str, strength: float
) -> tuple[list[Image.Image], list[Image.Image]]:
    """Draw images of the same seeds without and with the taste's LoRA, `SEEDS` each, as part of the present job.

    Raises:
        D3POError: nothing was taught yet, or the model cannot be used.
    """
    file = lora_of(run)
    model, settings = worker.host.models.of(run), sample_settings(run)
    lora = scale_weights(import_lora(file, model.denoiser.module), strength)
    worker.queue.show(run, "drawing", 2 * SEEDS)
    both = draw_before_after(model, lora, [prompt], SEEDS, settings, worker.host.attachment, worker.queue.at)
    return [to_image(image) for image in both.before[0]], [to_image(image) for image in both.after[0]]


def files(library: RunLibrary, worker: Worker, taste: Component) -> None:
    """Make the panel that renames, shares, exports and deletes a taste, and imports picks."""
    with gr.Row():
        name = gr.Textbox(label=WORDS["name"], scale=3)
        renaming = gr.Button(WORDS["rename"])
    _sharing(library, taste)
    _picks_from_file(library, taste)
    with gr.Row():
        sure = gr.Checkbox(label=WORDS["delete_sure"])
        deleting = gr.Button(WORDS["delete"], variant="stop")

    @show_errors
    def rename(taste: str, name: str) -> Update:
        run = tastes.chosen(library, taste)
        run.rename(name)
        return choose_taste(library, run.run_id)

    @show_errors
    def delete(taste: str, sure: bool) -> Update:
        if not sure:
            raise D3POError("Nothing was deleted.", "Tick the box first, if you mean it.")
        tastes.delete(tastes.chosen(library, taste), worker)
        return choose_taste(library), False

    # What shows progress is covered by a failure: the very box that is to be ticked, and the list.
    renaming.click(rename, [taste, name], taste, show_progress="hidden")
    deleting.click(delete, [taste, sure], [taste, sure], show_progress="hidden")


def _sharing(library: RunLibrary, taste: Component) -> None:
    """Make the part with a zip to share, and all images and picks as a data set."""
    gr.Markdown(WORDS["share_help"])
    with gr.Row():
        ticks = [gr.Checkbox(label=WORDS[key]) for key in SHARED]
        sharing = gr.Button(WORDS["make_zip"])
    shared = gr.File(label=WORDS["share"], visible=False)
    exporting = gr.Button(WORDS["make_data"])
    exported = gr.File(label=WORDS["pictures"], visible=False)

    @show_errors
    def make_zip(taste: str, *ticked: bool) -> Update:
        run = tastes.chosen(library, taste)
        path = share(run, Path(tempfile.mkdtemp()) / "taste.zip", **dict(zip(SHARED, ticked, strict=True)))
        return gr.update(value=str(path), visible=True)

    @show_errors
    def make_data(taste: str) -> Update:
        folder = Path(tempfile.mkdtemp())
        export_dataset(tastes.chosen(library, taste), folder / "data")
        return gr.update(value=zip_folder(folder / "data", folder / "pictures-and-picks.zip"), visible=True)

    sharing.click(make_zip, [taste, *ticks], shared)
    exporting.click(make_data, taste, exported)


def _picks_from_file(library: RunLibrary, taste: Component) -> None:
    """Make the part that imports picks on the taste's own images."""
    gr.Markdown(WORDS["import_help"])
    with gr.Row():
        file = gr.File(label=WORDS["import_file"], file_types=[".json", ".jsonl"])
        with gr.Column():
            who = gr.Textbox(label=WORDS["import_who"])
            button = gr.Button(WORDS["import"])
    outcome = gr.Markdown()

    @show_errors
    def import_picks(taste: str, file: Upload, who: str) -> str:
        if file is None:
            raise D3POError("No file was chosen.", "Choose one first.")
        return import_file(tastes.chosen(library, taste), path_of(file), who.strip())

    button.click(import_picks, [taste, file, who], outcome)


def trouble(library: RunLibrary, worker: Worker, taste: Component) -> None:
    """Make the panel with a report to copy."""
    button = gr.Button(WORDS["make_report"])
    text = gr.Textbox(label=WORDS["report"], lines=12, interactive=False)

    def make(taste: str | None) -> str:
        return report(tastes.find(library, taste), worker.host.models.device, worker.queue.log)

    button.click(make, taste, text)


def zip_folder(folder: Path, path: Path) -> str:
    """Pack a folder into a zip, and return the zip's path."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(folder))
    return str(path)
