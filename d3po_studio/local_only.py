"""Only the Studio's own page, on this computer, is answered."""

from __future__ import annotations

from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from d3po_core.gallery.requests import from_another_site

LOCAL = ("127.0.0.1", "localhost", "[::1]")
POLICY_VIOLATION = 1008
"""A websocket's close code."""


class LocalOnlyMiddleware:
    """Refuses what does not come from the Studio's own page.

    Requests that name another host or port: a foreign site could have its own name point to this computer (Starlette's
    TrustedHostMiddleware sees the same, but no port, and no IPv6 address). And requests that a browser says come from
    another site or port, other than following a link to the page: gradio's endpoints would answer them, and could begin
    or delete tastes.

    Args:
        app: what is asked when all is well.
        port: that the server listens on.
    """

    def __init__(self, app: ASGIApp, port: int) -> None:
        self._app, self._hosts = app, {f"{host}:{port}" for host in LOCAL}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or self._is_allowed(scope):
            answer = self._app
        elif scope["type"] == "websocket":
            answer = WebSocketClose(POLICY_VIOLATION)
        else:
            answer = PlainTextResponse("Only the Studio's own page may ask for this.", 403)
        await answer(scope, receive, send)

    def _is_allowed(self, scope: Scope) -> bool:
        headers = HTTPConnection(scope).headers
        if headers.get("host") not in self._hosts:
            return False
        follows_a_link = (
            scope.get("method") in ("GET", "HEAD")
            and scope["path"] == "/"
            and headers.get("sec-fetch-mode") == "navigate"
        )
        return follows_a_link or not from_another_site(headers)
