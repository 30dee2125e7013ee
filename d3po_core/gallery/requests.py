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
from urllib.parse import parse_qsl

from ..errors import D3POError
from ..run.run import RunLibrary, UnknownRunError
from . import answers, fields
from .access import from_another_site
from .actions import Actions
from .answers import Asked, Download
from .fields import BadRequest
from .state import taste

MAX_BYTES = 64 * 1024
NOTHING = "There is nothing at this address."

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
        return refusal(error.status, str(error))
    except UnknownRunError as error:
        return refusal(404, error.what)
    except D3POError as error:
        # An error with a cause comes from the disk or the database.
        return refusal(503 if error.__cause__ is not None else 400, error.what, error.do, error.safe)


def _answer(library: RunLibrary, actions: Actions, request: Request) -> Response:
    if request.method not in ("GET", "POST"):
        raise BadRequest("Only GET and POST are answered.", 405)
    parts = request.path.strip("/").split("/")
    if parts == ["tastes"] and request.method == "GET":
        return _json(200, {"tastes": [taste(run) for run in library.runs()]})
    if len(parts) < 3 or parts[0] != "taste":
        raise BadRequest(NOTHING, 404)
    run = library.run(fields.an_id({"taste": parts[1]}, "taste"))
    return EVERYTHING.answer(partial(Asked, run, actions), request, parts[2:])


@dataclass(frozen=True)
class Routes:
    """What may be asked of a taste.

    Attributes:
        gets, posts: which function answers, by the address.
        images: by the beginning of their address: how many parts follow it, and which function returns the file.
    """

    gets: Mapping[str, Callable[[Asked], object]]
    posts: Mapping[str, Callable[[Asked], object]]
    images: Mapping[str, tuple[int, Callable[..., Path]]]

    def answer(self, ask: Callable[[fields.Fields], Asked], request: Request, parts: list[str]) -> Response:
        """Answer a request.

        Args:
            ask: makes of its fields what the answering function gets.
            request: GET or POST.
            parts: of its address, after the taste's.

        Raises:
            BadRequest, D3POError: it cannot be answered.
        """
        if request.method == "POST":
            return self._post(ask, request, "/".join(parts))
        return self._get(ask, request, parts)

    def _post(self, ask: Callable[[fields.Fields], Asked], request: Request, name: str) -> Response:
        if name not in self.posts:
            raise BadRequest(NOTHING, 404)
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise BadRequest("The request must be JSON.", 415)
        if len(request.body) > MAX_BYTES:
            raise BadRequest("The request is too long.", 413)
        return _json(200, self.posts[name](ask(fields.body_of(request.body))))

    def _get(self, ask: Callable[[fields.Fields], Asked], request: Request, parts: list[str]) -> Response:
        name = "/".join(parts)
        if name in self.gets:
            answer = self.gets[name](ask(request.query))
            return _download(answer) if isinstance(answer, Download) else _json(200, answer)
        for place, (count, image_path) in self.images.items():
            if len(parts) == place.count("/") + 1 + count and name.startswith(place + "/"):
                path = image_path(ask({}).run, *parts[-count:])
                return Response(200, {**SAFE, "Content-Type": "image/png", "Cache-Control": KEEP}, path)
        raise BadRequest(NOTHING, 404)


EVERYTHING = Routes(GETS, POSTS, IMAGES)
"""For the owner of a run."""

SAFE = {
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; sandbox",
}
KEEP = "private, max-age=31536000, immutable"


def refusal(status: int, what: str, do: str = "", safe: str = "") -> Response:
    """Return an error as the page reads it."""
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


class PageFiles:
    """The page's own files, in the folder `web`, under `web/`."""

    def __init__(self, web: Path) -> None:
        # Files are looked up by their name in this list, made at the start: an address never becomes a path.
        self._files = {
            f"web/{path.relative_to(web).as_posix()}": path
            for path in sorted(web.rglob("*"))
            if path.suffix in KINDS and path.is_file()
        }

    def find(self, method: str, path: str) -> Response | None:
        """Return the response with a file; None if this address is not one's."""
        if path not in self._files or method != "GET":
            return None
        kind = KINDS[self._files[path].suffix]
        headers = {"X-Content-Type-Options": SAFE["X-Content-Type-Options"], "Cache-Control": "no-cache"}
        return Response(200, {**headers, "Content-Type": kind}, self._files[path])


class GalleryApp:
    """Answers the gallery's requests, and serves the page's own files."""

    def __init__(self, library: RunLibrary, actions: Actions, web: Path) -> None:
        self._library, self._actions, self._files = library, actions, PageFiles(web)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        body = await read_body(receive)
        await send_response(send, await asyncio.to_thread(self._respond, scope, body))

    def _respond(self, scope: Scope, body: bytes) -> Response:
        request = request_of(scope, body)
        file = self._files.find(request.method, request.path)
        return file or handle(self._library, self._actions, request)


def request_of(scope: Scope, body: bytes = b"") -> Request:
    """Return a request as `handle` takes it."""
    root: str = scope.get("root_path", "")
    path: str = scope["path"]
    path = path.removeprefix(root).lstrip("/")  # servers differ in whether a mounted path keeps its prefix
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
    query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
    return Request(scope["method"], path, query, headers, body)


async def send_response(send: Send, response: Response) -> None:
    """Send a response; one without its file becomes a 404."""
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


async def read_body(receive: Receive) -> bytes:
    """Read the request's body, at most one byte more than `MAX_BYTES`: `handle` refuses such a body."""
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            break
        body = (body + message.get("body", b""))[: MAX_BYTES + 1]
        more = message.get("more_body", False)
    return body
