"""What the gallery can do inside ComfyUI. Drawing and training are the queue's business, where the page puts them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import cast

from aiohttp import web
from server import PromptServer

from ..d3po_core.app import loras
from ..d3po_core.app.loras import publish
from ..d3po_core.app.training import has_round_to_go_on_with, why_not_train
from ..d3po_core.gallery import Actions, Request, Response, handle
from ..d3po_core.gallery.actions import WorkState
from ..d3po_core.gallery.requests import MAX_BYTES
from ..d3po_core.run import Run
from ..d3po_core.settings import TrainSettings
from . import folders, progress, train
from .host import process


class ComfyActions(Actions):
    """The gallery's actions in ComfyUI; see `Actions`."""

    def training(self, run: Run) -> TrainSettings | None:
        return train.trained_with.get(run.run_id)

    def can(self, run: Run) -> list[str]:
        trainable = not why_not_train(run, self.training(run))
        work = progress.work_of(run)
        if work and work["kind"] == "drawing" and trainable:
            return ["draw", "stop", "teach"]  # the queue does it next
        if work:
            return ["draw", "stop"]
        taken_back = ["stop"] if run.run_id in train.asked_to_train else []
        if has_round_to_go_on_with(run):
            return ["draw", "teach", *taken_back]
        return ["draw", "decide", *(["teach"] if trainable else []), *taken_back]

    def work(self, run: Run) -> WorkState | None:
        return progress.work_of(run)

    def draw(self, run: Run, groups: int) -> None:
        """Do nothing: the page queues the graph's samplers."""

    def teach(self, run: Run) -> None:
        """Note that Teach was pressed; the page queues the graph's trainers, which see it.

        A round by a reward that was stopped goes on whenever its own node is queued.
        """
        stopped = run.rounds.stopped()
        if stopped is None or "train" in stopped.settings:
            train.asked_to_train.add(run.run_id)

    def stop(self, run: Run) -> None:
        """Take Teach back while it waits, as the page does where it sees no trainer; else stop what is being done."""
        if run.run_id in train.asked_to_train:
            train.asked_to_train.discard(run.run_id)
        elif progress.work_of(run):
            process.interrupt()

    def copies(self, run: Run) -> Mapping[Path, str]:
        return dict.fromkeys(folders.lora_folder().glob("*.safetensors"), "")

    def decide(self, run: Run, round: int, decision: str, strength: float) -> None:
        into_host = partial(publish, folder=folders.lora_folder())
        loras.decide(run, round, cast(loras.Decision, decision), strength, into_host)


actions = ComfyActions()


def add_routes() -> None:
    """Add the gallery's routes; the host mirrors them under /api."""
    for method in ("GET", "POST"):
        PromptServer.instance.routes.route(method, "/d3po/{path:.*}")(answer)


async def answer(request: web.Request) -> web.StreamResponse:
    """Answer a request of the gallery's."""
    body = b""
    while len(body) <= MAX_BYTES and (piece := await request.content.read(MAX_BYTES + 1 - len(body))):
        body += piece  # it may come in several
    headers = {name.lower(): value for name, value in request.headers.items()}
    asked = Request(request.method, request.match_info["path"], dict(request.query), headers, body)
    response: Response = await asyncio.to_thread(handle, folders.library(), actions, asked)
    if isinstance(response.body, Path):
        return web.FileResponse(response.body, headers=response.headers)
    return web.Response(status=response.status, headers=response.headers, body=response.body)
