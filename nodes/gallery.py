"""What the gallery can do inside ComfyUI. Drawing and teaching are the queue's business, where the page puts them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from aiohttp import web
from server import PromptServer

from ..d3po_core.app.scale_lora import scale_lora
from ..d3po_core.errors import D3POError
from ..d3po_core.gallery import Actions, Request, handle
from ..d3po_core.gallery.requests import MAX_BYTES
from ..d3po_core.run import Run
from . import folders, loras, progress, train, training
from .host import process


class ComfyActions(Actions):
    """See `Actions`."""

    def method(self, run: Run) -> str | None:
        return train.methods.get(run.run_id)

    def can(self, run: Run) -> list[str]:
        now = progress.work_of(run)
        if now and now["kind"] == "drawing" and not training.waiting(run, self.method(run)):
            return ["draw", "stop", "teach"]  # the queue does it next
        if now:
            return ["draw", "stop"]
        taken_back = ["stop"] if run.run_id in train.asked_to_train else []
        if run.rounds.open() is not None:
            return ["draw", "teach", *taken_back]
        return ["draw", "decide", *([] if training.waiting(run, self.method(run)) else ["teach"]), *taken_back]

    def work(self, run: Run) -> dict[str, Any] | None:
        return progress.work_of(run)

    def draw(self, run: Run, groups: int) -> None:
        """The page queues the graph's samplers."""

    def teach(self, run: Run) -> None:
        """The page queues the graph's trainers, which see that they were asked."""
        train.asked_to_train.add(run.run_id)

    def stop(self, run: Run) -> None:
        """Take Teach back while it waits, as the page does where it finds no trainer; else stop what is being done."""
        if run.run_id in train.asked_to_train:
            train.asked_to_train.discard(run.run_id)
        elif progress.work_of(run):
            process.interrupt()

    def decide(self, run: Run, round: int, decision: str, strength: float) -> None:
        if decision == "gentler":
            loras.publish(run, scale_lora(run, round, strength))
        elif decision == "back":
            made = {0: "base", **{found.number: found.lora_hash for found in run.rounds.all() if found.lora_hash}}
            if round not in made:
                raise D3POError(f"There is no finished round {round} to go back to.")
            run.rounds.go_back(made[round])


actions = ComfyActions()


def add() -> None:
    """Add the routes; the host mirrors them under /api."""
    routes = PromptServer.instance.routes

    @routes.get("/d3po/{path:.*}")
    async def get(request: web.Request) -> web.StreamResponse:
        return await answer(request)

    @routes.post("/d3po/{path:.*}")
    async def post(request: web.Request) -> web.StreamResponse:
        return await answer(request)


async def answer(request: web.Request) -> web.StreamResponse:
    """A request of the gallery's."""
    body = b""
    while len(body) <= MAX_BYTES and (piece := await request.content.read(MAX_BYTES + 1 - len(body))):
        body += piece  # it may come in several
    headers = {name.lower(): value for name, value in request.headers.items()}
    given = Request(request.method, request.match_info["path"], dict(request.query), headers, body)
    response: Any = await asyncio.to_thread(handle, folders.shelf(), actions, given)
    if isinstance(response.body, Path):
        return web.FileResponse(response.body, headers=response.headers)
    return web.Response(status=response.status, headers=response.headers, body=response.body)
