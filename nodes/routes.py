"""The gallery's API on ComfyUI's server, under /d3po: a thin skin over the core's own."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from aiohttp import web
from server import PromptServer

from ..d3po_core.gallery import Request, handle
from ..d3po_core.gallery.requests import MOST_BYTES
from . import folders
from .actions import HostActions

actions = HostActions()


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
    while len(body) <= MOST_BYTES and (piece := await request.content.read(MOST_BYTES + 1 - len(body))):
        body += piece  # it may come in several
    headers = {name.lower(): value for name, value in request.headers.items()}
    given = Request(request.method, request.match_info["path"], dict(request.query), headers, body)
    response: Any = await asyncio.to_thread(handle, folders.shelf(), actions, given)
    if isinstance(response.body, Path):
        return web.FileResponse(response.body, headers=response.headers)
    return web.Response(status=response.status, headers=response.headers, body=response.body)
