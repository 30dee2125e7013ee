"""Watch a small image model learn a taste. Needs nothing but Python 3.10 or later.

    python quickstart.py                 install what is needed, then open the Studio: a page to pick and teach in
    python quickstart.py --headless      no page: the whole loop on the embedded model, a program picks in your place
    python quickstart.py test            install what is missing, then run all tests (more arguments go to pytest)
    python quickstart.py test --oldest   the same with the oldest diffusers, transformers and so on that are supported

Everything is installed into the folder .venv beside this file, or into the one named by the environment variable
D3PO_VENV; with --oldest into one that has -oldest behind its name, too. Nothing else on your computer
changes. A second start skips the installation. More arguments go to the Studio (--help-studio lists them), or with
--headless to the command `d3po demo` (--help-demo lists them).

Old Pythons can read this file too (so there is no `from __future__ import annotations`), and say that they are too old.
"""

import sys

if sys.version_info < (3, 10):  # noqa: UP036
    version = "%d.%d" % sys.version_info[:2]  # noqa: UP031
    sys.exit(
        "This needs Python 3.10 or later, and you started it with " + version + ". See python.org for a newer one."
    )

import hashlib
import json
import os
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent
PINNED = ROOT / "requirements" / "pinned.txt"
OLDEST = ROOT / "requirements" / "oldest.txt"
STAMP = "d3po-installed.json"
BARE = ["k-diffusion==0.1.1.post1"]
"""What the tests compare with, without the many packages that it asks for and the tests never reach."""


def main(arguments: list[str]) -> int:
    """Install what is missing, hand over to the Studio, the demo or pytest, and return the exit status."""
    if arguments[:1] in (["-h"], ["--help"]):
        print(__doc__)
        return 0
    testing = arguments[:1] == ["test"]
    oldest = testing and "--oldest" in arguments
    if oldest and sys.version_info >= (3, 12):
        raise SystemExit("The oldest versions are not offered for this Python. Start this with Python 3.10 or 3.11.")
    folder = Path(os.environ.get("D3PO_VENV") or ROOT / ".venv").expanduser().absolute()
    folder = folder.with_name(folder.name + "-oldest") if oldest else folder
    prepare(folder, {"standalone", "test"} if testing else {"standalone"}, OLDEST if oldest else PINNED)
    python = str(venv_python(folder))
    if testing:
        return run([python, "-m", "pytest", *(word for word in arguments[1:] if word != "--oldest")], cwd=ROOT)
    options = [option for option in arguments if option != "--headless" and not option.startswith("--help-")]
    helped = ["--help"] if any(option.startswith("--help-") for option in arguments) else []
    headless = "--headless" in arguments or "--help-demo" in arguments
    module = ["d3po_core", "demo"] if headless else ["d3po_studio"]
    return run([python, "-m", *module, *options, *helped])


def prepare(folder: Path, extras: set[str], versions: Path) -> None:
    """Make the virtual environment and install into it, unless that is done already."""
    if venv_works(folder) and extras <= installed(folder, versions):
        return
    start = time.monotonic()
    make_venv(folder)
    install(folder, extras | installed(folder, versions), versions)
    print(f"Installed in {time.monotonic() - start:.0f} s.\n", flush=True)


def venv_python(folder: Path) -> Path:
    """Return the path of a virtual environment's interpreter."""
    return folder / "Scripts" / "python.exe" if os.name == "nt" else folder / "bin" / "python"


def venv_works(folder: Path) -> bool:
    """Return whether the folder holds a virtual environment with pip and a Python that is new enough."""
    probe = "import sys, pip; sys.exit(sys.version_info < (3, 10))"
    try:
        return subprocess.run([venv_python(folder), "-c", probe], stderr=subprocess.DEVNULL).returncode == 0
    except OSError:
        return False


def make_venv(folder: Path) -> None:
    """Make a virtual environment, or mend one that was interrupted."""
    if venv_works(folder):
        return
    if folder.exists() and not (folder / "pyvenv.cfg").exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise SystemExit(f"{folder} is there but is no virtual environment. Name another folder with D3PO_VENV.")
    print(f"Making a virtual environment in {folder}", flush=True)
    made = subprocess.run([sys.executable, "-m", "venv", str(folder)], capture_output=True, text=True)
    if made.returncode != 0:
        raise SystemExit(explain(made.stdout + made.stderr))


