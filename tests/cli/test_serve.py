"""`d3po serve` and `d3po invite`, as a person runs them."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from d3po_core.cli import main
from d3po_core.run import Run
from tests.run_helpers import make_run

pytest.importorskip("uvicorn", reason="uvicorn comes with the standalone extra")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_run(tmp_path / "my taste", groups=3).close()
    return tmp_path / "my taste"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Process:
    """A running `d3po serve`."""

    def __init__(self, folder: Path, log: Path, *flags: str) -> None:
        self.port, self.log = free_port(), log
        command = [sys.executable, "-m", "d3po_core", "serve", "--run", str(folder), "--port", str(self.port), *flags]
        with log.open("wb") as file:
            environment = {**os.environ, "PYTHONPATH": str(ROOT)}
            self.process = subprocess.Popen(command, stdout=file, stderr=file, cwd=ROOT, env=environment)
        for _ in range(1200):
            try:
                self.get("/")  # it listens before it answers
                return
            except OSError:
                time.sleep(0.05)
        raise TimeoutError(log.read_text())

    def get(self, path: str, **headers: str) -> tuple[int, dict[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request("GET", path, None, headers)
        response = connection.getresponse()
        response.read()
        return response.status, {name.lower(): value for name, value in response.getheaders()}

    def stop(self) -> str:
        """Press Ctrl+C; all that it printed."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait(20)
        return self.log.read_text()


@pytest.fixture
def start(folder: Path, tmp_path: Path) -> Iterator[Any]:
    started: list[Process] = []

    def starting(*flags: str) -> Process:
        started.append(Process(folder, tmp_path / "log.txt", *flags))
        return started[-1]

    yield starting
    for each in started:
        each.process.kill()
        each.process.wait()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends Ctrl+C otherwise")
def test_invited_people_come_in_while_it_runs_and_no_token_is_written_down(
    folder: Path, start: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    server = start("--listen", "127.0.0.1")
    assert main(["invite", "--run", str(folder), "Ada", "Ben"]) == 0
    links = dict(re.findall(r"^(\w+): (http\S+)$", capsys.readouterr().out, re.M))
    assert set(links) == {"Ada", "Ben"} and links["Ada"].startswith(f"http://127.0.0.1:{server.port}/join/")
    status, headers = server.get("/join/" + links["Ada"].rpartition("/")[2])
    cookie = headers["set-cookie"].partition(";")[0]
    assert status == 303 and server.get("/", Cookie=cookie)[0] == 200 and server.get("/")[0] == 403
    server.get(f"/join/{'x' * 43}?token=y")
    assert main(["invite", "--run", str(folder), "--revoke", "Ada"]) == 0
    assert server.get("/", Cookie=cookie)[0] == 403
    printed = server.stop()
    (own,) = re.findall(r"Your own link, as long as this runs: (\S+)", printed)
    assert own.startswith(f"http://127.0.0.1:{server.port}/join/") and "Traceback" not in printed
    assert not any(secret in printed for secret in (*links.values(), cookie.partition("=")[2], "x" * 43))
    main(["invite", "--run", str(folder)])
    listed = capsys.readouterr().out.splitlines()[-2:]
    assert re.fullmatch(r"Ada: 0 of 3 groups, last here [\d: -]+, link revoked", listed[0])
    assert re.fullmatch(r"Ben: 0 of 3 groups, never here, link works until [\d: -]+", listed[1])


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends Ctrl+C otherwise")
def test_without_listen_this_computer_alone_is_served(start: Any) -> None:
    server = start()
    assert server.get("/")[0] == 200 and server.get("/", Host="evil.example")[0] == 403
    others = socket.gethostbyname(socket.gethostname())
    if not others.startswith("127."):
        with pytest.raises(OSError):
            socket.create_connection((others, server.port), 2)
    printed = server.stop()
    assert f"http://127.0.0.1:{server.port}/ for this computer alone" in printed and "join" not in printed


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends Ctrl+C otherwise")
def test_behind_a_proxy_everybody_needs_a_link_and_cookies_are_secure(
    folder: Path, start: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    server = start("--url", "https://pick.example.org/a")
    main(["invite", "--run", str(folder), "Ada"])
    (link,) = re.findall(r"Ada: (\S+)", capsys.readouterr().out)
    assert link.startswith("https://pick.example.org/a/join/")
    assert server.get("/", Host="pick.example.org")[0] == 403 == server.get("/")[0]
    _, headers = server.get("/join/" + link.rpartition("/")[2])
    assert "; Secure" in headers["set-cookie"] and "; Path=/a/;" in headers["set-cookie"]


def test_a_port_that_is_in_use_is_a_sentence(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["serve", "--run", str(folder), "--port", str(port)]) == 2
    assert re.search(rf"Port {port} at 127.0.0.1 cannot be listened on .*another --port", capsys.readouterr().err)
    assert main(["serve", "--run", str(folder), "--listen", "192.0.2.77", "--port", str(port)]) == 2


@pytest.mark.parametrize("url", ["pick.example.org", "ftp://x", "https://", "https://a?b", "http://a:0/", "http://[/"])
def test_a_url_that_is_none_is_a_sentence(folder: Path, capsys: pytest.CaptureFixture[str], url: str) -> None:
    assert main(["serve", "--run", str(folder), "--url", url]) == 2
    assert "Write it as https://pick.example.org" in capsys.readouterr().err


def test_the_overlap_is_kept_with_the_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["invite", "--run", str(folder), "--overlap", "3"]) == 0
    assert "shown to 3 people" in capsys.readouterr().out and Run.open(folder).leases.overlap == 3
    assert main(["info", "--run", str(folder)]) == 0
    assert "Overlap:  every group is shown to 3 people" in capsys.readouterr().out
    assert main(["invite", "--run", str(folder), "--overlap", "0"]) == 2
    assert main(["invite", "--run", str(folder), "Ada", "--revoke", "Ada"]) == 2
    assert main(["invite", "--run", str(folder), "--revoke", "Ada"]) == 2
    assert main(["invite", "--run", str(folder), "Ada", "--days", "nan"]) == 2
    assert Run.open(folder).invitations.all() == [] and Run.open(folder).leases.overlap == 3


def test_that_an_earlier_link_ends_is_printed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["invite", "--run", str(folder), "Ada"]) == 0
    assert "earlier" not in capsys.readouterr().out
    assert main(["invite", "--run", str(folder), "ada"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^Ada: http", printed, re.M) and "The earlier link of Ada has ended." in printed
