"""Whoever has no link that works gets one and the same answer, and guests nothing beyond their own: 10,000 requests.

They go straight to the application; some hundred more go over a socket, malformed in ways that no client library sends.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import re
import socket
import sqlite3
import time
import uuid
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from d3po_core.gallery import Actions
from d3po_core.gallery.requests import GETS, IMAGES, POSTS
from d3po_core.gallery.serving import ByLink, ServingApp, web_folder
from d3po_core.picks import Pick
from d3po_core.run import Run, invitations
from tests.run_helpers import put_group
from tests.serving.served import Served

STRANGERS, GUESTS, RAW = 7000, 3000, 300
METHODS = ("GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "get", "QUIT")
PROMPT = "a prompt that nobody else may read"
SECRET_PATH = "/home/somebody/models/secret.safetensors"


def run_apart(work: Coroutine[Any, Any, None]) -> None:
    """Run asynchronous work in a thread: in this one playwright may have a loop that runs."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, work).result()


class Scene:
    """A run that Ada and Ben are invited to, another run beside it with a guest of its own, and all that is secret."""

    def __init__(self, folder: Path) -> None:
        model = {"identity": "abc", "source": SECRET_PATH, "family": "diffusion", "name": SECRET_PATH}
        self.runs = [
            Run.create(folder / name, name=f"Taste of {name}", model=model, settings={})  # type: ignore[arg-type]
            for name in ("served", "other")
        ]
        for run in self.runs:
            for _ in range(4):
                put_group(run, prompt_id=run.prompts.add(PROMPT))
            for group in run.groups.select()[:2]:
                run.picks.add(
                    group.id, Pick("favourite", (0,)), pick_id=uuid.uuid4().hex, who="Ben", shown_order=(0, 1)
                )
                run.flags.add(group.id, 1, "unsafe", pick_id=uuid.uuid4().hex, who="Owner")
        self.run, self.other = self.runs
        self.live = self.run.invitations.create("Ada", 7)
        self.ben = self.run.invitations.create("Ben", 7, same_person=True)
        self.foreign = self.other.invitations.create("Ada", 7)
        self.revoked = self.run.invitations.create("Cem", 7)
        self.run.invitations.revoke("Cem")
        self.expired = self.run.invitations.create("Dora", 1e-9)
        time.sleep(0.001)
        self.owner = invitations.new_token()
        self.pick_ids = [pick.pick_id for run in self.runs for pick in (*run.picks.history(), *run.flags.history())]
        self.app = ServingApp(self.run, Actions(), web_folder(), ByLink(self.run, "http://a.example/", self.owner))
        self.run.invitations.find(self.live)  # so that the note of it is not made meanwhile

    def contents(self) -> object:
        """All that is stored, in both runs."""
        stored: list[object] = []
        for run in self.runs:
            with sqlite3.connect(run.folder / "run.sqlite3") as connection:
                names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
                stored += [connection.execute(f"SELECT * FROM {name}").fetchall() for name in sorted(names)]
            files = sorted(path for path in run.folder.rglob("*") if path.is_file() and "sqlite3" not in path.name)
            stored += [(path.name, path.read_bytes()) for path in files]
        return stored


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    for run in made.runs:
        run.close()


def addresses(scene: Scene, run: Run) -> list[str]:
    """All addresses that mean something."""
    group = run.groups.select()[0].id
    names = [*GETS, *POSTS, f"image/{group}/0", f"blind/image/{'0' * 32}/0/0", "strip/1/0/before", *IMAGES]
    own = [f"/taste/{run.run_id}/{name}" for name in names]
    return [*own, "/", "/tastes", "/web/gallery.mjs", "/web/text/en.json", f"/taste/{run.run_id}", "/favicon.ico"]


def mangled(rng: random.Random, path: str) -> str:
    """A path as attackers write it; servers hand it on decoded."""
    at = rng.randrange(len(path) + 1)
    changes = (
        lambda: path,
        lambda: "/" + path,
        lambda: path + rng.choice(["/", "//", "/.", "/..", "?", "%00", "\x00", ";a=b", ".json", " "]),
        lambda: (
            path[:at] + rng.choice(["../", "..\\", "%2e%2e/", "./", "\x00", "é", "\u2215", "%", "/../"]) + path[at:]
        ),
        lambda: "/web/../" + path.lstrip("/"),
        lambda: "/web/" + rng.choice(["../pyproject.toml", "%2e%2e/run.sqlite3", "..%5c", "/etc/passwd"]),
        lambda: "/join/.." + path,
        lambda: path.upper(),
        lambda: path[:at],
        lambda: path + "a" * rng.choice([10, 5000]),
        lambda: "http://127.0.0.1" + path,
    )
    return rng.choice(changes)()


def tokens(scene: Scene, rng: random.Random) -> str:
    """What lets nobody in."""
    live = rng.choice([scene.live, scene.ben, scene.owner])
    at = rng.randrange(len(live))
    return rng.choice(
        [
            *("", "null", "undefined", "'", '" OR 1=1 --', "\x00", "é" * 43, "a" * 10000, "Ada", scene.run.run_id),
            *(scene.revoked, scene.expired, scene.foreign, live[:-1], live + "=", live + "\x00", live.swapcase()),
            *(live[:at] + ("A" if live[at] != "A" else "B") + live[at + 1 :], f'"{live}"', live[::-1], f"{live}{live}"),
            hashlib.sha256(live.encode()).hexdigest(),
            *(invitations.new_token(), uuid.uuid4().hex),
        ]
    )


def headers(scene: Scene, rng: random.Random) -> list[tuple[bytes, bytes]]:
    """Headers that claim to be somebody."""
    name = f"d3po_{scene.run.run_id[:12]}"
    other = rng.choice(
        [f"d3po_{scene.other.run_id[:12]}", "d3po", "session", name.upper(), f" {name} x", f"{name}\x00"]
    )
    claims = [
        ("cookie", f"{name}={tokens(scene, rng)}"),
        ("cookie", f"{other}={rng.choice([scene.live, scene.foreign, scene.owner])}"),
        ("cookie", f"a=b; {name}={tokens(scene, rng)}; {other}={scene.live}"),
        ("authorization", f"Bearer {scene.live}"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-proto", "https"),
        ("x-original-url", f"/join/{scene.live}"),
        ("x-rewrite-url", "/"),
        ("x-http-method-override", "GET"),
        ("x-forwarded-user", "Ada"),
        ("forwarded", "for=127.0.0.1;host=localhost"),
        ("host", rng.choice(["localhost", "127.0.0.1:7869", "evil.example", "", "a" * 300])),
        ("origin", rng.choice(["null", "http://127.0.0.1", "http://evil.example", "http://["])),
        ("sec-fetch-site", rng.choice(["none", "same-origin", "cross-site"])),
        ("sec-fetch-mode", "navigate"),
        ("content-type", "application/json"),
        ("transfer-encoding", "chunked"),
        ("content-length", rng.choice(["0", "-1", "99999999999"])),
        ("upgrade", "websocket"),
        ("referer", f"http://a.example/join/{scene.live}"),
    ]
    chosen = rng.sample(claims, rng.randrange(8))
    return [(key.encode(), value.encode("utf-8")) for key, value in chosen]


async def ask(
    app: ServingApp, method: str, path: str, sent: list[tuple[bytes, bytes]], body: bytes = b"", query: bytes = b""
) -> tuple[int, dict[str, str], bytes, bool]:
    """Ask an application; status, headers, body, and whether the request's body was read."""
    messages: list[dict[str, Any]] = []
    read = False

    async def receive() -> dict[str, Any]:
        nonlocal read
        read = True
        return {"type": "http.request", "body": body}

    async def send(message: dict[str, Any]) -> None:
        messages.append(message)

    scope = {"type": "http", "method": method, "path": path, "query_string": query, "headers": sent}
    await app({**scope, "client": ("127.0.0.1", 4000), "scheme": "http"}, receive, send)
    start, content = messages
    return start["status"], {k.decode(): v.decode() for k, v in start["headers"]}, content["body"], read


def test_strangers_get_one_answer_whatever_they_ask(scene: Scene) -> None:
    rng = random.Random(1)
    before, answers, paths = scene.contents(), set(), [*addresses(scene, scene.run), *addresses(scene, scene.other)]

    async def all_of_them() -> None:
        for _ in range(STRANGERS):
            path = mangled(rng, rng.choice(paths)) if rng.random() < 0.7 else f"/join/{tokens(scene, rng)}"
            sent = headers(scene, rng)
            html = rng.random() < 0.5
            sent += [(b"accept", b"text/html,*/*" if html else b"*/*")]
            body = rng.choice([b"", b"{}", b"x" * 200_000, json.dumps({"client": "0" * 32, "want": 8}).encode()])
            query = rng.choice([b"", f"who=Ada&token={scene.live}".encode(), b"%", b"a" * 5000])
            status, heads, answer, read = await ask(scene.app, rng.choice(METHODS), path, sent, body, query)
            answers.add((html, status, tuple(sorted(heads.items())), answer))
            assert not read, "the body of a stranger is not even read"

    run_apart(all_of_them())
    assert len(answers) == 2 and {status for _, status, _, _ in answers} == {403}
    said = b"".join(answer for *_, answer in answers).decode()
    assert not any(secret in said for secret in ("Taste of", "taste/", "join", PROMPT, SECRET_PATH, "Ada", "Ben"))
    assert scene.contents() == before


def test_guests_get_nothing_of_others_and_change_nothing_of_theirs(scene: Scene) -> None:
    rng = random.Random(2)
    own, allowed = f"/taste/{scene.run.run_id}", ("state", "history", "next", "pick", "flag", "mask", "image")
    names = [name for name in (*GETS, *POSTS, *IMAGES) if name not in (*allowed, "undo", "remove")]
    group, foreign = scene.run.groups.select()[0].id, scene.other.groups.select()[0].id
    forbidden = [
        *(f"{own}/{name}" for name in names),
        *(path for path in addresses(scene, scene.other) if scene.other.run_id in path),
        *("/tastes", "/tastes/", own, f"{own}/", f"{own}/strip/1/0/before", f"{own}/blind/image/{'0' * 32}/0/0"),
        *(f"{own}/image/{foreign}/0", f"{own}/image/{group}/0/../../../run.sqlite3", f"{own}/image/../run.sqlite3"),
        *("/run.sqlite3", "/manifest.json", f"/groups/{group}/0.png", "/web/../run.sqlite3", "/join", "/metrics.jsonl"),
    ]
    theirs = [*scene.pick_ids, uuid.uuid4().hex]
    cookie = (b"cookie", f"d3po_{scene.run.run_id[:12]}={scene.live}".encode())
    before, seen = scene.contents(), b""

    async def all_of_them() -> None:
        nonlocal seen
        for _ in range(GUESTS):
            values = {"client": uuid.uuid4().hex, "pick_id": rng.choice(theirs), "who": "Ben", "name": "x", "groups": 9}
            values |= {"check": "0" * 32, "decision": "keep", "index": 0, "side": 0}
            sent = [cookie, (b"content-type", b"application/json"), (b"sec-fetch-site", b"same-origin")]
            method, path = rng.choice(METHODS), rng.choice(forbidden)
            if rng.random() < 0.3:
                method, path = "POST", f"{own}/{rng.choice(['undo', 'remove'])}"
            elif rng.random() < 0.1:
                method, path = rng.choice(METHODS[2:]), f"{own}/{rng.choice(allowed)}"
            status, _, answer, _ = await ask(scene.app, method, path, sent, json.dumps(values).encode())
            assert 400 <= status < 500, (method, path, status)
            seen += answer

    run_apart(all_of_them())
    secrets = [PROMPT, SECRET_PATH, "Ben", "Owner", "Cem", "Dora", "Taste of", foreign, *theirs, str(scene.run.folder)]
    assert not any(secret.encode() in seen for secret in secrets) and b"PNG" not in seen and b"/home" not in seen
    assert scene.contents() == before


def test_a_guest_learns_nothing_of_others_from_what_is_allowed(scene: Scene) -> None:
    """All that Ada gets on her way through the run, fields she must not send among hers."""
    own, seen = f"/taste/{scene.run.run_id}", b""
    cookie = (b"cookie", f"d3po_{scene.run.run_id[:12]}={scene.live}".encode())

    async def way() -> None:
        nonlocal seen

        async def send(method: str, path: str, query: bytes = b"", **values: Any) -> Any:
            nonlocal seen
            sent = [cookie, (b"content-type", b"application/json")]
            status, _, answer, _ = await ask(scene.app, method, own + path, sent, json.dumps(values).encode(), query)
            assert status == 200, answer
            seen += answer
            return json.loads(answer)

        client = uuid.uuid4().hex
        for card in (await send("POST", "/next", client=client, want=8))["cards"]:
            shown = [image["candidate"] for image in card["images"]]
            values = {"group_id": card["group_id"], "shown_order": shown, "client": client, "who": "Ada"}
            pick = {"pick_id": uuid.uuid4().hex, "kind": "favourite", "order": shown[:1], **values}
            await send("POST", "/pick", **pick)
            await send("POST", "/flag", **values, pick_id=uuid.uuid4().hex, candidate=1, kind="unsafe", on=True)
            await send("POST", "/mask", **values, pick_id=uuid.uuid4().hex, candidate=1, rows=[1] * 32)
        await send("POST", "/undo", client=client, pick_id=pick["pick_id"])
        await send("GET", "/state", b"who=Ada&client=" + client.encode())
        history = await send("GET", "/history", b"by=Ben")
        assert history["people"] == ["Ada"] and {item["who"] for item in history["items"]} == {"Ada"}

    run_apart(way())
    assert not any(secret.encode() in seen for secret in (SECRET_PATH, "Ben", "Owner", "Cem", *scene.pick_ids))
    made = [pick for pick in scene.run.picks.history() if pick.pick_id not in scene.pick_ids]
    assert made and {pick.who for pick in made} == {"Ada"}


def raw_requests(scene: Scene, served: Served, rng: random.Random) -> Iterator[bytes]:
    """Requests as no library sends them; none may come with what lets somebody in."""
    group = scene.run.groups.select()[0].id
    host = f"127.0.0.1:{served.port}"
    for _ in range(RAW):
        path = rng.choice([*addresses(scene, scene.run), f"/taste/{scene.run.run_id}/image/{group}/0"])
        path = mangled(rng, path).replace(" ", "%20")
        token = tokens(scene, rng).replace("\x00", "x").encode()
        cookie = b"Cookie: d3po_%s=%s\r\n" % (scene.run.run_id[:12].encode(), token)
        start = f"{rng.choice(METHODS)} {path} HTTP/1.1\r\nHost: {host}\r\n".encode() + cookie
        inner = f"GET /taste/{scene.run.run_id}/state HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
        yield rng.choice(
            [
                start + b"Connection: close\r\n\r\n",
                start + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + inner,
                start + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + inner,
                start + b"Content-Length: 0\r\nContent-Length: %d\r\n\r\n" % len(inner) + inner,
                start + b"Content-Length: %d\r\n\r\n" % len(inner) + inner + inner,
                start + b"Transfer-Encoding : chunked\r\n\r\nffffffff\r\n" + inner,
                start + b"X: a\r\n Cookie: folded=1\r\n\r\n",
                start + b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
                start + b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABk\r\n\r\n",
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                b"GET " + path.encode("utf-8") + b"\r\n\r\n",
                b"GET http://127.0.0.1/ HTTP/1.0\r\n" + cookie + b"\r\n",
                start + b"X-Long: " + b"a" * 70_000 + b"\r\n\r\n",
                start + b"\r\n".join(b"X-%d: 1" % n for n in range(2000)) + b"\r\n\r\n",
                start.replace(b"\r\n", b"\n") + b"\n",
                b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(rng.randrange(256) for _ in range(200)),
                start + b"Expect: 100-continue\r\nContent-Length: 300000\r\n\r\n" + b"x" * 300_000,
            ]
        )


def exchange(port: int, data: bytes, patience: float = 0.15) -> bytes:
    """All that a server answers to these bytes before it closes, or is silent for some seconds."""
    received = b""
    with socket.create_connection(("127.0.0.1", port), 5) as connection:
        connection.settimeout(patience)
        try:
            connection.sendall(data)
            while piece := connection.recv(65536):
                received += piece
        except (TimeoutError, ConnectionError):
            pass
    return received


def test_malformed_requests_over_a_socket_get_nothing(scene: Scene) -> None:
    before = scene.contents()
    served = Served(scene.run.folder)
    try:
        secrets = [scene.run.run_id, PROMPT, "Taste of", "Ada", "Ben", "PNG", "customElements", SECRET_PATH, "101 "]
        for data in raw_requests(scene, served, random.Random(3)):
            answer = exchange(served.port, data)
            assert set(re.findall(rb"HTTP/1\.1 (\d+)", answer)) <= {b"403", b"400", b"431", b"100"}, (data, answer)
            assert not any(secret.encode() in answer for secret in secrets), (data, answer)
        assert served.ask("GET", "/", token=scene.live).status == 200  # it still stands
    finally:
        served.stop()
    assert scene.contents() == before


def test_each_of_several_requests_on_one_connection_is_judged_by_itself(scene: Scene) -> None:
    served = Served(scene.run.folder)
    try:
        line = f"GET /taste/{scene.run.run_id}/state HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\n"
        cookie = f"Cookie: {served.cookie_name}={scene.live}\r\n"
        three = (line + cookie + "\r\n" + line + "\r\n" + line + cookie + "\r\n").encode()
        answer = exchange(served.port, three, patience=2)
        statuses = re.findall(rb"HTTP/1\.1 (\d+)", answer)
        assert statuses == [b"200", b"403", b"200"] and answer.count(b'"revision"') == 2
    finally:
        served.stop()
