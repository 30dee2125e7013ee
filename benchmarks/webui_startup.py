"""What the extension adds to a web UI's start: `WEBUI_DIR=... WEBUI_PYTHON=... python -m benchmarks.webui_startup`.

The host's own figures (it keeps how long each part of its start took), with the extension and without it by turns, in
one run; and how long the host waits for install.py. Both variables may name several hosts, separated as in PATH.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).parents[1]
OPTIONS = ("--skip-prepare-environment", "--skip-torch-cuda-test", "--skip-version-check")
OURS = "d3po_tab.py"
SHARED = ("create ui", "gradio launch", "add APIs")
"""Parts of the start that grow with every extension, whichever it is."""


def profile(host: Path, python: str, data: Path) -> tuple[float, dict[str, float]]:
    """Measure the seconds of a start and of its parts, as the host reports them, without loading a checkpoint."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    of_forge, of_neo = (host / "modules_forge").is_dir(), (host / "modules_forge" / "presets.py").is_file()
    cpu = ["--cpu"] if of_neo else ["--always-cpu"] if of_forge else ["--use-cpu", "all"]
    more = cpu if of_neo else [*cpu, "--no-download-sd-model"]
    log = data / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [python, "launch.py", *OPTIONS, *more, "--data-dir", str(data), "--port", port],
            cwd=host,
            stdout=out,
            stderr=out,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "OMP_WAIT_POLICY": "passive", "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"},
        )
    try:
        while "Startup time" not in (
            output := log.read_text(errors="replace")
        ):  # asked before, A1111 may fail to start
            if process.poll() is not None:
                sys.exit(output[-2000:])
            time.sleep(0.2)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/internal/profile-startup") as answer:
            found = json.loads(answer.read())
        return found["total"], found["records"]
    finally:
        process.kill()
        process.wait()


def installed(host: Path, python: str) -> float:
    """Measure the seconds that the host waits for install.py."""
    begin = time.monotonic()
    environment = {**os.environ, "PYTHONPATH": str(host)}
    subprocess.run([python, str(ROOT / "install.py")], cwd=host, env=environment, check=True)
    return time.monotonic() - begin


def spread(found: list[float]) -> str:
    return f"{statistics.median(found):.2f} s ({min(found):.2f} to {max(found):.2f})"


def measure(host: Path, python: str, repeats: int) -> None:
    """Start a host by turns, and print."""
    starts: dict[str, list[tuple[float, dict[str, float]]]] = {"without": [], "with": []}
    with tempfile.TemporaryDirectory() as folder:
        for name in starts:
            (Path(folder) / name / "extensions").mkdir(parents=True)
        (Path(folder) / "with" / "extensions" / "d3po").symlink_to(ROOT)
        for _ in range(repeats + 1):
            for name, found in starts.items():
                found.append(profile(host, python, Path(folder) / name))
    for found in starts.values():
        del found[0]  # the first ones only warm the disk's cache
    print(f"{host.name}, {repeats} starts of each kind, medians:")
    for part in sorted({part for _, records in starts["with"] for part in records if part.endswith(OURS)}):
        print(f"  {part}, by the host's figure: {spread([records[part] for _, records in starts['with']])}")
    pairs = list(zip(starts["without"], starts["with"], strict=True))
    for part in SHARED:
        print(f"  {part}, more than without: {spread([b[1].get(part, 0) - a[1].get(part, 0) for a, b in pairs])}")
    print(f"  install.py, which the host waits for: {spread([installed(host, python) for _ in range(repeats)])}")
    for name, found in starts.items():
        print(f"  whole start {name} it: {spread([total for total, _ in found])}")
    print(f"  whole start, more than without: {spread([b[0] - a[0] for a, b in pairs])}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="starts of each kind [5]")
    options = parser.parse_args()
    hosts = [Path(each) for each in os.environ.get("WEBUI_DIR", "").split(os.pathsep) if each]
    if not hosts:
        sys.exit("Name a web UI with WEBUI_DIR.")
    pythons = os.environ.get("WEBUI_PYTHON", sys.executable).split(os.pathsep)
    for host, python in zip(hosts, pythons, strict=True):
        measure(host, python, options.repeats)


if __name__ == "__main__":
    main()
