"""The panels around the gallery. Every one of them tells mistakes where they were made, in the core's own sentences."""

from __future__ import annotations

import tempfile
import zipfile
from pathlib import Path
from typing import Any

import gradio as gr

from d3po_core.app.cost import drawing_cost
from d3po_core.embedded import GARDEN, GARDEN_DEFAULTS
from d3po_core.embedded.prompts import split_prompts
from d3po_core.errors import D3POError
from d3po_core.evaluation.images import deterministic, draw
from d3po_core.exchange.lines import export_dataset, import_file
from d3po_core.exchange.share import share
from d3po_core.lora import import_lora
from d3po_core.lora.attach import applied
from d3po_core.lora.weights import scale_weights
from d3po_core.run import Run
from d3po_core.run.images import to_image
from d3po_core.run.library import RunLibrary

from . import controls, tastes
from .controls import show_errors
from .report import report
from .run_settings import sample_settings
from .words import WORDS
from .worker import Worker


def choice(shelf: RunLibrary, run_id: str | None = None) -> Any:
    """The list of tastes as it is now, with one chosen: the newest, or the one of this id."""
    found = tastes.labels(shelf)
    wanted = [label for label, run in found.items() if run_id in (None, run.run_id)]
    return gr.update(choices=list(found), value=wanted[0] if wanted else None)


def new_taste(shelf: RunLibrary, worker: Worker, taste: Any) -> None:
    """Model, prompts, settings, and a button."""
    with gr.Row():
        name = gr.Textbox(label=WORDS["name"], value="Garden")
        source = gr.Textbox(label=WORDS["model"], value=GARDEN, info=WORDS["model_help"])
    prompts = gr.Textbox(label=WORDS["prompts"], value="\n".join(split_prompts()[0]), lines=8, max_lines=8)
    with gr.Row():
        plain = controls.controls(False, {"sample": GARDEN_DEFAULTS})
    with gr.Accordion(WORDS["advanced"], open=False):
        advanced = controls.controls(True, {})
    price = gr.Markdown()
    button = gr.Button(WORDS["begin"], variant="primary")
    keys = [*plain, *advanced]
    inputs = [*plain.values(), *advanced.values()]

    def priced(source: str, *values: Any) -> str:
        try:
            sample = controls.settings_of(keys, list(values))["sample"]
        except D3POError:  # told when it is begun
            return ""
        side = 64 if source == GARDEN else 512
        pixels = (sample.width or side) * (sample.height or side)
        return WORDS["price"] + drawing_cost(64, sample, pixels, worker.seconds_per_image) + "."

    for changed in (source, plain["sample.candidates"], advanced["sample.width"], advanced["sample.height"]):
        changed.change(priced, [source, *inputs], price)

    @show_errors
    def begin(name: str, source: str, prompts: str, *values: Any) -> Any:
        found = controls.settings_of(keys, list(values))
        plan = tastes.NewRun(name.strip(), tastes.resolved(source), tastes.prompts_of(prompts), **found)
        run = worker.call(lambda: tastes.begin_run(plan, worker.models.get(plan.source), shelf)).result()
        return choice(shelf, run.run_id)

    button.click(begin, [name, source, prompts, *inputs], taste)


def compare(shelf: RunLibrary, worker: Worker, taste: Any) -> None:
    """Before and after for a prompt of one's own, at any strength."""
    with gr.Row():
        prompt = gr.Textbox(label=WORDS["prompt"], scale=3)
        strength = gr.Slider(label=WORDS["strength"], minimum=0, maximum=1.5, step=0.05, value=1.0)
    button = gr.Button(WORDS["draw"])
    with gr.Row():
        before = gr.Gallery(label=WORDS["before"], columns=4)
        after = gr.Gallery(label=WORDS["after"], columns=4)

    def first(taste: str | None) -> str:
        run = tastes.find(shelf, taste)
        return run.prompts.all()[0].text if run else ""

    @show_errors
    def show(taste: str, prompt: str, strength: float) -> Any:
        run = tastes.chosen(shelf, taste)
        return worker.call(lambda: both(run, worker, prompt, strength), run).result()

    taste.change(first, taste, prompt)
    button.click(show, [taste, prompt, strength], [before, after])


SEEDS = 4


