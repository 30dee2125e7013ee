"""The gallery as a plain ASGI application, which FastAPI and Starlette of any version mount as it is.

It imports no web framework: hosts bring one, in versions of their own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from ..run.library import RunLibrary
from .actions import Actions
from .requests import MAX_BYTES, SAFE, Request, Response, handle

Message = dict[str, Any]
"""An event of ASGI; its keys depend on its "type"."""
Scope = Message
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

KINDS = {
    ".mjs": "text/javascript",
    ".css": "text/css",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
}
"""Content types of the page's own files by their ending; others are not served."""


class GalleryApp:
    """Answers the gallery's requests, and serves the page's own files under `web/`.

    Args:
        library: the runs.
        actions: of the host.
        web: the folder with the page's files.
    """

    def __init__(self, library: RunLibrary, actions: Actions, web: Path) -> None:
        self._library, self._actions = library, actions
        # Files are looked up by their name in this list, made at the start: an address never becomes a path.
        self._files = {
            f"web/{path.relative_to(web).as_posix()}": path
            for path in sorted(web.rglob("*"))
            if path.suffix in KINDS and path.is_file()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        body = await _body(receive)
        response = await asyncio.to_thread(self._respond, scope, body)
        data = response.body
        if isinstance(data, Path):
            try:
                data = await asyncio.to_thread(data.read_bytes)
            except OSError:  # it was deleted in between
                response, data = Response(404, SAFE, b""), b""
        headers = {**response.headers, "Content-Length": str(len(data))}
        pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": response.status, "headers": pairs})
        await send({"type": "http.response.body", "body": data})

    def _respond(self, scope: Scope, body: bytes) -> Response:
        root: str = scope.get("root_path", "")
        path: str = scope["path"]
        path = path.removeprefix(root).lstrip("/")  # servers differ in whether a mounted path keeps its prefix
        if path in self._files and scope["method"] == "GET":
            kind = KINDS[self._files[path].suffix]
            headers = {"X-Content-Type-Options": SAFE["X-Content-Type-Options"], "Cache-Control": "no-cache"}
            return Response(200, {**headers, "Content-Type": kind}, self._files[path])
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
        return handle(self._library, self._actions, Request(scope["method"], path, query, headers, body))


async def _body(receive: Receive) -> bytes:
    """Read the request's body, at most one byte more than `MAX_BYTES`: `handle` refuses such a body."""
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            break
        body = (body + message.get("body", b""))[: MAX_BYTES + 1]
        more = message.get("more_body", False)
    return body
