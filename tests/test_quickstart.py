"""The bootstrap: what it decides, without installing anything. A script stands in for the environment's Python."""

from __future__ import annotations

import ast
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import quickstart

ROOT = Path(__file__).resolve().parents[1]
posix = pytest.mark.skipif(os.name == "nt", reason="the stand-in is a shell script")


@pytest.fixture
def venv(tmp_path, monkeypatch):
    """A finished virtual environment whose Python writes down what it is called with, and fails where told to."""
    folder = tmp_path / "venv"
    python = folder / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(
        f'#!/bin/sh\ncd {tmp_path}\necho "$*" >> calls\n'
        'case "$*" in *install*) cat said >&2 2>/dev/null; exit $(cat status 2>/dev/null || echo 0);; esac\n'
    )
    python.chmod(0o755)
    (folder / "pyvenv.cfg").write_text("version = 3.11\n")
    monkeypatch.setenv("D3PO_VENV", str(folder))
    return tmp_path


def calls(venv: Path) -> list[str]:
    lines = (venv / "calls").read_text().splitlines() if (venv / "calls").exists() else []
    return [line for line in lines if not line.startswith("-c ")]


@posix
def test_first_start_installs_then_runs_the_demo(venv, capfd):
    assert quickstart.main(["--headless", "--picks", "8"]) == 0
    install, demo = calls(venv)
    assert install == f"-m pip install -c {quickstart.PINNED} -e {ROOT}[standalone]"
    assert demo == "-m d3po_core demo --picks 8"
    assert "Installed in" in capfd.readouterr().out


@posix
def test_without_more_words_the_studio_opens(venv):
    assert quickstart.main(["--port", "7999"]) == 0
    assert calls(venv)[1:] == ["-m d3po_studio --port 7999"]


@posix
@pytest.mark.parametrize(("asked", "given"), [("--help-demo", "d3po_core demo"), ("--help-studio", "d3po_studio")])
def test_help_of_what_comes_after_is_shown(venv, asked, given):
    quickstart.main([asked])
    assert calls(venv)[-1] == f"-m {given} --help"


@posix
def test_second_start_skips_the_installation(venv):
    quickstart.main([])
    quickstart.main([])
    assert [call.split()[1] for call in calls(venv)] == ["pip", "d3po_studio", "d3po_studio"]


@posix
def test_testing_adds_what_is_missing_and_passes_arguments_on(venv):
    quickstart.main([])
    quickstart.main(["test", "-k", "steps", "-x"])
    quickstart.main(["test"])
    quickstart.main([])
    assert [call for call in calls(venv) if "pip" in call][1].endswith("[standalone,test]")
    assert [call for call in calls(venv) if "pytest" in call] == ["-m pytest -k steps -x", "-m pytest"]
    assert [call for call in calls(venv) if "pip" in call][2].startswith("-m pip install --no-deps ")
    assert sum("pip" in call for call in calls(venv)) == 3


@posix
def test_the_oldest_versions_have_an_environment_of_their_own(venv, monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 11, 0))
    other = venv / "venv-oldest"
    shutil.copytree(venv / "venv", other)
    quickstart.main(["test", "-x"])
    quickstart.main(["test", "--oldest", "-k", "steps"])
    quickstart.main(["test", "--oldest"])
    install, _, tests, again = calls(venv)[3:]
    assert install == f"-m pip install -c {quickstart.OLDEST} -e {ROOT}[standalone,test]"
    assert (tests, again) == ("-m pytest -k steps", "-m pytest")
    assert (other / quickstart.STAMP).exists() and (venv / "venv" / quickstart.STAMP).exists()
    assert quickstart.installed(other, quickstart.PINNED) == set()


def test_the_oldest_versions_are_refused_where_nobody_offers_them(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 12, 0))
    monkeypatch.setattr(quickstart, "prepare", lambda *_: pytest.fail("installed"))
    with pytest.raises(SystemExit, match=r"Start this with Python 3\.10 or 3\.11"):
        quickstart.main(["test", "--oldest"])


