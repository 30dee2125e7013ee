"""The web servers' configurations in docs/people.md are valid, and let people in by TLS."""

from __future__ import annotations

import re
import shutil
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.run_helpers import make_run
from tests.serving.served import Served

pytest.importorskip("uvicorn", reason="uvicorn comes with the standalone extra")
PAGE = (Path(__file__).parents[2] / "docs" / "people.md").read_text("utf-8")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the web servers are looked for on Linux and macOS")


def program(name: str) -> str:
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def block(language: str) -> str:
    (text,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.S)
    return text


@pytest.fixture(params=["caddy", "nginx"])
def public(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Served, str]]:
    """A run behind a web server that is configured as the page says; the address that people see."""
    executable, port = program(request.param), free_port()
    address = f"https://localhost:{port}/"
    make_run(tmp_path / "taste", groups=2).close()
    served = Served(tmp_path / "taste", url=address)
    text = block(request.param).replace("127.0.0.1:7869", f"127.0.0.1:{served.port}")
    command = caddy(executable, text, port, tmp_path) if request.param == "caddy" else nginx(text, port, tmp_path)
    environment = {"HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(port)
        yield served, address
    finally:
        process.terminate()
        process.wait(20)
        served.stop()


def caddy(executable: str, text: str, port: int, folder: Path) -> list[str]:
    """Caddy with a certificate of its own making, in place of one that it would fetch."""
    text = text.replace("pick.example.org {", f"https://localhost:{port} {{\n\ttls internal")
    options = "{\n\tadmin off\n\tskip_install_trust\n\tauto_https disable_redirects\n}\n"
    (folder / "Caddyfile").write_text(options + text)
    return [executable, "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]


def nginx(text: str, port: int, folder: Path) -> list[str]:
    """Run nginx with a certificate of our own making."""
    names = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem"), "-subj", "/CN=localhost"]
    make = [program("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names]
    subprocess.run(make, check=True, capture_output=True)
    text = text.replace("listen 443 ssl", f"listen 127.0.0.1:{port} ssl")
    text = text.replace("/etc/ssl/pick.example.org.pem", str(folder / "cert.pem"))
    text = text.replace("/etc/ssl/pick.example.org.key", str(folder / "key.pem"))
    paths = "".join(f"{name}_temp_path {folder}/{name};\n" for name in ("client_body", "proxy", "fastcgi"))
    paths += "".join(f"{name}_temp_path {folder}/{name};\n" for name in ("uwsgi", "scgi"))
    head = f"daemon off;\npid {folder}/nginx.pid;\nerror_log stderr;\nevents {{}}\n"
    (folder / "nginx.conf").write_text(f"{head}http {{\n{paths}{text}}}\n")
    return [program("nginx"), "-p", str(folder), "-c", str(folder / "nginx.conf")]


def wait_for(port: int) -> None:
    for _ in range(400):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise TimeoutError


def get(address: str, cookies: urllib.request.HTTPCookieProcessor) -> tuple[int, str, bytes]:
    """Open an address as a browser does, with redirects and cookies; status, final address and content."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), cookies)
    for _ in range(100):
        try:
            with opener.open(address, timeout=20) as answer:
                return answer.status, answer.url, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, address, error.read()
        except urllib.error.URLError:  # its certificate is still being made
            time.sleep(0.1)
    raise TimeoutError


def test_a_link_leads_through_the_proxy_to_the_page(public: tuple[Served, str]) -> None:
    served, address = public
    cookies = urllib.request.HTTPCookieProcessor()
    assert get(address, cookies)[0] == 403
    token = served.run.invitations.create("Ada", 1)
    status, url, page = get(f"{address}join/{token}", cookies)
    assert (status, url) == (200, address) and b'who="Ada"' in page
    (cookie,) = cookies.cookiejar
    assert cookie.secure and cookie.value == token
    assert get(f"{address}taste/{served.run.run_id}/state", cookies)[0] == 200
    served.run.invitations.revoke("Ada")
    assert get(address, cookies)[0] == 403
