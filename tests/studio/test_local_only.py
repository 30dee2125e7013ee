"""Only the Studio's own page on this computer is answered."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from d3po_studio.local_only import LocalOnlyMiddleware

HERE = {"host": "127.0.0.1:7870"}


def status(method: str, path: str, headers: dict[str, str], kind: str = "http") -> Any:
    sent: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": kind, "method": method, "path": path, "headers": raw}
    with contextlib.suppress(StopIteration):  # nothing in it waits, so no event loop is needed
        LocalOnlyMiddleware(app, 7870)(scope, None, send).send(None)
    return sent[0].get("status", sent[0]["type"])


@pytest.mark.parametrize(
    ("method", "path", "headers", "expected"),
    [
        ("GET", "/", HERE, 200),
        ("GET", "/", {"host": "localhost:7870"}, 200),
        ("GET", "/", {"host": "[::1]:7870"}, 200),
        ("GET", "/", {"host": "evil.example:7870"}, 403),  # a name that points to this computer
        ("GET", "/", {"host": "127.0.0.1:80"}, 403),
        ("GET", "/", {}, 403),
        ("GET", "/", {**HERE, "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, 200),  # a link
        ("GET", "/", {**HERE, "sec-fetch-site": "cross-site", "sec-fetch-mode": "cors"}, 403),
        ("GET", "/gradio_api/info", {**HERE, "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, 403),
        ("POST", "/", {**HERE, "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, 403),  # a form
        ("POST", "/gradio_api/upload", {**HERE, "origin": "http://evil.example"}, 403),
        ("POST", "/gradio_api/queue/join", {**HERE, "origin": "http://localhost:3000"}, 403),
        ("POST", "/gradio_api/queue/join", {**HERE, "origin": "null"}, 403),
        ("POST", "/gradio_api/queue/join", {**HERE, "origin": "http://127.0.0.1:7870"}, 200),
        ("GET", "/d3po/tastes", {**HERE, "sec-fetch-site": "same-site"}, 403),
    ],
)
def test_who_is_answered(method: str, path: str, headers: dict[str, str], expected: int) -> None:
    assert status(method, path, headers) == expected


def test_foreign_sockets_are_closed() -> None:
    assert status("GET", "/ws", {"host": "evil.example"}, "websocket") == "websocket.close"
