"""Serving one run by a server of its own: to its owner on this computer, or to invited people anywhere.

The owner on this computer is known by where a request comes from. As soon as others may come, that proves nothing (a
reverse proxy on this computer comes from here, too), so then everybody has a link, the owner one for as long as the
program runs. A link, `join/TOKEN`, leaves a cookie and leads to the page. Whoever has no link that works gets one and
the same answer, whatever they ask for.

uvicorn serves; it comes with the standalone extra.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import socket
import threading
import time
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ..errors import D3POError
from ..run import Run
from ..run.run import RunLibrary
from .access import cookie, follows_a_link, from_another_site, from_own_page, local_hosts
from .actions import Actions
from .guests import handle_guest
from .requests import (
    PageFiles,
    Receive,
    Request,
    Response,
    Scope,
    Send,
    handle,
    read_body,
    refusal,
    request_of,
    send_response,
)

if TYPE_CHECKING:
    import uvicorn

PORT = 7869
"""Where a run is served unless somebody says otherwise: always there, so that links go on working."""
SAFE = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    **{"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer"},
    **{"Cache-Control": "no-store", "Content-Type": "text/html; charset=utf-8"},
}
PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>html, body {{ height: 100%; margin: 0; }} d3po-gallery {{ height: 100vh; height: 100dvh; }}
p {{ font: 18px/1.5 system-ui, sans-serif; max-width: 32em; margin: 20vh auto; padding: 0 1em; }}</style>
{body}
"""
TROUBLE = ("The computer that serves these pictures has a problem.", "Try again in a minute.")
"""What everybody hears, with a link or without, while the database cannot be read."""


@dataclass(frozen=True)
class Visitor:
    """Somebody who may look at a run.

    Attributes:
        name: of a guest, who picks under it; None for the owner, who may do all.
        token: that their link holds; empty where they need none.
        expires: when the link ends, in seconds since 1970; None with the browser's session.
    """

    name: str | None
    token: str = ""
    expires: float | None = None


class OwnerHere:
    """Lets in the owner's page on this computer alone, without a link.

    Args:
        port: that the server listens on.
    """

    words = ("Only the gallery's own page, on this computer, may ask for this.", "")

    def __init__(self, port: int) -> None:
        self._hosts = local_hosts(port)

    def by_link(self, token: str) -> Visitor | None:
        """Return nobody: there are no links."""
        return None

    def find(self, request: Request) -> Visitor | None:
        """Return the owner, where the request comes from this computer's page."""
        allowed = from_own_page(request.method, f"/{request.path}", request.headers, self._hosts)
        return Visitor(None) if allowed else None


class ByLink:
    """Lets in whoever has a link that works.

    Args:
        run: that knows who is invited.
        address: at which the run is served, as links begin.
        owner: the token of the owner's own link; empty if there is none.
    """

    words = ("This link does not work, or no longer.", "Ask whoever invited you for a new one.")
    """What everybody hears who has no link that works."""

    def __init__(self, run: Run, address: str, owner: str) -> None:
        self._run = run
        self._owner = hashlib.sha256(owner.encode()).digest() if owner else b""
        self.cookie = f"d3po_{run.run_id[:12]}"  # browsers share cookies among the ports of a computer
        parts = urlsplit(address)
        self._path, self._secure = parts.path or "/", parts.scheme == "https"

    def by_link(self, token: str) -> Visitor | None:
        """Return who has a link with this token; None if it is no token of today's."""
        digest = hashlib.sha256(token.encode(errors="surrogatepass")).digest()
        if hmac.compare_digest(digest, self._owner):
            return Visitor(None, token)
        invitation = self._run.invitations.find(token)
        return Visitor(invitation.name, token, invitation.expires) if invitation else None

    def find(self, request: Request) -> Visitor | None:
        """Return who sends a request, by the cookie that the link has left."""
        return self.by_link(cookie(request.headers, self.cookie))

    def cookie_for(self, visitor: Visitor) -> str:
        """Return the cookie that lets a visitor in.

        Not "Strict": browsers would not send it on the way from the link in a mail to the page. "Lax" goes with opened
        addresses alone, which change nothing.
        """
        age = "" if visitor.expires is None else f"; Max-Age={max(0, int(visitor.expires - time.time()))}"
        secure = "; Secure" if self._secure else ""
        return f"{self.cookie}={visitor.token}; Path={self._path}; HttpOnly; SameSite=Lax{age}{secure}"


class OneRun(RunLibrary):
    """A library of one run, wherever its folder is."""

    def __init__(self, run: Run) -> None:
        super().__init__(run.folder.parent)
        self._one = run

    def runs(self) -> list[Run]:
        """Return the run."""
        return [self._one]


