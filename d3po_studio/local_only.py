"""Who may talk to the Studio: its own page, on this computer, and nobody else."""

from __future__ import annotations

from typing import Any

from d3po_core.gallery.requests import from_another_site

LOCAL = ("127.0.0.1", "localhost", "[::1]")


class LocalOnlyMiddleware:
    """Refuses what does not come from the Studio's own page.

    Requests that name another host: a foreign site could have its own name point to this computer. And requests that a
    browser says come from another site or port, other than following a link to the page: gradio's endpoints would
    answer them, and could begin or delete tastes.

    Args:
        app: what is asked when all is well.
        port: that the server listens on.
    """

    def __init__(self, app: Any, port: int) -> None:
        self._app, self._hosts = app, {f"{host}:{port}" for host in LOCAL}

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan" or self._welcome(scope):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            headers = [(b"content-type", b"text/plain")]
            await send({"type": "http.response.start", "status": 403, "headers": headers})
            await send({"type": "http.response.body", "body": b"Only the Studio's own page may ask for this."})

    def _welcome(self, scope: dict[str, Any]) -> bool:
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if headers.get("host") not in self._hosts:
            return False
        following_a_link = (
            scope.get("method") in ("GET", "HEAD")
            and scope["path"] == "/"
            and headers.get("sec-fetch-mode") == "navigate"
        )
        return following_a_link or not from_another_site(headers)
