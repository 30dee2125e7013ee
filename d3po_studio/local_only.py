"""Only the Studio's own page, on this computer, is answered."""

from __future__ import annotations

from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from d3po_core.gallery.access import from_own_page, local_hosts

POLICY_VIOLATION = 1008
"""A websocket's close code."""


class LocalOnlyMiddleware:
    """Refuses what does not come from the Studio's own page, see `from_own_page`.

    gradio's endpoints would answer other sites, and could begin or delete tastes. (Starlette's TrustedHostMiddleware
    sees the host, but no port, and no IPv6 address.)

    Args:
        app: what is asked when all is well.
        port: that the server listens on.
    """

    def __init__(self, app: ASGIApp, port: int) -> None:
        self._app, self._hosts = app, local_hosts(port)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or self._is_allowed(scope):
            answer = self._app
        elif scope["type"] == "websocket":
            answer = WebSocketClose(POLICY_VIOLATION)
        else:
            answer = PlainTextResponse("Only the Studio's own page may ask for this.", 403)
        await answer(scope, receive, send)

    def _is_allowed(self, scope: Scope) -> bool:
        return from_own_page(scope.get("method", ""), scope["path"], HTTPConnection(scope).headers, self._hosts)
