"""Requests and responses of the gallery, independent of the host's web server.

Ids are made by this program and never used as a path. A POST needs a JSON content type, which no cross-site form can
send, and a request that comes from another site by the browser's headers is refused.

`GalleryApp` is the same as a plain ASGI application, which FastAPI and Starlette of any version mount as it is. It
imports no web framework: hosts bring one, in versions of their own.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from ..errors import D3POError
from ..run import Run
from ..run.run import RunLibrary, UnknownRunError
from . import answers, fields
from .actions import Actions
from .answers import Asked, Download
from .fields import BadRequest
from .state import taste

MAX_BYTES = 64 * 1024

GETS: dict[str, Callable[[Asked], object]] = {
    "state": answers.show_state,
    "history": answers.history,
    "ranking": answers.ranking,
    "export": answers.export,
}
POSTS: dict[str, Callable[[Asked], object]] = {
    "next": answers.next_cards,
    "pick": answers.pick,
    "flag": answers.flag,
    "mask": answers.mask,
    "undo": answers.undo,
    "remove": answers.remove,
    "rename": answers.rename,
    **{action: partial(answers.act, action=action) for action in ("draw", "teach", "stop")},
    "go_on": answers.go_on,
    "blind/next": answers.blind_next,
    "blind/answer": answers.blind_answer,
    "blind/undo": answers.blind_undo,
    "blind/decide": answers.blind_decide,
}
IMAGES: dict[str, tuple[int, Callable[..., Path]]] = {
    "image": (2, answers.group_image),
    "blind/image": (3, answers.blind_image),
    "strip": (3, answers.strip_image),
}
"""By the beginning of their address: how many parts follow it, and which function returns the file."""


@dataclass(frozen=True)
class Request:
    """A request that a host's server got.

    Attributes:
        method: "GET" or "POST".
        path: relative to where the host mounted the gallery, such as "taste/<id>/state".
        query: of the address, each name once.
        headers: names in lower case.
        body: at most `MAX_BYTES` are accepted.
    """

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True)
class Response:
    """The response for the host's server to send; the body may be a file to be sent as it is."""

    status: int
    headers: dict[str, str]
    body: bytes | Path


def handle(library: RunLibrary, actions: Actions, request: Request) -> Response:
    """Answer a request; bad requests and errors of disk or database become responses too."""
    try:
        if from_another_site(request.headers):
            raise BadRequest("This request comes from another site.", 403)
        return _answer(library, actions, request)
    except BadRequest as error:
        return _error(error.status, str(error))
    except UnknownRunError as error:
        return _error(404, error.what)
    except D3POError as error:
        # An error with a cause comes from the disk or the database.
        return _error(503 if error.__cause__ is not None else 400, error.what, error.do, error.safe)


def from_another_site(headers: Mapping[str, str]) -> bool:
    """Return whether a request comes from another site, by the headers that browsers send, names in lower case."""
    site = headers.get("sec-fetch-site")
    if site is not None:  # the browser compared the addresses that it knows, which a proxy may have changed for us
        return site not in ("same-origin", "none")
    origin = headers.get("origin")
    return origin is not None and _host_of(origin) != headers.get("host")


def _host_of(origin: str) -> str | None:
    """Return host and port of an origin; None if it is not one."""
    try:
        return urlsplit(origin).netloc or None
    except ValueError:
        return None


def _answer(library: RunLibrary, actions: Actions, request: Request) -> Response:
    if request.method not in ("GET", "POST"):
        raise BadRequest("Only GET and POST are answered.", 405)
    parts = request.path.strip("/").split("/")
    if parts == ["tastes"] and request.method == "GET":
        return _json(200, {"tastes": [taste(run) for run in library.runs()]})
    if len(parts) < 3 or parts[0] != "taste":
        raise BadRequest("There is nothing at this address.", 404)
    run = library.run(fields.an_id({"taste": parts[1]}, "taste"))
    if request.method == "POST":
        return _post(run, actions, "/".join(parts[2:]), request)
    return _get(run, actions, parts[2:], request)


def _post(run: Run, actions: Actions, name: str, request: Request) -> Response:
    if name not in POSTS:
        raise BadRequest("There is nothing at this address.", 404)
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise BadRequest("The request must be JSON.", 415)
    if len(request.body) > MAX_BYTES:
        raise BadRequest("The request is too long.", 413)
    return _json(200, POSTS[name](Asked(run, actions, fields.body_of(request.body))))


def _get(run: Run, actions: Actions, parts: list[str], request: Request) -> Response:
    name = "/".join(parts)
    if name in GETS:
        answer = GETS[name](Asked(run, actions, request.query))
        return _download(answer) if isinstance(answer, Download) else _json(200, answer)
    for place, (count, image_path) in IMAGES.items():
        if len(parts) == place.count("/") + 1 + count and name.startswith(place + "/"):
            path = image_path(run, *parts[-count:])
            return Response(200, {**SAFE, "Content-Type": "image/png", "Cache-Control": KEEP}, path)
    raise BadRequest("There is nothing at this address.", 404)


SAFE = {
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; sandbox",
}
KEEP = "private, max-age=31536000, immutable"


def _error(status: int, what: str, do: str = "", safe: str = "") -> Response:
    return _json(status, {"error": {"what": what, "do": do, "safe": safe}})


def _json(status: int, value: object) -> Response:
    headers = {**SAFE, "Content-Type": "application/json", "Cache-Control": "no-store"}
    return Response(status, headers, json.dumps(value).encode())


def _download(download: Download) -> Response:
    headers = {**SAFE, "Content-Type": download.kind, "Cache-Control": "no-store"}
    headers["Content-Disposition"] = f'attachment; filename="{download.name}"'
    return Response(200, headers, download.data)


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
    """Answers the gallery's requests, and serves the page's own files, in the folder `web`, under `web/`."""

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
