"""A virtual environment with an old gradio, on top of the environment that the tests run in."""

from __future__ import annotations

import hashlib
import os
import shutil
import site
import subprocess
import sys
from pathlib import Path


def python_with(version: str, folder: Path) -> Path:
    """A Python that imports this gradio, and everything else (torch first of all) from the tests' own environment.

    It is made once, in some ten seconds, and found again by the next session.

    Args:
        version: gradio's; the file beside this one says what comes with it.
        folder: where environments are kept.

    Raises:
        subprocess.CalledProcessError: it cannot be made here; `stderr` says why.
    """
    pins = Path(__file__).with_name(f"gradio_{version}.txt")
    made_of = hashlib.sha256(pins.read_bytes() + "\0".join([sys.version, *site.getsitepackages()]).encode())
    home = folder / f"gradio-{version}-{made_of.hexdigest()[:12]}"
    if not home.exists():
        making = home.with_name(f"{home.name}.{os.getpid()}")
        shutil.rmtree(making, ignore_errors=True)
        _make(making, pins)
        try:
            making.rename(home)
        except OSError:  # another session was quicker
            shutil.rmtree(making)
    return _python(home)


def _make(home: Path, pins: Path) -> None:
    _run(sys.executable, "-m", "venv", "--without-pip", str(home))
    where = _run(str(_python(home)), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    # All that is needed is named, so nothing has to be worked out; and nothing is compiled, which takes minutes.
    options = ("--no-deps", "--only-binary", ":all:", "--quiet", "--disable-pip-version-check")
    _run(sys.executable, "-m", "pip", "install", *options, "--target", where, "-r", str(pins))
    Path(where, "outer.pth").write_text("\n".join(site.getsitepackages()))  # comes last on its path


def _python(home: Path) -> Path:
    return home / "Scripts" / "python.exe" if os.name == "nt" else home / "bin" / "python"


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout
