"""The gallery behind a real web server: several people at once, killed servers, and what it serves."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from d3po_core.gallery import Actions
from d3po_core.gallery.requests import GalleryApp
from d3po_core.run import Run
from d3po_core.run.run import RunLibrary
from tests.gallery.asking import shelf_with

uvicorn = pytest.importorskip("uvicorn", reason="uvicorn comes with the standalone extra")

SERVER = """
import sys, uvicorn
from pathlib import Path
from d3po_core.gallery import Actions
from d3po_core.gallery.requests import GalleryApp
from d3po_core.run.run import RunLibrary
app = GalleryApp(RunLibrary(sys.argv[1]), Actions(), Path("web"))
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning")
"""
ROOT = Path(__file__).parents[2]


class Server:
    """A server process on a folder of tastes."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.folder = folder
        self.start()

    def start(self) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", SERVER, str(self.folder), str(self.port)]
        self.process = subprocess.Popen(command, env=environment, cwd=ROOT)
        for _ in range(600):
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.05)
        raise TimeoutError

    def kill(self) -> None:
        self.process.send_signal(getattr(signal, "SIGKILL", signal.SIGTERM))
        self.process.wait()

    def ask(self, method: str, path: str, values: Any = None) -> tuple[int, Any, dict[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        headers = {"Content-Type": "application/json"} if values is not None else {}
        connection.request(method, path, json.dumps(values) if values is not None else None, headers)
        answer = connection.getresponse()
        data = answer.read()
        kind = answer.getheader("content-type", "")
        return answer.status, json.loads(data) if kind == "application/json" else data, dict(answer.getheaders())


@pytest.fixture
def server(tmp_path: Path) -> Any:
    found = Server(tmp_path)
    yield found
    found.kill()


def person(server: Server, run_id: str, picks: int, acknowledged: list[str]) -> None:
    """Picks as a page does, sending again what was not answered."""
    client = uuid.uuid4().hex
    while picks:
        try:
            _, answer, _ = server.ask("POST", f"/taste/{run_id}/next", {"client": client, "who": client[:4], "want": 2})
            for card in answer["cards"][: min(2, picks)]:
                pick = {"client": client, "who": client[:4], "pick_id": uuid.uuid4().hex, "group_id": card["group_id"]}
                pick |= {
                    "kind": "favourite",
                    "order": [0],
                    "shown_order": [0, 1],
                    "decision_ms": 5,
                    "reason": card["reason"],
                }
                while True:
                    try:
                        status, _, _ = server.ask("POST", f"/taste/{run_id}/pick", pick)
                        break
                    except (OSError, http.client.HTTPException):
                        time.sleep(0.05)
                assert status == 200
                acknowledged.append(pick["pick_id"])
                picks -= 1
        except (OSError, http.client.HTTPException):
            time.sleep(0.05)


def people(server: Server, run: Run, count: int, picks: int, meanwhile: Any = None) -> list[str]:
    acknowledged: list[str] = []
    threads = [threading.Thread(target=person, args=(server, run.run_id, picks, acknowledged)) for _ in range(count)]
    for thread in threads:
        thread.start()
    if meanwhile:
        meanwhile()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()
    return acknowledged


def test_eight_people_at_once_lose_and_double_nothing(tmp_path: Path, server: Server) -> None:
    _, run = shelf_with(tmp_path, groups=80)
    acknowledged = people(server, run, 8, 8)
    stored = run.picks.history()
    assert sorted(pick.pick_id for pick in stored) == sorted(acknowledged) and len(acknowledged) == 64
    assert max(Counter(pick.group_id for pick in stored).values()) == 1  # nobody was shown what another had


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_killed_server_loses_no_acknowledged_pick(tmp_path: Path, server: Server) -> None:
    _, run = shelf_with(tmp_path, groups=60)

    def kill_and_restart() -> None:
        for _ in range(2):
            before = len(run.picks.history())
            while len(run.picks.history()) < before + 6:
                time.sleep(0.01)
            server.kill()
            server.start()

    acknowledged = people(server, run, 3, 14, kill_and_restart)
    stored = [pick.pick_id for pick in run.picks.history()]
    assert sorted(stored) == sorted(acknowledged)


def test_pictures_and_the_pages_own_files_are_served_and_nothing_else(tmp_path: Path, server: Server) -> None:
    _, run = shelf_with(tmp_path)
    _, answer, _ = server.ask("POST", f"/taste/{run.run_id}/next", {"client": "0" * 32, "want": 1})
    status, data, headers = server.ask("GET", "/" + answer["cards"][0]["images"][0]["url"])
    assert status == 200 and data.startswith(b"\x89PNG") and "immutable" in headers["cache-control"]
    status, data, headers = server.ask("GET", "/web/gallery.mjs")
    assert status == 200 and headers["content-type"].startswith("text/javascript")
    for path in (
        "/web/../pyproject.toml",
        "/web/%2e%2e/pyproject.toml",
        "/web/",
        "//etc/passwd",
        "/web/gallery.mjs/..",
    ):
        assert server.ask("GET", path)[0] in (400, 404)


def test_the_application_needs_no_web_framework() -> None:
    code = (
        "import sys, d3po_core.gallery.requests; print(sorted({'fastapi', 'starlette', 'aiohttp'} & set(sys.modules)))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert said.stdout.strip() == "[]"
    assert callable(GalleryApp(RunLibrary(ROOT / "nowhere"), Actions(), ROOT / "web"))