@posix
@pytest.mark.parametrize("change", ["versions", "place", "python"])
def test_other_versions_checkout_or_python_install_again(venv, monkeypatch, change):
    quickstart.main([])
    if change == "versions":
        other = venv / "pinned.txt"
        other.write_text("torch==9.9.9\n")
        monkeypatch.setattr(quickstart, "PINNED", other)
    if change == "place":
        moved = venv / "comfyui-d3po.x"
        moved.mkdir()
        (moved / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
        monkeypatch.setattr(quickstart, "ROOT", moved)
    if change == "python":
        (venv / "venv" / "pyvenv.cfg").write_text("version = 3.13\n")
    quickstart.main([])
    assert sum("pip install" in call for call in calls(venv)) == 2


@posix
@pytest.mark.parametrize("stamp", ["", "{", "{}", '{"extras": 3, "fingerprint": "x"}'])
def test_a_damaged_stamp_means_installing_again(venv, stamp):
    (venv / "venv" / quickstart.STAMP).write_text(stamp)
    assert quickstart.installed(venv / "venv", quickstart.PINNED) == set()


@posix
def test_a_failed_installation_is_told_and_not_remembered(venv):
    (venv / "status").write_text("1")
    (venv / "said").write_text(
        "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n"
    )
    with pytest.raises(SystemExit, match="disk is full"):
        quickstart.main([])
    assert quickstart.installed(venv / "venv", quickstart.PINNED) == set()
    assert not any("studio" in call for call in calls(venv))
    (venv / "status").write_text("0")
    assert quickstart.main([]) == 0


@posix
def test_the_exit_status_is_passed_on(venv):
    quickstart.main([])
    python = venv / "venv" / "bin" / "python"
    python.write_text('#!/bin/sh\ncase "$*" in *studio*) exit 3;; esac\n')
    assert quickstart.main([]) == 3


def test_something_else_in_the_way_is_left_alone(tmp_path, monkeypatch):
    (tmp_path / "diary.txt").write_text("dear diary")
    monkeypatch.setenv("D3PO_VENV", str(tmp_path))
    with pytest.raises(SystemExit, match=r"no virtual environment.*D3PO_VENV"):
        quickstart.main([])
    assert [path.name for path in tmp_path.iterdir()] == ["diary.txt"]


def test_a_virtual_environment_is_really_made(tmp_path):
    """Without pip, which would take seconds: that is what an interrupted start leaves behind."""
    folder = tmp_path / "venv with a space"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    assert quickstart.venv_python(folder).exists()
    assert not quickstart.venv_works(folder)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("WARNING: Retrying (Retry(total=4)) ... [Errno -3] Temporary failure in name resolution\n"
         "ERROR: Could not find a version that satisfies the requirement numpy (from versions: none)", "connection"),
        ("NewConnectionError: Failed to establish a new connection: [Errno 101] Network is unreachable", "connection"),
        ("ReadTimeoutError: HTTPSConnectionPool(host='pypi.org', port=443): Read timed out.", "connection"),
        ("ProxyError('Cannot connect to proxy.', OSError('Tunnel connection failed: 403'))", "proxy"),
        ("SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED]'))", "not trusted"),
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "disk is full"),
        ("OSError: [WinError 112] There is not enough space on the disk", "disk is full"),
        ("The virtual environment was not created successfully because ensurepip is not available.", "python3-venv"),
        ("No module named venv", "python3-venv"),
        ("PermissionError: [Errno 13] Permission denied: '/opt/x'", "not writable"),
        ("ERROR: Could not find a version that satisfies the requirement torch==2.13.0", "this kind of computer"),
        ("a\nsomething new went wrong", "something new"),
    ],
)  # fmt: skip
def test_failures_are_told_in_words(said, told):
    assert told in quickstart.explain(said)


def test_old_pythons_can_read_the_file_and_are_told():
    """3.6 is the oldest that can parse its syntax; `from __future__ import annotations` would stop at 3.7."""
    source = (ROOT / "quickstart.py").read_text("utf-8")
    tree = ast.parse(source, feature_version=(3, 7))
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module == "__future__"]
    check, imports = source.index("sys.version_info < (3, 10)"), source.index("import hashlib")
    assert check < imports


def test_only_the_standard_library_is_imported():
    tree = ast.parse((ROOT / "quickstart.py").read_text("utf-8"))
    names = {a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names}
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in names} <= set(sys.stdlib_module_names)


def test_help_needs_no_installation(capsys, monkeypatch):
    monkeypatch.setattr(quickstart, "prepare", lambda *_: pytest.fail("installed"))
    assert quickstart.main(["--help"]) == 0
    assert "python quickstart.py test" in capsys.readouterr().out


@posix
def test_ctrl_c_lets_the_program_save_before_it_ends(tmp_path):
    """Both processes get the signal, as from a terminal; the child needs a second to save, and is given it."""
    child = (
        "import signal, time, pathlib\n"
        "def save(*_):\n"
        f"    time.sleep(1); pathlib.Path({str(tmp_path / 'saved')!r}).touch(); raise SystemExit(130)\n"
        "signal.signal(signal.SIGINT, save)\n"
        f"pathlib.Path({str(tmp_path / 'ready')!r}).touch()\n"
        "time.sleep(30)\n"
    )
    code = f"import sys, quickstart; sys.exit(quickstart.run([sys.executable, '-c', {child!r}]))"
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, start_new_session=True)
    while not (tmp_path / "ready").exists():
        time.sleep(0.05)
    os.killpg(parent.pid, signal.SIGINT)
    assert parent.wait(timeout=30) == 130
    assert (tmp_path / "saved").exists()


def test_continuous_integration_runs_the_command_of_the_readme():
    assert "python3 quickstart.py test" in (ROOT / ".ci" / "run").read_text()
    assert os.name == "nt" or os.access(ROOT / ".ci" / "run", os.X_OK)


@posix
def test_the_stamp_says_what_is_installed(venv):
    quickstart.main(["test"])
    stamp = json.loads((venv / "venv" / quickstart.STAMP).read_text())
    assert stamp["extras"] == ["standalone", "test"]
