"""The gallery's API and files on the web UI's own server, under /d3po, for whoever may use the page.

What is mounted on a gradio application passes by gradio's login and by --api-auth, so both are asked for here.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from secrets import compare_digest
from typing import Any

from d3po_core.gallery.asgi import GalleryApp, Receive, Scope, Send

MOUNT = "/d3po"


class Doorkeeper:
    """Lets those in who are logged in at gradio's page, or know the API's password; everybody, where neither is asked.

    Args:
        inside: the gallery.
        page: gradio's application, which knows who is logged in.
        passwords: of --api-auth, by user; empty without it.
    """

    def __init__(self, inside: GalleryApp, page: Any, passwords: Mapping[str, str]) -> None:
        self._inside, self._page, self._passwords = inside, page, passwords

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._may_enter(scope):
            await self._inside(scope, receive, send)
            return
        headers = [(b"content-type", b"text/plain")]
        if self._passwords:
            headers.append((b"www-authenticate", b"Basic"))
        await send({"type": "http.response.start", "status": 401, "headers": headers})
        await send({"type": "http.response.body", "body": b"Log in first."})

    def _may_enter(self, scope: Scope) -> bool:
        login = getattr(self._page, "auth", None) is not None
        if not login and not self._passwords:
            return True
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        return (login and self._logged_in(headers.get("cookie", ""))) or self._knows(headers.get("authorization", ""))

    def _logged_in(self, cookies: str) -> bool:
        """Whether one of the cookies is a token that gradio gave out; versions differ in what they call it."""
        try:
            found = SimpleCookie(cookies)
        except CookieError:
            return False
        tokens = [each.value for name, each in found.items() if name.startswith("access-token")]
        return any(token in self._page.tokens for token in tokens)

    def _knows(self, authorization: str) -> bool:
        kind, _, encoded = authorization.partition(" ")
        try:
            user, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, ValueError):  # not base64, not text, or not ASCII at all
            return False
        expected = self._passwords.get(user)
        if kind.lower() != "basic" or expected is None:
            return False
        return compare_digest(password.encode(), expected.encode())


def passwords(told: str | None) -> dict[str, str]:
    """Of --api-auth, "user:password,user:password"."""
    return dict(each.split(":", 1) for each in (told or "").split(",") if ":" in each)
