"""The Studio's panel that lets invited people in, in a real browser: links, a guest, revoking, the overlap."""

from __future__ import annotations

import http.client
import socket
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import pytest

from d3po_core.errors import D3POError
from d3po_core.gallery import Actions, serving
from d3po_core.run import Run
from d3po_studio import invite
from tests.panels.test_worker import until
from tests.run_helpers import make_run
from tests.studio.test_page import open_tab, page, toast

pytest.importorskip("gradio", reason="gradio comes with the standalone extra")
__all__ = ["page"]


def status(address: str) -> int:
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
    connection.request("GET", parts.path)
    return connection.getresponse().status


def test_a_person_is_invited_comes_in_and_is_sent_away(
    page: Any, browser: Any, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "own_address", lambda address, port: f"http://127.0.0.1:{port}/")
    open_tab(page, "Invite")
    page.locator("#d3po_invite_people", has_text="Nobody is invited yet").wait_for()
    page.locator("#d3po_invite_status", has_text="Nobody comes in from other computers").wait_for()
    page.click("#d3po_invite_make")
    toast(page, "A name needs 1 to 60 letters")
    page.locator("#d3po_invite_serve input").check()
    page.locator("#d3po_invite_status", has_text="Invited people come in at http://").wait_for()
    page.locator("#d3po_invite_name input, #d3po_invite_name textarea").fill("Ada <b>")
    page.click("#d3po_invite_make")
    field = page.locator("#d3po_invite_link").locator("input, textarea")
    field.wait_for()
    page.locator("#d3po_invite_people td", has_text="Ada <b>").wait_for()
    page.screenshot(path=str(tmp_path / "invite.png"), full_page=True)
    link = field.input_value()
    assert status(link) == 303

    context = browser.new_context(viewport={"width": 900, "height": 700})
    guest = context.new_page()
    guest.goto(link)
    guest.locator("d3po-gallery [data-head=person]", has_text="Ada <b>").wait_for()
    context.close()

    number = page.locator("#d3po_invite_overlap input")
    number.fill("3")
    page.get_by_role("button", name="Set", exact=True).click()
    until(lambda: Run.open(run.folder).leases.overlap == 3)
    page.click("#d3po_invite_revoke")
    toast(page, "Nobody is chosen")
    page.locator("#d3po_invite_whom input").click()
    page.get_by_role("option", name="Ada <b>").click()
    page.click("#d3po_invite_revoke")
    page.locator("#d3po_invite_people td", has_text="revoked").wait_for()
    assert status(link) == 403
    page.locator("#d3po_invite_serve input").uncheck()
    page.locator("#d3po_invite_status", has_text="Nobody comes in from other computers").wait_for()
    with pytest.raises(OSError):
        status(link)


def test_a_proxy_leads_to_one_port_and_one_taste(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setattr(invite, "PORT", port)
        first, second = make_run(tmp_path / "first"), make_run(tmp_path / "second")
        tastes, worker = invite.Serving(), cast(Any, Actions())
        with pytest.raises(D3POError, match=f"Port {port}, which the proxy leads to, is in use"):
            tastes.start(first, worker, "https://pick.example.org")
    with pytest.raises(D3POError, match=r"^Address of a reverse proxy is 'pick'"):
        tastes.start(first, worker, "pick")
    tastes.start(first, worker, "https://pick.example.org")
    try:
        assert f"127.0.0.1:{port}" in tastes._status(first)
        with pytest.raises(D3POError, match=r"Another taste is served at https://pick\.example\.org/"):
            tastes.start(second, worker, "https://pick.example.org/")
    finally:
        tastes.stop(first)
