"""A web server for the page and one fake taste, which can be slow, fail, be away, and remember what it was asked."""

from __future__ import annotations

import json
import mimetypes
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tests.gallery_page.fake_taste import FakeTaste, Unknown
from tests.gallery_page.pictures import landscape

WEB = Path(__file__).parents[2] / "web"
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>A host</title><link rel="icon" href="data:,">
<style>html, body {{ margin: 0; height: 100% }} #box {{ height: 100%; position: relative }}</style></head>
<body><h1 style="position:absolute;clip-path:inset(50%)">A host</h1>
<input id="outside" aria-label="outside"
 style="position:absolute;top:0;left:0;width:9px;height:9px;padding:0;z-index:9;opacity:0">
<div id="box"><d3po-gallery base="/d3po" {attributes}></d3po-gallery></div>
<script>
  window.heard = [];
  for (const where of [window, document]) for (const type of ["keydown", "keyup", "keypress", "paste"])
    where.addEventListener(type, (event) => window.heard.push(type));
</script>
<script type="module" src="/web/gallery.js"></script></body></html>"""


class FakeServer:
    """One taste behind an address. Set `delay`, `away` and `failing` at any time."""

    def __init__(self, taste: FakeTaste | None = None) -> None:
        self.taste = taste or FakeTaste()
        self.lock = threading.Lock()
        self.delay = 0.0
        self.image_delay = 0.0
        self.away = False
        self.failing: dict[str, tuple[int, int]] = {}
        """For a path's ending: the status to answer with, and how many times more."""
        self.losing: Counter[str] = Counter()
        """For a path's ending: how many answers more are made and never arrive."""
        self.requests: Counter[str] = Counter()
        self.bodies: list[tuple[str, dict[str, Any]]] = []
        server = self

        class Handler(_Handler):
            owner = server

        self._http = _Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def page(self, attributes: str = "") -> str:
        return f"{self.url}/page?{attributes}"

    def fail(self, ending: str, status: int, times: int = 1) -> None:
        self.failing[ending] = (status, times)

    def should_fail(self, path: str) -> int | None:
        for ending, (status, times) in self.failing.items():
            if path.endswith(ending) and times:
                self.failing[ending] = (status, times - 1)
                return status
        return None


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away in the middle of an answer is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: FakeServer

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        if address.path == "/page":
            return self._send(200, "text/html", PAGE.format(attributes=_attributes(address.query)).encode())
        if address.path.startswith("/web/"):
            path = WEB / address.path.removeprefix("/web/")
            return self._send(200, mimetypes.guess_type(path.name)[0] or "", path.read_bytes())
        self._answer(address.path, lambda path: self._get(path, dict(parse_qsl(address.query))))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.headers["Content-Type"] == "application/json"
        self._answer(self.path, lambda path: self._post(path, body))

    def _answer(self, path: str, answer: Callable[[str], Any]) -> None:
        owner = self.owner
        path = path.removeprefix("/d3po/")
        owner.requests[path] += 1
        if owner.away:
            self.close_connection = True
            return
        time.sleep(owner.image_delay if "/image/" in path else owner.delay)
        status = owner.should_fail(path)
        if status:
            return self._send(status, "application/json", _error(status))
        try:
            with owner.lock:
                found = answer(path)
        except Unknown:
            return self._send(404, "application/json", _error(404))
        for ending in [ending for ending, times in owner.losing.items() if times and path.endswith(ending)]:
            owner.losing[ending] -= 1
            self.close_connection = True
            return
        if isinstance(found, bytes):
            return self._send(200, "image/png", found, cache="private, max-age=31536000, immutable")
        self._send(200, "application/json", json.dumps(found).encode())

    def _get(self, path: str, query: dict[str, str]) -> Any:
        taste = self.owner.taste
        if path == "tastes":
            named = {"id": taste.id, "name": taste.name, "model": {"family": "sd15", "name": "a small model"}}
            return {"tastes": [{**named, "picks": len(taste.standing()), "groups": len(taste.groups), "created": 0}]}
        _, name, *rest = path.removeprefix("taste/").split("/")
        if name == "image":
            group = taste.group(rest[0])
            return landscape(group.number * 8 + int(rest[1]), *group.size)
        if name in ("blind", "strip"):
            return landscape(zlib.crc32(path.encode()))
        if name == "state":
            return taste.state(query.get("who", ""))
        if name == "history":
            return taste.history(query)
        raise Unknown

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        taste = self.owner.taste
        name = "_".join(path.removeprefix("taste/").split("/")[1:])
        self.owner.bodies.append((name, body))
        if name in ("teach", "stop", "draw"):
            return taste.act(name, body)
        return getattr(taste, name)(body)

    def _send(self, status: int, kind: str, data: bytes, cache: str = "no-store") -> None:
        with suppress(OSError):
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Cache-Control", cache)
            self.end_headers()
            self.wfile.write(data)


def _attributes(query: str) -> str:
    return " ".join(f'{name}="{escape(value)}"' for name, value in parse_qsl(query, keep_blank_values=True))


def _error(status: int) -> bytes:
    said = {"what": f"It went wrong with {status}.", "do": "Look at the log.", "safe": "Your picks are saved."}
    return json.dumps({"error": said}).encode()