class ServingApp:
    """Serves one run: the page with its gallery, and what that asks for. A plain ASGI application.

    Args:
        run: the run.
        actions: what its owner can do besides picking.
        web: folder of the page's own files.
        door: who is let in.
    """

    def __init__(self, run: Run, actions: Actions, web: Path, door: OwnerHere | ByLink) -> None:
        self._run, self._actions, self._door = run, actions, door
        self._files, self._library = PageFiles(web), OneRun(run)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        if scope["type"] != "http":
            return
        request = request_of(scope)
        try:
            visitor = await asyncio.to_thread(self._find, request)
        except D3POError:  # of the disk or the database, which may pass; nobody is let in meanwhile
            await send_response(send, _refusal(503, request, TROUBLE))
            return
        if visitor is None:  # what they send is not even read
            await send_response(send, self._refuse(request))
            return
        body = await read_body(receive) if request.method == "POST" else b""
        await send_response(send, await asyncio.to_thread(self._respond, visitor, request_of(scope, body)))

    def _find(self, request: Request) -> Visitor | None:
        """Return who sends a request; None for nobody who may.

        Raises:
            D3POError: the database cannot be read.
        """
        folder, _, token = request.path.partition("/")
        if folder == "join" and request.method in ("GET", "HEAD"):
            if not _may_open(request):  # another site must not choose whose link a browser has
                return None
            return self._door.by_link(token.removesuffix("/"))
        return self._door.find(request)

    def _respond(self, visitor: Visitor, request: Request) -> Response:
        if request.path.startswith("join/") and isinstance(self._door, ByLink):
            headers = {**SAFE, "Location": "../../" if request.path.endswith("/") else "../"}
            if request.method == "GET":  # programs that look at a link before somebody opens it use HEAD
                headers["Set-Cookie"] = self._door.cookie_for(visitor)
            return Response(303, headers, b"")
        if request.path == "" and request.method in ("GET", "HEAD"):
            if not _may_open(request):
                return self._refuse(request)
            return Response(200, SAFE, self._page(visitor).encode())
        if file := self._files.find(request.method, request.path):
            return file
        if visitor.name is None:
            return handle(self._library, self._actions, request)
        return handle_guest(self._run, self._actions, visitor.name, request)

    def _refuse(self, request: Request) -> Response:
        """Return what everybody gets who is not let in: a page where one is opened, else JSON."""
        return _refusal(403, request, self._door.words)

    def _page(self, visitor: Visitor) -> str:
        guest = "" if visitor.name is None else f' guest who="{escape(visitor.name)}"'
        gallery = f'<d3po-gallery base="." taste="{self._run.run_id}"{guest} autofocus></d3po-gallery>'
        script = '<script type="module" src="web/gallery.mjs"></script>'
        return PAGE.format(title=escape(self._run.name), body=f"{script}\n{gallery}")


def _may_open(request: Request) -> bool:
    """Return whether an address is opened by a person, or asked for by this site, rather than used by another one."""
    return not from_another_site(request.headers) or follows_a_link(request.method, request.headers)


def _refusal(status: int, request: Request, words: tuple[str, str]) -> Response:
    """Return two sentences, what is wrong and what to do: as a page where one is opened, else as JSON."""
    what, do = words
    if "text/html" not in request.headers.get("accept", ""):
        return refusal(status, what, do)
    return Response(status, SAFE, PAGE.format(title="D3PO", body=f"<p>{what} {do}</p>").encode())


def bind(address: str, port: int) -> socket.socket:
    """Return a socket that listens on a port, also right after another program has left it.

    Raises:
        OSError: it is in use, or there is no such address here.
    """
    opened = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    try:
        if os.name == "posix":  # on Windows this option would share the port with a server that still runs
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((address, port))
        opened.listen(128)  # only now is it certain that nobody else does
    except OSError:
        opened.close()
        raise
    return opened


def web_folder() -> Path:
    """Return the folder of the page's files: beside this package in a checkout, in the Studio's in a wheel."""
    root = Path(__file__).resolve().parents[2]
    return next(folder for folder in (root / "web", root / "d3po_studio" / "web") if folder.is_dir())


def own_address(address: str, port: int) -> str:
    """Return the address at which others reach a server of this computer, with a slash at its end.

    Args:
        address: that it listens at; 0.0.0.0 and :: stand for all of this computer's.
        port: that it listens on.
    """
    if address in ("0.0.0.0", "::"):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect(("192.0.2.1", 9))  # nothing is sent: the system only says which address it would use
                address = probe.getsockname()[0]
            except OSError:
                address = socket.gethostname()
    host = f"[{address}]" if ":" in address else address
    return f"http://{host}:{port}/"


def join_link(address: str, token: str) -> str:
    """Return the link that holds a token, at an address with a slash at its end."""
    return f"{address}join/{token}"


def make_server(app: ServingApp) -> uvicorn.Server:
    """Make a server for an application; it writes no addresses, which hold tokens, and believes no proxy's headers.

    Raises:
        D3POError: uvicorn is not installed.
    """
    try:
        import uvicorn
    except ImportError as error:
        what = "Serving needs uvicorn, which is not installed here."
        raise D3POError(what, 'Install it: pip install "d3po[standalone]"') from error
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=1,
    )
    return uvicorn.Server(config)


class GuestServer:
    """Serves a run to invited people from a thread of this program, until it is stopped.

    Args:
        run: the run.
        actions: of the program.
        address, port: to listen at.
        public: the address that links begin with, where a proxy is in front; empty for this computer's own.

    Raises:
        D3POError: uvicorn is not installed.
        OSError: the port is in use.
    """

    def __init__(
        self, run: Run, actions: Actions, address: str = "0.0.0.0", port: int = PORT, public: str = ""
    ) -> None:
        opened = bind(address, port)
        try:
            self.port: int = opened.getsockname()[1]
            self.address = public or own_address(address, self.port)
            self._server = make_server(ServingApp(run, actions, web_folder(), ByLink(run, self.address, "")))
            run.invitations.note_address(self.address)
        except BaseException:
            opened.close()
            raise
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [opened]}, name="d3po-guests", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Stop serving, and wait until that is done."""
        self._server.should_exit = True
        self._thread.join()
