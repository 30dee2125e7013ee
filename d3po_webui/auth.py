"""Who may use the gallery's API and files on the web UI's own server: whoever may use the page.

gradio's login and --api-auth do not apply to what is mounted on gradio's application, so both are checked here. The
page holds a key and sends it in a cookie, so that nobody who only opens the page is asked for the API's password.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Mapping
from secrets import compare_digest
from typing import Protocol

from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

MOUNT = "/d3po"
COOKIE = "d3po-key"
"""How the key's cookie begins; the server's port follows, as servers of one computer share their cookies."""
CLOSED = {
    "what": "This page may not use the gallery any more.",
    "do": "Load it again, and log in if you are asked to.",
    "safe": "Your picks are kept in this browser.",
}


class GradioApp(Protocol):
    """gradio's application."""

    auth: object
    """How to log in; None if nobody has to."""
    tokens: Collection[str]
    """What it put into the cookies of those who are logged in."""


class AuthMiddleware:
    """Answers those who have the page, are logged in at it, or know the API's password; everybody if neither is needed.

    Args:
        app: the gallery.
        page: knows who is logged in.
        passwords: of --api-auth, by user; empty without it.
        key: stands in the page.
    """

    def __init__(self, app: ASGIApp, page: GradioApp, passwords: Mapping[str, str], key: str) -> None:
        self._app, self._page, self._passwords, self._key = app, page, passwords, key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._is_allowed(HTTPConnection(scope)):
            await self._app(scope, receive, send)
        else:  # without a challenge: browsers would ask for a password
            await JSONResponse({"error": CLOSED}, 401)(scope, receive, send)

    def _is_allowed(self, connection: HTTPConnection) -> bool:
        has_login = getattr(self._page, "auth", None) is not None
        if not has_login and not self._passwords:
            return True
        return (
            self._has_key(connection.cookies)
            or self._has_password(connection.headers.get("authorization", ""))
            or (has_login and self._is_logged_in(connection.cookies))
        )

    def _has_key(self, cookies: Mapping[str, str]) -> bool:
        keys = [value.encode() for name, value in cookies.items() if name.startswith(COOKIE)]
        return any(compare_digest(key, self._key.encode()) for key in keys)

    def _is_logged_in(self, cookies: Mapping[str, str]) -> bool:
        """Look for a token of gradio's among the cookies; versions differ in what they call it."""
        return any(name.startswith("access-token") and value in self._page.tokens for name, value in cookies.items())

    def _has_password(self, authorization: str) -> bool:
        scheme, _, encoded = authorization.partition(" ")
        try:
            user, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, ValueError):  # not base64, not text, or not ASCII at all
            return False
        expected = self._passwords.get(user)
        if scheme.lower() != "basic" or expected is None:
            return False
        return compare_digest(password.encode(), expected.encode())


def passwords(api_auth: str | None) -> dict[str, str]:
    """Return passwords by user from --api-auth, "user:password,user:password"."""
    return dict(each.split(":", 1) for each in (api_auth or "").split(",") if ":" in each)
