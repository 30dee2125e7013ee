"""What the pack adds to ComfyUI's start: `COMFYUI_DIR=... python -m benchmarks.comfyui_startup`.

The host's own figure (it prints how long each pack's import took), and the whole start with the pack and without it by
turns, in one run. COMFYUI_PYTHON names the host's Python, if it is another one.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACK = "comfyui-d3po"


def start(host: str, python: str, base: Path) -> tuple[float, str]:
    """Start and end the host; return the seconds that it took, and what it printed."""
    command = [python, "main.py", "--cpu", "--base-directory", str(base), "--quick-test-for-ci"]
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive"}
    begin = time.monotonic()
    done = subprocess.run(command, cwd=host, capture_output=True, text=True, env=environment, check=True)
    return time.monotonic() - begin, done.stdout + done.stderr


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="starts of each kind [5]")
    options = parser.parse_args()
    host = os.environ.get("COMFYUI_DIR")
    if not host:
        sys.exit("Name a ComfyUI with COMFYUI_DIR.")
    python = os.environ.get("COMFYUI_PYTHON", sys.executable)
    spent: dict[str, list[float]] = {"without": [], "with": []}
    imports = []
    with tempfile.TemporaryDirectory() as folder:
        for name in spent:
            (Path(folder) / name / "custom_nodes").mkdir(parents=True)
        (Path(folder) / "with" / "custom_nodes" / PACK).symlink_to(ROOT)
        for repeat in range(options.repeats + 1):
            for name, found in spent.items():
                seconds, log = start(host, python, Path(folder) / name)
                if repeat:  # the first ones only warm the disk's cache
                    found.append(seconds)
                    imports += [float(n) for n in re.findall(rf"([\d.]+) seconds[^\n]*: [^\n]*{PACK}", log)]
    print(f"import, as the host measures it: {statistics.median(imports):.2f} s (median of {len(imports)})")
    for name, found in spent.items():
        print(f"start {name} the pack: {statistics.median(found):.2f} s ({min(found):.2f} to {max(found):.2f})")
    added = [b - a for a, b in zip(spent["without"], spent["with"], strict=True)]
    print(f"added: {statistics.median(added):.2f} s ({min(added):.2f} to {max(added):.2f}, {len(added)} pairs)")


if __name__ == "__main__":
    main()
