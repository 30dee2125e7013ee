"""The Studio's start: its port is the same after a restart or told of in a sentence, and Ctrl+C is obeyed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
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


@pytest.mark.skipif(os.name == "nt", reason="a process there cannot be sent Ctrl+C alone")
def test_ctrl_c_while_a_model_loads_ends_the_studio(tmp_path: Path) -> None:
    """A model whose loading takes two minutes, which nothing can cut short."""
    slow = (
        "import signal, sys, time, d3po_core.models as models\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background jobs begin without
        "def load_model(*_, **__):\n    print('loading', flush=True)\n    time.sleep(120)\n"
        "models.load_model = load_model\n"
        f"sys.argv = ['d3po-studio', '--no-browser', '--folder', {str(tmp_path / 'runs')!r}]\n"
        "import d3po_studio.__main__ as studio, d3po_studio.app as app\n"
        "app.make_app = lambda *_: print('built', flush=True)\n"
        "sys.exit(studio.main())\n"
    )
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", slow], cwd=Path(__file__).parents[2], **pipes)
    try:
        assert {process.stdout.readline(), process.stdout.readline()} == {"loading\n", "built\n"}
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=30)
    finally:
        process.kill()
    assert (process.returncode, out) == (0, "") and "Traceback" not in error
