"""The panel of other ways to teach: other methods for picks, and rewards, also one of the person's own picks."""

from __future__ import annotations

from typing import Any

import gradio as gr

from d3po_core.errors import D3POError
from d3po_core.run import Run
from d3po_core.run.library import RunLibrary
from d3po_core.settings import METHOD_DECIDES

from . import by_reward, controls, tastes
from .controls import show_errors
from .run_settings import train_settings
from .words import METHODS, REWARDS, WORDS
from .worker import Worker

FIRST = "d3po"


def other_ways(shelf: RunLibrary, worker: Worker, taste: Any) -> Any:
    """For the chosen taste: the method of its next rounds, a round by a reward, and what its picks say."""
    _method(shelf, taste)
    opened, finish = _reward(shelf, worker, taste)
    _own_picks(shelf, taste)

    def refresh(taste: str | None) -> Any:
        run = tastes.find(shelf, taste)
        left = run.rounds.stopped() if run else None
        if run is None or left is None or worker.teaches(run):
            return "", gr.update(visible=False)
        what = left.settings.get("reward_name") or WORDS["your_picks"]
        return WORDS["reward_open"].format(n=left.number, what=what), gr.update(visible=True)

    return refresh, [opened, finish]


def _method(shelf: RunLibrary, taste: Any) -> None:
    gr.Markdown(WORDS["method_title"])
    method = gr.Radio(list(METHODS), value=FIRST, label=WORDS["method"], elem_id="d3po_method")
    needs = gr.Markdown(METHODS[FIRST], elem_id="d3po_method_needs")

    @show_errors
    def keep(taste: str, method: str) -> str:
        return " ".join([METHODS[method], kept(tastes.chosen(shelf, taste), method)])

    def known(taste: str | None) -> tuple[str, str]:
        run = tastes.find(shelf, taste)
        chosen = train_settings(run)[0].method if run else FIRST
        return chosen, METHODS[chosen]

    method.input(keep, [taste, method], needs)
    taste.change(known, taste, [method, needs], show_progress="hidden")


def kept(run: Run, method: str) -> str:
    """Let a taste be taught by another method from the next round on; what that means, in words."""
    if method != train_settings(run)[0].method:  # another method's numbers would mean something else
        run.change_settings("train", {"method": method, **dict.fromkeys(METHOD_DECIDES)})
    said, left = [WORDS["method_kept"].format(method=method)], run.rounds.stopped()
    if left is not None:
        said.append(WORDS["method_open"].format(n=left.number))
    return " ".join(said)


def _reward(shelf: RunLibrary, worker: Worker, taste: Any) -> tuple[Any, Any]:
    """What tells how it stands, and the button that finishes a stopped round, seen where there is one."""
    gr.Markdown(WORDS["reward_title"])
    with gr.Row():
        ready = gr.Radio(list(REWARDS), label=WORDS["reward_ready"], elem_id="d3po_reward_ready")
    about = WORDS["reward_written_help"] + ("" if worker.open_to_others else WORDS["reward_written_files"])
    written = gr.Textbox(label=WORDS["reward_written"], info=about, max_lines=1, elem_id="d3po_reward")
    with gr.Row(elem_classes=["d3po-grid"]):
        plain = controls.controls(False, {}, ["reward"])
    with gr.Accordion(WORDS["advanced"], open=False), gr.Row(elem_classes=["d3po-grid"]):
        advanced = controls.controls(True, {}, ["reward"])
    with gr.Row():
        begin = gr.Button(WORDS["reward_begin"], variant="primary", elem_id="d3po_reward_begin")
        finish = gr.Button(WORDS["reward_finish"], elem_id="d3po_reward_finish", visible=False)
    opened = gr.Markdown(elem_id="d3po_reward_told")
    made = {**plain, **advanced}

    @show_errors
    def teach(taste: str, written: str, *values: Any) -> str:
        run = tastes.chosen(shelf, taste)
        settings = controls.settings_of(list(made), list(values))["reward"]
        worker.teach_by_reward(run, _allowed(written or "", worker.open_to_others), settings)
        return WORDS["reward_begun"]

    @show_errors
    def end(taste: str) -> Any:
        worker.finish(tastes.chosen(shelf, taste))
        return WORDS["reward_finishing"], gr.update(visible=False)

    ready.input(lambda name: REWARDS[name], ready, written)
    begin.click(teach, [taste, written, *made.values()], opened)
    finish.click(end, taste, [opened, finish])
    return opened, finish


def _allowed(written: str, open_to_others: bool) -> str:
    """A reward as it was written, if the page may be used for it; only those of files have a colon.

    Raises:
        D3POError: it names a file, and the page is open to others.
    """
    if open_to_others and ":" in written:
        raise D3POError(
            "This page is open to other computers, so a reward in it cannot name a file or folder.",
            "Choose a reward without a path.",
        )
    return written


def _own_picks(shelf: RunLibrary, taste: Any) -> None:
    gr.Markdown(WORDS["say_title"])
    asking = gr.Button(WORDS["say"], elem_id="d3po_say")
    answer = gr.Markdown(elem_id="d3po_said")

    @show_errors
    def ask(taste: str) -> str:
        facts = by_reward.fit(tastes.chosen(shelf, taste)).facts
        return f"{facts}\n\n{WORDS['say_yes'] if facts.usable else WORDS['say_no']}"

    asking.click(ask, taste, answer)
