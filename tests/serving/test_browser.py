"""An invited person in a real browser: from the link to picks, and what is there when the link is revoked."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hosts.browser.gallery_page import until
from tests.hosts.browser.gallery_server import Taste
from tests.run_helpers import make_run
from tests.serving.served import Served

pytest.importorskip("uvicorn", reason="uvicorn comes with the standalone extra")
SIZES = {"wide": {"width": 1280, "height": 800}, "phone": {"width": 390, "height": 844}}


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    run = make_run(tmp_path / "taste")
    Taste(run).draw(12, 2, size=(128, 128))
    run.close()
    found = Served(tmp_path / "taste")
    yield found
    found.stop()


@pytest.fixture
def elsewhere() -> Iterator[str]:
    """Another site with a page that holds a link, as a mail in a browser does; its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b'<a id="link">Pick</a>')

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://localhost:{server.server_address[1]}/"  # another site than 127.0.0.1
    server.shutdown()


@pytest.fixture(params=SIZES)
def page(browser: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    context = browser.new_context(viewport=SIZES[request.param], reduced_motion="reduce", locale="en")
    found = context.new_page()
    found.set_default_timeout(15_000)
    found.errors = []
    found.on("pageerror", lambda error: found.errors.append(str(error)))
    found.on("console", lambda line: found.errors.append(line.text) if "Content Security" in line.text else None)
    yield found
    context.close()
    assert found.errors == []


def first_group(page: Any) -> None:
    page.locator("d3po-gallery .pick:not(.asking) .frame img").first.wait_for()
    page.wait_for_timeout(190)


def test_from_a_link_on_another_site_to_picks_until_it_is_revoked(
    page: Any, served: Served, elsewhere: str, tmp_path: Path
) -> None:
    link = f"{served.address}join/{served.run.invitations.create('Ada', 7)}"
    page.goto(elsewhere)
    page.evaluate("link => { document.querySelector('#link').href = link; }", link)
    page.click("#link")
    first_group(page)
    assert page.url == served.address and page.evaluate("document.cookie") == ""  # no script can read it
    page.screenshot(path=str(tmp_path / "guest.png"))

    gallery = page.locator("d3po-gallery")
    tabs = gallery.locator("nav.tabs button:visible").all_inner_texts()
    assert tabs == ["Pick", "History"]
    words = page.evaluate("document.querySelector('d3po-gallery').shadowRoot.querySelector('.gallery').innerText")
    assert not {"Teach", "Ranking", "Draw more", "Export"} & set(words.split("\n"))
    assert gallery.locator("[data-head=person]").inner_text() in ("Ada", "")

    for n in range(3):
        page.keyboard.press("Digit1")
        until(lambda n=n: len(served.run.picks.history()) == n + 1)
        first_group(page)
    assert {pick.who for pick in served.run.picks.history()} == {"Ada"}
    gallery.locator(".foot .progress", has_text="3 of 12").wait_for()
    page.reload()
    first_group(page)
    gallery.locator(".foot .progress", has_text="3 of 12").wait_for()
    page.keyboard.press("KeyZ")
    until(lambda: len(served.run.picks.standing()) == 2)
    gallery.locator('[data-view="history"]').click()
    gallery.locator(".pickcard").nth(1).wait_for()
    page.screenshot(path=str(tmp_path / "history.png"))
    assert gallery.locator(".exports a").count() == 0
    gallery.locator('[data-view="pick"]').click()
    first_group(page)

    served.run.invitations.revoke("Ada")
    page.keyboard.press("Digit1")
    gallery.locator(".empty .title", has_text="This link no longer works").wait_for()
    page.wait_for_timeout(300)
    page.screenshot(path=str(tmp_path / "revoked.png"))
    assert gallery.locator("button:visible").count() == 0
    assert len(served.run.picks.standing()) == 2
    page.reload()
    page.get_by_text("This link does not work, or no longer.").wait_for()
    page.screenshot(path=str(tmp_path / "refused.png"))

    page.goto(f"{served.address}join/{served.run.invitations.create('Ben', 7)}")
    first_group(page)
    page.keyboard.press("Digit1")
    until(lambda: len(served.run.picks.standing()) == 3)
    assert [pick.who for pick in served.run.picks.standing()] == ["Ada", "Ada", "Ben"]
    page.goto(f"{served.address}join/{served.run.invitations.create('Ada', 7)}")
    until(lambda: len(served.run.picks.standing()) == 4)  # what was picked last, and kept in the browser
    assert [pick.who for pick in served.run.picks.standing()] == ["Ada", "Ada", "Ben", "Ada"]


def test_what_was_picked_in_another_taste_at_this_address_is_kept_for_it(page: Any, served: Served) -> None:
    page.goto(f"{served.address}join/{served.owner}")
    first_group(page)
    own, other = served.run.run_id, "0" * 32
    page.evaluate(
        """([own, other]) => {
            const entry = (id, taste) => ({ id, kind: "remove", taste, base: ".", path: `taste/${taste}/remove`,
                body: { who: "", pick_id: id } });
            const waiting = [entry("a".repeat(32), own), entry("b".repeat(32), other)];
            localStorage.setItem(`d3po/outbox/${other}/gone`, JSON.stringify({ waiting, refused: [] }));
        }""",
        [own, other],
    )
    page.reload()
    first_group(page)
    kept = f"JSON.parse(localStorage.getItem('d3po/outbox/{other}/gone') ?? '{{}}').waiting?.map(each => each.taste)"
    page.wait_for_function(f"{kept}?.length !== 2")
    assert page.evaluate(kept) == [other]
