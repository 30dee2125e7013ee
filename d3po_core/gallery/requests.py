"""Requests in, answers out, whatever web server a host has.

Ids are the server's own and never a path; a POST needs a JSON content type, which no cross-site form can send, and a
request that a browser says comes from another site is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..errors import D3POError
from ..run import Run
from ..run.library import RunLibrary
from . import answers, fields
from .actions import Actions
from .answers import Asked, Download
from .fields import BadRequest, NotFound
from .state import taste

MAX_BYTES = 64 * 1024

GETS: dict[str, Callable[[Asked], Any]] = {
    "state": answers.show_state,
    "history": answers.history,
    "export": answers.export,
}
POSTS: dict[str, Callable[[Asked], Any]] = {
    "next": answers.next_cards,
    "pick": answers.pick,
    "flag": answers.flag,
    "undo": answers.undo,
    "remove": answers.remove,
    "rename": answers.rename,
    **{action: partial(answers.act, action=action) for action in ("draw", "teach", "stop")},
    "blind/next": answers.blind_next,
    "blind/answer": answers.blind_answer,
    "blind/decide": answers.blind_decide,
}
IMAGES: dict[str, tuple[int, Callable[..., Path]]] = {
    "image": (2, answers.group_image),
    "blind/image": (3, answers.blind_image),
    "strip": (3, answers.strip_image),
}
"""With how many parts of the address follow."""


@dataclass(frozen=True)
class Request:
    """What a host's server was asked.

    Attributes:
        method: "GET" or "POST".
        path: behind the place where the host mounted the gallery, such as "taste/<id>/state".
        query: of the address, each name once.
        headers: names in lower case.
    """

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True)
class Response:
    """What the host's server is to answer; the body may be a file to be sent as it is."""

    status: int
    headers: dict[str, str]
    body: bytes | Path


class _Refused(Exception):
    """A request that gets this status and sentence."""

    def __init__(self, status: int, what: str) -> None:
        super().__init__(what)
        self.status = status


def handle(shelf: RunLibrary, actions: Actions, request: Request) -> Response:
    """Answer a request. Never raises for what the request says or what the disk does."""
    try:
        if from_another_site(request.headers):
            raise _Refused(403, "This request comes from another site.")
        return _answer(shelf, actions, request)
    except _Refused as error:
        return _json(error.status, {"error": {"what": str(error), "do": "", "safe": ""}})
    except BadRequest as error:
        status = 404 if isinstance(error, NotFound) else 400
        return _json(status, {"error": {"what": str(error), "do": "", "safe": ""}})
    except D3POError as error:
        status = 503 if error.__cause__ is not None else 400  # a cause: disk or database
        return _json(status, {"error": {"what": error.what, "do": error.do, "safe": error.safe}})


def from_another_site(headers: Mapping[str, str]) -> bool:
    """Whether a browser says so.

    Args:
        headers: names in lower case.
    """
    site = headers.get("sec-fetch-site")
    if site is not None:  # the browser has compared what it asked for, which a proxy may have hidden from us
        return site not in ("same-origin", "none")
    origin = headers.get("origin")
    return origin is not None and _host_of(origin) != headers.get("host")


def _host_of(origin: str) -> str | None:
    """Host and port of an origin, None if it is none."""
    try:
        return urlsplit(origin).netloc or None
    except ValueError:
        return None


def _answer(shelf: RunLibrary, actions: Actions, request: Request) -> Response:
    if request.method not in ("GET", "POST"):
        raise _Refused(405, "Only GET and POST are answered.")
    parts = request.path.strip("/").split("/")
    if parts == ["tastes"] and request.method == "GET":
        return _json(200, {"tastes": [taste(run) for run in shelf.runs()]})
    if len(parts) < 3 or parts[0] != "taste":
        raise _Refused(404, "There is nothing at this address.")
    run = shelf.run(fields.an_id({"taste": parts[1]}, "taste"))
    if request.method == "POST":
        return _post(run, actions, "/".join(parts[2:]), request)
    return _get(run, actions, parts[2:], request)


def _post(run: Run, actions: Actions, name: str, request: Request) -> Response:
    if name not in POSTS:
        raise _Refused(404, "There is nothing at this address.")
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise _Refused(415, "The request must be JSON.")
    if len(request.body) > MAX_BYTES:
        raise _Refused(413, "The request is too long.")
    return _json(200, POSTS[name](Asked(run, actions, fields.body_of(request.body))))


def _get(run: Run, actions: Actions, parts: list[str], request: Request) -> Response:
    name = "/".join(parts)
    if name in GETS:
        found = GETS[name](Asked(run, actions, request.query))
        return _download(found) if isinstance(found, Download) else _json(200, found)
    for place, (count, find) in IMAGES.items():
        if len(parts) == place.count("/") + 1 + count and name.startswith(place + "/"):
            path = find(run, *parts[-count:])
            return Response(200, {**SAFE, "Content-Type": "image/png", "Cache-Control": KEEP}, path)
    raise _Refused(404, "There is nothing at this address.")


SAFE = {
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; sandbox",
}
KEEP = "private, max-age=31536000, immutable"


def _json(status: int, value: Any) -> Response:
    headers = {**SAFE, "Content-Type": "application/json", "Cache-Control": "no-store"}
    return Response(status, headers, json.dumps(value).encode())


def _download(found: Download) -> Response:
    headers = {**SAFE, "Content-Type": found.kind, "Cache-Control": "no-store"}
    headers["Content-Disposition"] = f'attachment; filename="{found.name}"'
    return Response(200, headers, found.data)
