"""Who may use the gallery on a web UI's server."""

from __future__ import annotations

import base64
from types import SimpleNamespace
from typing import Any

import pytest

from d3po_webui.auth import AuthMiddleware, passwords

KEY = "0123456789abcdef"
PASSWORDS = passwords("anna:secret:with:colons,bert:x")


def asked(login: bool, known: dict[str, str], headers: dict[str, str]) -> int:
    """Status of a request."""
    page = SimpleNamespace(auth={"anna": "secret"} if login else None, tokens={"token-of-anna": "anna"})
    sent: list[dict[str, Any]] = []

    async def inside(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": "GET", "path": "/tastes", "headers": pairs, "query_string": b""}
    answer = AuthMiddleware(inside, page, known, KEY)(scope, None, send)  # type: ignore[arg-type]
    with pytest.raises(StopIteration):  # nothing in it waits; and a browser's tests may have a loop running
        answer.send(None)
    return int(sent[0]["status"])


def basic(text: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(text.encode()).decode()}


def test_without_a_login_everybody_may() -> None:
    assert asked(False, {}, {}) == 200


@pytest.mark.parametrize("name", ["access-token", "access-token-unsecure", "access-token-a1b2"])
def test_who_is_logged_in_may(name: str) -> None:
    assert asked(True, {}, {"cookie": f"theme=dark; {name}=token-of-anna"}) == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"cookie": "access-token=another"},
        {"cookie": "token=token-of-anna"},
        {"cookie": "\x7f=;;"},
        {"cookie": f"key={KEY}"},
        {"cookie": "d3po-key-7860=another"},
        {"cookie": "d3po-key-7860=\xe4"},
        basic("anna:secret"),  # the page's password is not the API's
    ],
)
def test_who_is_not_logged_in_may_not(headers: dict[str, str]) -> None:
    assert asked(True, {}, headers) == 401


@pytest.mark.parametrize("login", [False, True])
def test_who_was_given_the_page_may(login: bool) -> None:
    sent = {"cookie": f"theme=dark; d3po-key-7861=of-another-server; d3po-key-7860={KEY}"}
    assert asked(login, PASSWORDS, sent) == 200


def test_the_apis_password_opens() -> None:
    assert asked(False, PASSWORDS, basic("anna:secret:with:colons")) == 200
    assert asked(True, PASSWORDS, basic("bert:x")) == 200
    assert asked(True, PASSWORDS, {"cookie": "access-token=token-of-anna"}) == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        basic("anna:secret"),
        basic("nobody:x"),
        basic("bert"),
        {"authorization": "Basic ###"},
        {"authorization": "Bearer x"},
    ],
)
def test_another_password_does_not(headers: dict[str, str]) -> None:
    assert asked(False, PASSWORDS, headers) == 401
