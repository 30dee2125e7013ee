"""The panel of other ways to train: other methods for picks, and rewards, also one fitted to the person's own picks."""

from __future__ import annotations

import gradio as gr

from d3po_core.app.few_steps import method_warning, names_of
from d3po_core.app.runs import newest_sample_settings, train_settings
from d3po_core.errors import D3POError
from d3po_core.rewards.judge import fit_judge
from d3po_core.run import Run
from d3po_core.run.panel import Panel
from d3po_core.run.run import RunLibrary
from d3po_core.settings import METHOD_DECIDES, TrainSettings

from . import controls, tastes
from .controls import Component, Refresh, Update, show_errors
from .words import METHODS, REWARDS, WORDS
from .worker import Worker

FIRST = TrainSettings.method


def other_ways(library: RunLibrary, worker: Worker, taste: Component) -> Refresh:
    """Make the panel: the method of a taste's next rounds, a round by a reward, and what its picks say."""
    _method(library, taste)
    opened, finish = _reward(library, worker, taste)
    _own_picks(library, taste)

    def refresh(taste: str | None) -> Update:
        run = tastes.find(library, taste)
        stopped = run.rounds.stopped() if run else None
        if run is None or stopped is None or worker.is_training(run):
            return "", gr.update(visible=False)
        what = stopped.settings.get("reward_name") or WORDS["your_picks"]
        return WORDS["reward_open"].format(n=stopped.number, what=what), gr.update(visible=True)

    return Refresh(refresh, [opened, finish])


def _method(library: RunLibrary, taste: Component) -> None:
    gr.Markdown(WORDS["method_title"])
    method = gr.Radio(list(METHODS), value=FIRST, label=WORDS["method"], elem_id="d3po_method")
    needs = gr.Markdown(METHODS[FIRST], elem_id="d3po_method_needs")

    @show_errors
    def change(taste: str, method: str) -> str:
        run = tastes.chosen(library, taste)
        return " ".join([needs_of(method, run), change_method(run, method)])

    def show(taste: str | None) -> tuple[str, str]:
        run = tastes.find(library, taste)
        chosen = train_settings(run).method if run else FIRST
        return chosen, needs_of(chosen, run)

    method.input(change, [taste, method], needs)
    taste.change(show, taste, [method, needs], show_progress="hidden")


def needs_of(method: str, run: Run | None) -> str:
    """Return what a method needs, and that it is not made for a taste's model where that is so."""
    warning = method_warning(method, names_of(run), newest_sample_settings(run)) if run else ""
    return f"{METHODS[method]} **{warning}**" if warning else METHODS[method]


def change_method(run: Run, method: str) -> str:
    """Let a taste be trained by another method from the next round on, and return what that means, in words."""
    if method != train_settings(run).method:  # another method's numbers would mean something else
        run.change_settings("train", {"method": method, **dict.fromkeys(METHOD_DECIDES)})
    sentences, stopped = [WORDS["method_kept"].format(method=method)], run.rounds.stopped()
    if stopped is not None:
        sentences.append(WORDS["method_open"].format(n=stopped.number))
    return " ".join(sentences)


def _reward(library: RunLibrary, worker: Worker, taste: Component) -> tuple[Component, Component]:
    """Make the part about rewards.

    Returns:
        The text about a stopped round, and the button that finishes it, seen only where there is one.
    """
    gr.Markdown(WORDS["reward_title"])
    with gr.Row():
        ready = gr.Radio(list(REWARDS), label=WORDS["reward_ready"], elem_id="d3po_reward_ready")
    help = WORDS["reward_written_help"] + ("" if worker.host.open_to_others else WORDS["reward_written_files"])
    written = gr.Textbox(label=WORDS["reward_written"], info=help, max_lines=1, elem_id="d3po_reward")
    with gr.Row(elem_classes=["d3po-grid"]):
        plain = controls.controls(False, {}, ["reward"])
    with gr.Accordion(WORDS["advanced"], open=False), gr.Row(elem_classes=["d3po-grid"]):
        advanced = controls.controls(True, {}, ["reward"])
    with gr.Row():
        begin = gr.Button(WORDS["reward_begin"], variant="primary", elem_id="d3po_reward_begin")
        finish = gr.Button(WORDS["reward_finish"], elem_id="d3po_reward_finish", visible=False)
    opened = gr.Markdown(elem_id="d3po_reward_open")
    fields = {**plain, **advanced}

    @show_errors
    def teach(taste: str, written: str, *values: object) -> str:
        run = tastes.chosen(library, taste)
        settings = controls.settings_of(list(fields), list(values))["reward"]
        worker.teach_by_reward(run, _allowed(written or "", worker.host.open_to_others), settings)
        return WORDS["reward_begun"]

    @show_errors
    def end(taste: str) -> Update:
        worker.finish(tastes.chosen(library, taste))
        return WORDS["reward_finishing"], gr.update(visible=False)

    ready.input(lambda name: REWARDS[name], ready, written)
    begin.click(teach, [taste, written, *fields.values()], opened)
    finish.click(end, taste, [opened, finish], show_progress="hidden")
    return opened, finish


def _allowed(written: str, open_to_others: bool) -> str:
    """Return a reward as it was written, if the page may be used for it; only those of files have a colon.

    Raises:
        D3POError: it names a file, and the page is open to others.
    """
    if open_to_others and ":" in written:
        raise D3POError(
            "This page is open to other computers, so a reward in it cannot name a file or folder.",
            "Choose a reward without a path.",
        )
    return written


def _own_picks(library: RunLibrary, taste: Component) -> None:
    gr.Markdown(WORDS["say_title"])
    button = gr.Button(WORDS["say"], elem_id="d3po_say")
    answer = gr.Markdown(elem_id="d3po_picks_say")

    @show_errors
    def ask(taste: str) -> str:
        run = tastes.chosen(library, taste)
        facts = fit_judge(run, panel=Panel.of(run, train_settings(run))).facts
        return f"{facts}\n\n{WORDS['say_yes'] if facts.usable else WORDS['say_no']}"

    button.click(ask, taste, answer)
