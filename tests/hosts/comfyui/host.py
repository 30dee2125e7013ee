"""Starting a ComfyUI, and asking it for things as its own page does."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]


class Refused(Exception):
    """The host did not take a graph, or failed in one of its nodes."""


class Host:
    """A ComfyUI process.

    Args:
        folder: its source.
        python: of its environment.
        base: everything of the user's.
        options: more of its command line.
        environment: what differs in its environment.
    """

    def __init__(
        self,
        folder: Path,
        python: str,
        base: Path,
        options: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.folder, self.python, self.base, self.options = folder, python, base, options
        self.user = ""
        """The id of the person who asks, with --multi-user."""
        self.environment = {**os.environ, "OMP_WAIT_POLICY": "passive", **(environment or {})}

    def __enter__(self) -> Host:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"http://127.0.0.1:{probe.getsockname()[1]}"
        port = self.address.rpartition(":")[2]
        command = [self.python, "main.py", "--cpu", "--base-directory", str(self.base), "--port", port, *self.options]
        self.log = self.base / "host.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--disable-auto-launch"], cwd=self.folder, stdout=log, stderr=log, env=self.environment
            )
        deadline = time.monotonic() + 300
        while True:
            try:
                self.version = self.get("/system_stats")["system"]["comfyui_version"]
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise AssertionError(self.log.read_text(errors="replace")[-3000:]) from None
                time.sleep(0.2)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()

    def _headers(self) -> dict[str, str]:
        return {"comfy-user": self.user} if self.user else {}

    def get(self, path: str) -> Any:
        request = urllib.request.Request(self.address + path, headers=self._headers())
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())

    def post(self, path: str, values: Any) -> Any:
        headers = {"Content-Type": "application/json", **self._headers()}
        request = urllib.request.Request(self.address + path, json.dumps(values).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            raise Refused(error.read().decode(errors="replace")) from error
        return json.loads(text) if text else None

    def ask(
        self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes | None = None
    ) -> tuple[int, bytes]:
        """Any request, its address sent as it is; status and content."""
        connection = http.client.HTTPConnection(self.address.partition("//")[2], timeout=60)
        connection.request(method, path, body, {"Content-Type": "application/json", **(headers or {})})
        answer = connection.getresponse()
        return answer.status, answer.read()

    def queue(self, graph: dict[str, Any], only: list[str] | None = None) -> str:
        """Put a graph into the queue; its id."""
        targets = {"partial_execution_targets": only} if only else {}
        return str(self.post("/prompt", {"prompt": graph, "client_id": uuid.uuid4().hex, **targets})["prompt_id"])

    def wait(self, prompt_id: str, seconds: float = 300) -> dict[str, Any]:
        """What a graph gave: its nodes' outputs.

        Raises:
            Refused: a node failed.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            history = self.get(f"/history/{prompt_id}").get(prompt_id)
            if history and history["status"]["completed"]:
                return dict(history["outputs"])
            if history and history["status"]["status_str"] == "error":
                failures = [message for name, message in history["status"]["messages"] if name == "execution_error"]
                raise Refused(json.dumps(failures, indent=1)[:4000])
            time.sleep(0.1)
        raise AssertionError(f"not done after {seconds} s\n{self.log.read_text(errors='replace')[-2000:]}")

    def until_done(self, prompt_id: str, seconds: float = 300) -> None:
        """Wait for a graph to end, however it ends."""
        deadline = time.monotonic() + seconds
        while prompt_id not in self.get(f"/history/{prompt_id}"):
            assert time.monotonic() < deadline
            time.sleep(0.1)

    def run(self, graph: dict[str, Any], only: list[str] | None = None, seconds: float = 300) -> dict[str, Any]:
        return self.wait(self.queue(graph, only), seconds)