def fingerprint(folder: Path, versions: Path) -> str:
    """Return a hash of what an installation depends on: the versions, the checkout's path, the Python."""
    parts = [
        versions.read_bytes(),
        (ROOT / "pyproject.toml").read_bytes(),
        Path(__file__).read_bytes(),
        os.fsencode(ROOT),
    ]
    return hashlib.sha256(b"\0".join([*parts, (folder / "pyvenv.cfg").read_bytes()])).hexdigest()


def installed(folder: Path, versions: Path) -> set[str]:
    """Return the extras that an earlier start installed completely and that are still right."""
    try:
        stamp = json.loads((folder / STAMP).read_text())
        return set(stamp["extras"]) if stamp["fingerprint"] == fingerprint(folder, versions) else set()
    except (OSError, ValueError, KeyError):
        return set()


def install(folder: Path, extras: set[str], versions: Path) -> None:
    """Install this checkout and what it needs, in the versions of a list that it was tested with."""
    print(
        "Installing PyTorch and diffusers. This happens once, takes some minutes, and on Linux downloads 1.4 GB\n"
        "and fills 5 GB (much less on macOS and Windows).",
        flush=True,
    )
    pip(folder, "-c", str(versions), "-e", f"{ROOT}[{','.join(sorted(extras))}]")
    if "test" in extras:
        pip(folder, "--no-deps", *BARE)
    stamp = {"fingerprint": fingerprint(folder, versions), "extras": sorted(extras)}
    (folder / STAMP).write_text(json.dumps(stamp))


def pip(folder: Path, *arguments: str) -> None:
    """Install something; if it fails, stop with a sentence that says why."""
    command = [str(venv_python(folder)), "-m", "pip", "install", *arguments]
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PYTHONIOENCODING": "utf-8"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, env=environment, encoding="utf-8", errors="replace")
    lines = []
    assert process.stderr is not None
    for line in process.stderr:
        sys.stderr.write(line)
        lines.append(line)
    if process.wait() != 0:
        raise SystemExit("\n" + explain("".join(lines)))


# Words in the output of pip or venv, and what they mean; the first that fits is printed.
REASONS = [
    (
        ("no space left", "not enough space", "errno 28", "winerror 112"),
        "The disk is full. Make room (5 GB are enough), or choose a folder on another disk with the environment "
        "variable D3PO_VENV, and start again.",
    ),
    (
        ("ensurepip", "no module named venv"),
        "This Python cannot make virtual environments. On Debian and Ubuntu: sudo apt install python3-venv, and "
        "start again.",
    ),
    (
        ("permission denied", "read-only file system", "access is denied"),
        "The folder is not writable. Choose another one with the environment variable D3PO_VENV, and start again.",
    ),
    (
        (
            *("name resolution", "getaddrinfo", "nodename nor servname", "network is unreachable", "timed out"),
            *("connection refused", "connection reset", "connection broken", "proxyerror", "incompleteread"),
            *("failed to establish a new connection", "failed to resolve"),
        ),
        "The packages could not be downloaded. Check the connection to pypi.org (or the proxy), and start again.",
    ),
    (
        ("certificate", "sslerror"),
        "The connection to pypi.org was not trusted. Check the computer's clock, certificates or proxy, and start "
        "again.",
    ),
    (
        ("no matching distribution", "could not find a version"),
        "A package is not offered for this kind of computer or Python. What works is a 64-bit Python 3.10 to 3.14 on "
        "Linux, on Windows or on a Mac with an Apple chip.",
    ),
]


def explain(output: str) -> str:
    """Say in a sentence or two what went wrong and what to do, from the output of pip or venv."""
    for words, sentence in REASONS:
        if any(word in output.lower() for word in words):
            return sentence
    return "The installation failed; the last lines above say why:\n" + "\n".join(output.strip().splitlines()[-5:])


def run(command: list[str], cwd: "Path | None" = None) -> int:
    """Run to the end, also through Ctrl+C: the program is told as well, and saves what it has before it ends."""
    process = subprocess.Popen(command, cwd=cwd)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit("\nStopped. Start again to go on with the installation.")
