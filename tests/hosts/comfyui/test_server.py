"""The gallery's routes on the host's server, the pack's place on disk, and what it does to the host's start."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.test_comfyui_package import NODES

from .conftest import HOST, PYTHON
from .graphs import taste
from .host import ROOT, Host, Refused
from .test_loop import pick_all
from .test_nodes import listed_taste, named

CLIENT = "c" * 32


def test_another_site_is_refused(host: Host) -> None:
    host.run(named("guarded", groups=1), only=["sampler"])
    run = listed_taste(host, "guarded")["id"]
    for headers in ({"Origin": "https://example.com"}, {"Sec-Fetch-Site": "cross-site"}):
        for path in ("/d3po/tastes", f"/api/d3po/taste/{run}/state?client={CLIENT}"):
            status, text = host.ask("GET", path, headers)
            assert status == 403, text
        status, text = host.ask("POST", f"/d3po/taste/{run}/teach", headers, b"{}")
        assert status == 403, text


@pytest.mark.parametrize(
    "path",
    [
        "/d3po/taste/../../main.py/state",
        "/d3po/taste/%2e%2e%2f%2e%2e%2fmain.py/state",
        f"/d3po/taste/{'0' * 32}/state?client={CLIENT}",
        "/d3po/taste/x/image/..%2f..%2frun.sqlite3/0",
        "/d3po/../custom_nodes/comfyui-d3po/pyproject.toml",
        "/d3po/",
    ],
)
def test_no_address_leads_out_of_the_tastes(host: Host, path: str) -> None:
    status, text = host.ask("GET", path)
    assert status in (400, 404) and b"Traceback" not in text and b"sqlite" not in text.lower()


def test_a_form_of_another_site_teaches_nothing(host: Host) -> None:
    run = host.get("/d3po/tastes")["tastes"][0]["id"]
    status, _ = host.ask("POST", f"/d3po/taste/{run}/teach", {"Content-Type": "text/plain"}, b"{}")
    assert status == 415


def test_a_body_may_come_in_pieces(host: Host) -> None:
    run = host.get("/d3po/tastes")["tastes"][0]["id"]
    body = b'{"client": "' + CLIENT.encode() + b'", "want": 1}'
    address, _, port = host.address.partition("//")[2].partition(":")
    with socket.create_connection((address, int(port)), timeout=30) as line:
        head = f"POST /d3po/taste/{run}/next HTTP/1.1\r\nHost: {address}:{port}\r\nContent-Type: application/json\r\n"
        line.sendall(f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body[:9])
        time.sleep(0.5)
        line.sendall(body[9:])
        assert line.recv(100).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("name", ["../../outside", "/tmp/outside", "a\\b\x01", "C:evil", "." * 9, "x" * 300])
def test_a_taste_of_any_name_stays_in_its_folder(host: Host, name: str) -> None:
    def outside() -> set[Path]:
        shelf = host.base / "output" / "d3po"
        return {path for path in host.base.rglob("*") if shelf not in path.parents and path.suffix != ".log"}

    before = outside()
    try:
        host.run(named(name, groups=1), only=["sampler"])
    except Refused as refused:
        assert "A name needs 1 to 120 characters" in str(refused)
    else:
        assert listed_taste(host, name.strip())["groups"] == 1
    assert outside() == before


def test_the_pack_can_be_deleted_and_cloned_anew(base: Path, tmp_path: Path) -> None:
    """Nothing of the user's lies in it: another copy goes on with the taste, in a new process."""
    other = tmp_path / "base"
    (other / "custom_nodes").mkdir(parents=True)
    for name in ("models", "input", "user"):
        shutil.copytree(base / name, other / name)
    pack = other / "custom_nodes" / "comfyui-d3po"
    _clone(pack)
    with Host(Path(str(HOST)), PYTHON, other) as host:
        host.run(named("kept", groups=18), only=["sampler"])
        run = listed_taste(host, "kept")["id"]
        pick_all(host, run)
    shutil.rmtree(pack)
    _clone(pack.with_name("another-name"))
    with Host(Path(str(HOST)), PYTHON, other) as host:
        assert listed_taste(host, "kept")["picks"] == 18
        host.post(f"/d3po/taste/{run}/teach", {})
        outputs = host.run(named("kept"), only=["trainer"])
        assert outputs["trainer"]["text"][0].startswith("Taught")
        assert listed_taste(host, "kept")["groups"] == 18


def _clone(target: Path) -> None:
    """The files of this checkout, as a clone would have them."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name in listed.splitlines():
        if not name.startswith(("tests/", "benchmarks/")) and (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, target / name)


def test_the_hosts_start_imports_nothing_heavy(base: Path) -> None:
    command = [PYTHON, "-X", "importtime", "main.py", "--cpu", "--base-directory", str(base), "--quick-test-for-ci"]
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive"}
    done = subprocess.run(command, cwd=str(HOST), capture_output=True, text=True, env=environment, timeout=300)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    ours = {name for name in imported if ".d3po_core" in name}
    assert ours, done.stderr[-2000:]
    assert not {name for name in imported if name.partition(".")[0] in ("peft", "diffusers", "gradio", "accelerate")}


def test_ours_are_the_nodes_that_the_host_lists(host: Host) -> None:
    listed: dict[str, Any] = host.get("/object_info")
    ours = {name: about for name, about in listed.items() if name.startswith("D3PO_")}
    assert set(ours) == NODES and {about["category"] for about in ours.values()} == {"D3PO"}
    for name, about in ours.items():
        inputs = {**about["input"].get("required", {}), **about["input"].get("optional", {})}
        assert all(len(spec) > 1 and spec[1].get("tooltip") for spec in inputs.values()), name
        assert about["search_aliases"] and about["description"]
    assert "KSampler" in listed  # the host's own `nodes` module is its own
    assert set(taste()) - set(listed)  # and ours are named after nothing of it
