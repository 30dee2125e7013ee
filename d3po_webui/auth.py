"""The gallery's API and files on the web UI's own server, under /d3po, for whoever may use the page.

What is mounted on a gradio application passes by gradio's login and by --api-auth, so both are asked for here. Who was
given the page has its key, in a cookie; nobody who only opens the page is asked for the API's password.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from secrets import compare_digest
from typing import Any

from d3po_core.gallery.asgi import GalleryApp, Receive, Scope, Send

MOUNT = "/d3po"
COOKIE = "d3po-key"
"""How the key's cookie begins; the server's port follows, as servers of one computer share their cookies."""
CLOSED = {
    "what": "This page may not use the gallery any more.",
    "do": "Load it again, and log in if you are asked to.",
    "safe": "Your picks are kept in this browser.",
}


class AuthMiddleware:
    """Lets those in who have the page or are logged in at it, or know the API's password; all, where neither is asked.

    Args:
        inside: the gallery.
        page: gradio's application, which knows who is logged in.
        passwords: of --api-auth, by user; empty without it.
        key: stands in the page.
    """

    def __init__(self, inside: GalleryApp, page: Any, passwords: Mapping[str, str], key: str) -> None:
        self._inside, self._page, self._passwords, self._key = inside, page, passwords, key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._may_enter(scope):
            await self._inside(scope, receive, send)
            return
        headers = [(b"content-type", b"application/json")]  # without a challenge: browsers would ask for a password
        await send({"type": "http.response.start", "status": 401, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps({"error": CLOSED}).encode()})

    def _may_enter(self, scope: Scope) -> bool:
        login = getattr(self._page, "auth", None) is not None
        if not login and not self._passwords:
            return True
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        sent = cookies(headers.get("cookie", ""))
        known = self._has_key(sent) or self._knows(headers.get("authorization", ""))
        return known or (login and self._logged_in(sent))

    def _has_key(self, sent: Mapping[str, str]) -> bool:
        found = [value.encode() for name, value in sent.items() if name.startswith(COOKIE)]
        return any(compare_digest(value, self._key.encode()) for value in found)

    def _logged_in(self, sent: Mapping[str, str]) -> bool:
        """Whether one of the cookies is a token that gradio gave out; versions differ in what they call it."""
        return any(name.startswith("access-token") and value in self._page.tokens for name, value in sent.items())

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


def cookies(header: str) -> dict[str, str]:
    """By name; none, where they cannot be read."""
    try:
        return {name: each.value for name, each in SimpleCookie(header).items()}
    except CookieError:
        return {}


def passwords(told: str | None) -> dict[str, str]:
    """Of --api-auth, "user:password,user:password"."""
    return dict(each.split(":", 1) for each in (told or "").split(",") if ":" in each)