def both(run: Run, worker: Worker, prompt: str, strength: float) -> tuple[list[Any], list[Any]]:
    """Four pictures without and four with the LoRA, of the same seeds."""
    file = run.rounds.lora(run.rounds.current_policy())
    if file is None:
        raise D3POError(WORDS["nothing_taught"], "Pick and teach first.")
    model, settings = worker.models.of(run), sample_settings(run)
    plan, sides = deterministic(model, settings), []
    for weights in (None, scale_weights(import_lora(file, model.denoiser.module), strength)):
        with applied(model.denoiser, weights, worker.attachment):
            parts = draw(model, plan, [prompt], SEEDS, settings)
            sides.append([to_image(image) for _, images in parts for image in images])
    return sides[0], sides[1]


def files(shelf: RunLibrary, worker: Worker, taste: Any) -> None:
    """Rename, share, export, delete."""
    with gr.Row():
        name = gr.Textbox(label=WORDS["name"], scale=3)
        renaming = gr.Button(WORDS["rename"])
    gr.Markdown(WORDS["share_help"])
    with gr.Row():
        ticks = [gr.Checkbox(label=WORDS[key]) for key in ("with_name", "with_prompts", "with_picks")]
        sharing = gr.Button(WORDS["make_zip"])
    shared = gr.File(label=WORDS["share"], visible=False)
    exporting = gr.Button(WORDS["make_data"])
    exported = gr.File(label=WORDS["pictures"], visible=False)
    gr.Markdown(WORDS["import_help"])
    with gr.Row():
        brought = gr.File(label=WORDS["import_file"], file_types=[".json", ".jsonl"])
        with gr.Column():
            whose = gr.Textbox(label=WORDS["import_who"])
            importing = gr.Button(WORDS["import"])
    outcome = gr.Markdown()
    with gr.Row():
        sure = gr.Checkbox(label=WORDS["delete_sure"])
        deleting = gr.Button(WORDS["delete"], variant="stop")

    @show_errors
    def rename(taste: str, name: str) -> Any:
        run = tastes.chosen(shelf, taste)
        run.rename(name)
        return choice(shelf, run.run_id)

    @show_errors
    def make_zip(taste: str, *ticked: bool) -> Any:
        run = tastes.chosen(shelf, taste)
        made = share(run, Path(tempfile.mkdtemp()) / "taste.zip", **dict(zip(KEEPS, ticked, strict=True)))
        return gr.update(value=str(made), visible=True)

    @show_errors
    def make_data(taste: str) -> Any:
        folder = Path(tempfile.mkdtemp())
        export_dataset(tastes.chosen(shelf, taste), folder / "data")
        return gr.update(value=zipped(folder / "data", folder / "pictures-and-picks.zip"), visible=True)

    @show_errors
    def bring(taste: str, file: Any, who: str) -> str:
        return WORDS["imported"].format(n=imported(tastes.chosen(shelf, taste), file, who.strip()))

    @show_errors
    def delete(taste: str, sure: bool) -> Any:
        if not sure:
            raise D3POError("Nothing was deleted.", "Tick the box first, if you mean it.")
        tastes.delete(tastes.chosen(shelf, taste), worker)
        return choice(shelf), False

    renaming.click(rename, [taste, name], taste)
    sharing.click(make_zip, [taste, *ticks], shared)
    exporting.click(make_data, taste, exported)
    importing.click(bring, [taste, brought, whose], outcome)
    deleting.click(delete, [taste, sure], [taste, sure])


def imported(run: Run, file: Any, who: str) -> int:
    """How many picks a file brought; gradio 3 hands over an object with the path, later ones the path."""
    if file is None:
        raise D3POError("No file was chosen.", "Choose one first.")
    return import_file(run, getattr(file, "name", file), who)


def trouble(shelf: RunLibrary, worker: Worker, taste: Any) -> None:
    """A report to copy."""
    button = gr.Button(WORDS["make_report"])
    text = gr.Textbox(label=WORDS["report"], lines=12, interactive=False)

    def make(taste: str | None) -> str:
        return report(tastes.find(shelf, taste), worker.models.device, worker.log)

    button.click(make, taste, text)


KEEPS = ("with_name", "with_prompts", "with_picks")


def zipped(folder: Path, path: Path) -> str:
    """A folder as one zip."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(folder))
    return str(path)
