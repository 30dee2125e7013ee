"""The Studio's port: the same after a restart, and a sentence where it cannot be had."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("gradio")
from d3po_core.errors import D3POError
from d3po_studio.app import FIRST_PORT, listen


def test_a_port_is_had_again_at_once() -> None:
    """Though a page was connected, whose connection the system keeps for a while."""
    with listen(None) as server:
        port = server.getsockname()[1]
        assert FIRST_PORT <= port < FIRST_PORT + 50
        server.listen()
        with socket.create_connection(("127.0.0.1", port)):
            connection, _ = server.accept()
            connection.close()  # the server's side ends first, and waits
    with listen(port) as again:
        assert again.getsockname()[1] == port


def test_a_port_in_use_is_named_and_passed_over() -> None:
    with listen(None) as server:
        server.listen()
        port = server.getsockname()[1]
        with pytest.raises(D3POError, match=rf"Port {port} cannot be listened on \(.+\)\. Close the server"):
            listen(port)
        with listen(None) as other:
            assert other.getsockname()[1] != port


@pytest.mark.parametrize("port", ["99999", "-1", "0"])
def test_a_port_that_there_is_not_ends_in_one_sentence(tmp_path: Path, port: str) -> None:
    command = [
        sys.executable,
        "-m",
        "d3po_studio",
        "--folder",
        str(tmp_path / "runs"),
        f"--port={port}",
        "--no-browser",
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], timeout=120)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.splitlines()[-1] == f"d3po-studio: There is no port {port}. Choose one from 1024 to 65535."
    assert "Traceback" not in done.stderr and not (tmp_path / "runs").exists()
