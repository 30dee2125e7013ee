"""Starting a web UI with the extension linked into an empty data folder, and asking it for things."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import socket
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from . import flow_checkpoint

ROOT = Path(__file__).parents[3]
OPTIONS = ("--skip-prepare-environment", "--skip-torch-cuda-test", "--skip-version-check", "--api")
PARSERS = ("modules/cmd_args.py", "backend/args.py", "ldm_patched/modules/args_parser.py")
"""Where web UIs say which options they have."""
CLIENT = "c" * 32
"""A page's name, as the gallery's API wants one."""


class WebUI:
    """A running web UI with two extensions: ours, and the probe.

    Args:
        folder: its source.
        python: of its environment.
        data: everything of the user's; made if it is missing.
        checkpoint: which is loaded, with the hub cache beside it, see `checkpoint.write`.
        options: more of the command line.
    """

    def __init__(self, folder: Path, python: str, data: Path, checkpoint: Path, options: tuple[str, ...] = ()) -> None:
        self.folder, self.python, self.data, self.checkpoint, self.options = folder, python, data, checkpoint, options
        self.forge = (folder / "modules_forge").is_dir()
        """Whether it is of the Forge family."""
        self.parsers = "".join((folder / file).read_text() for file in PARSERS if (folder / file).is_file())
        self.log, self.more_loras = data / "host.log", data / "more-loras"

    def __enter__(self) -> WebUI:
        extensions, models = self.data / "extensions", self.data / "models" / "Stable-diffusion"
        if not self.data.exists():
            extensions.mkdir(parents=True)
            (extensions / "d3po").symlink_to(ROOT)
            (extensions / "d3po_probe").symlink_to(ROOT / "tests" / "hosts" / "webui" / "probe")
            models.mkdir(parents=True)
            for suffix in (".safetensors", ".yaml"):
                for name in (self.checkpoint.stem, "refiner"):
                    if self.checkpoint.with_suffix(suffix).is_file():  # flow models have no .yaml
                        (models / f"{name}{suffix}").symlink_to(self.checkpoint.with_suffix(suffix))
            (self.data / "config.json").write_text(json.dumps(self._settings()))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        self.address = f"http://127.0.0.1:{port}"
        hub = {"HF_HOME": str(self.checkpoint.parent / "hub"), "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
        command = [self.python, "launch.py", *OPTIONS, *self.options, "--data-dir", str(self.data), "--port", port]
        command += [self._option("--no-half", "--force-fp32")]
        command += [self._option("--always-cpu", "--cpu")] if self.forge else ["--use-cpu", "all"]
        if (self.folder / "backend").is_dir():  # with a data folder elsewhere Forge refuses the page its own scripts
            command += ["--gradio-allowed-path", str(self.folder)]
        if self.has_option("--ckpt"):
            command += ["--ckpt", str(models / self.checkpoint.name), "--no-download-sd-model"]
        if self.has_option("--lora-dirs"):
            self.more_loras.mkdir(exist_ok=True)
            command += ["--lora-dirs", str(self.more_loras)]
        self._logged = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                **{"cwd": self.folder, "stdout": log, "stderr": log, "stdin": subprocess.DEVNULL},
                env={**os.environ, "OMP_WAIT_POLICY": "passive", **hub, **self._components()},
            )
        self._wait()
        return self

    def _components(self) -> dict[str, str]:
        """Tell the probe where small components for a flow model are; make them when the data folder is new."""
        engine, folder = self.checkpoint.stem, self.data / "components"
        if engine not in flow_checkpoint.ENGINES:
            return {}
        if not folder.exists():
            flow_checkpoint.components(self.folder / "backend" / "huggingface", folder, engine)
        return {"D3PO_PROBE_COMPONENTS": str(folder)}

    def has_option(self, name: str) -> bool:
        """Whether its command line has an option."""
        return f'"{name}"' in self.parsers

    def _option(self, *names: str) -> str:
        """The first of these options that it has."""
        return next(name for name in names if self.has_option(name))

    def _settings(self) -> dict[str, object]:
        """The user's: previews that need no download, no layer of CLIP skipped, and what keeps the host from asking."""
        found: dict[str, object] = {"show_progress_type": "RGB" if self._version_uid else "Approx cheap"}
        found |= {"CLIP_stop_at_last_layers": 1, "sd_model_checkpoint": self.checkpoint.name}
        # Forge Neo's preset writes its numbers into the page some time after that was loaded, but no zeros.
        preset = flow_checkpoint.PRESETS.get(self.checkpoint.stem, "sd")
        of_neo = {"VERSION_UID": self._version_uid, "forge_preset": preset}
        of_neo |= {f"{preset}_t2i_{number}": 0 for number in ("step", "cfg", "width", "height")}
        return found | (of_neo if self._version_uid else {})

    @property
    def is_neo(self) -> bool:
        """Whether it is Forge Neo, the host of flow models."""
        return bool(self._version_uid)

    @property
    def _version_uid(self) -> str:
        """What Forge Neo wants in its settings, lest it ask on the terminal; "" for other hosts."""
        found = re.search(r'^VERSION_UID\b.*"(\w+)"$', (self.folder / "modules/launch_utils.py").read_text(), re.M)
        return found[1] if found else ""

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def restart(self) -> None:
        """End it, as by a crash, and start it again with the same data."""
        self.__exit__()
        self.__enter__()

    def _wait(self) -> None:
        """Until it says that it has started: asked earlier, A1111 may come to a stop."""
        deadline = time.monotonic() + 600
        while b"Startup time" not in self.log.read_bytes()[self._logged :]:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(self.log.read_text(errors="replace")[-3000:])
            time.sleep(0.5)
        self.probe("version")

    def about(self) -> str:
        """Which host it is."""
        version = self.ask("/d3po-probe/version", {})
        return f"{self.folder.name} {version['host']}, torch {version['torch']}, gradio {version['gradio']}"

    def ask(self, path: str, body: Any = None) -> Any:
        """GET, or POST with a body.

        Raises:
            AssertionError: the host answered with a mistake.
        """
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.address + path, data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=300) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            told = error.read().decode(errors="replace")
            raise AssertionError(f"{path}: {error.code} {told}".replace("\\n", "\n")) from None

    def probe(self, name: str, **arguments: Any) -> Any:
        """What the probe says."""
        return self.ask(f"/d3po-probe/{name}", arguments)

    def draw(self, prompt: str, **more: Any) -> np.ndarray:
        """An ordinary picture's pixels, uint8 (64, 64, 3)."""
        wanted = {"prompt": prompt, "seed": 3, "steps": 6, "width": 64, "height": 64, "sampler_name": "Euler", **more}
        (image,) = self.ask("/sdapi/v1/txt2img", wanted)["images"]
        return pixels(image)

    def until(self, taste: str, found: Callable[[dict[str, Any]], object], seconds: float = 600) -> dict[str, Any]:
        """A taste's state as soon as something is found in it.

        Raises:
            AssertionError: it has a problem, or it takes too long.
        """
        deadline = time.monotonic() + seconds
        while not found(state := self.state(taste)):
            assert time.monotonic() < deadline and not state["problem"], state
            time.sleep(0.05)
        return state

    def picks(self, taste: str, number: int) -> None:
        """Pick the brightest picture of so many groups."""
        for _ in range(number):
            asked = {"client": CLIENT, "want": 1}
            self.until(taste, lambda state: state["groups"]["waiting"])
            (card,) = self.ask(f"/d3po/taste/{taste}/next", asked)["cards"]
            light = {each["candidate"]: self.picture(each["url"]).mean() for each in card["images"]}
            pick = {"client": CLIENT, "pick_id": uuid.uuid4().hex, "group_id": card["group_id"], "kind": "favourite"}
            order = [max(light, key=lambda candidate: light[candidate])]
            pick |= {"order": order, "shown_order": list(light), "reason": card["reason"]}
            self.ask(f"/d3po/taste/{taste}/pick", pick)

    def picture(self, url: str) -> np.ndarray:
        """A picture of the gallery's, uint8 (H, W, 3)."""
        with urllib.request.urlopen(f"{self.address}/d3po/{url}", timeout=60) as answer:
            return np.asarray(Image.open(io.BytesIO(answer.read())).convert("RGB"))

    def state(self, taste: str) -> dict[str, Any]:
        """A taste as the gallery is told."""
        return dict(self.ask(f"/d3po/taste/{taste}/state?client={CLIENT}"))


def pixels(image: str) -> np.ndarray:
    """A base64 PNG's pixels, uint8 (H, W, 3)."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(image))).convert("RGB"))


def apart(one: np.ndarray, other: np.ndarray) -> int:
    """The largest difference of two pictures, in steps of 8 bits."""
    return int(np.abs(one.astype(int) - other.astype(int)).max())
