"""Starting a web UI with the extension linked into an empty data folder, and asking it for things."""

from __future__ import annotations

import base64
import io
import json
import os
import socket
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).parents[2]
OPTIONS = ("--skip-prepare-environment", "--skip-torch-cuda-test", "--skip-version-check", "--no-half", "--api")


class WebUI:
    """A running web UI.

    Args:
        folder: its source.
        python: of its environment.
        data: everything of the user's; made if it is missing.
    """

    def __init__(self, folder: Path, python: str, data: Path) -> None:
        self.folder, self.python, self.data = folder, python, data

    def __enter__(self) -> WebUI:
        models = self.data / "models" / "Stable-diffusion"
        (self.data / "extensions").mkdir(parents=True)
        (self.data / "extensions" / "d3po").symlink_to(ROOT)
        models.mkdir(parents=True)
        environment = {**os.environ, "WEBUI_DIR": str(self.folder), "OMP_WAIT_POLICY": "passive"}
        maker = Path(__file__).parent / "tiny_checkpoint.py"
        subprocess.run([self.python, str(maker), str(models)], check=True, env=environment, capture_output=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        self.address = f"http://127.0.0.1:{port}"
        offline = {"HF_HOME": str(models / "hub"), "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
        command = [self.python, "launch.py", *OPTIONS, "--use-cpu", "all", "--data-dir", str(self.data), "--port", port]
        self.log = self.data / "host.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--ckpt", str(models / "tiny.safetensors"), "--no-download-sd-model"],
                **{"cwd": self.folder, "stdout": log, "stderr": log, "stdin": subprocess.DEVNULL},
                env={**environment, **offline},
            )
        self._wait()
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + 240
        while True:
            try:
                self.ask("/sdapi/v1/options")
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise AssertionError(self.log.read_text(errors="replace")[-3000:]) from None
                time.sleep(0.5)

    def ask(self, path: str, body: Any = None) -> Any:
        """GET, or POST with a body."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.address + path, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=300) as answer:
            return json.loads(answer.read())

    def draw(self, prompt: str) -> bytes:
        """An ordinary picture's pixels."""
        wanted = {"prompt": prompt, "seed": 3, "steps": 6, "width": 64, "height": 64, "sampler_name": "Euler"}
        (image,) = self.ask("/sdapi/v1/txt2img", wanted)["images"]
        return Image.open(io.BytesIO(base64.b64decode(image))).convert("RGB").tobytes()
