"""From a key press to the next group painted, over many picks: `python -m tests.gallery_page.measure_paint`."""

from __future__ import annotations

import os
import shutil
import statistics
import sys
from typing import Any

from tests.gallery_page.conftest import ARGUMENTS
from tests.gallery_page.fake_server import FakeServer
from tests.gallery_page.gallery_page import Gallery, until

# Painted: the first task after the frame in which the other group's pictures were in the page.
LISTEN = """() => {
    window.times = [];
    const stage = document.querySelector("d3po-gallery").shadowRoot.querySelector(".pick:not(.asking) .stage");
    new MutationObserver((changes) => {
        if (!changes.some((one) => one.addedNodes.length)) return;
        const from = window.pressed;
        requestAnimationFrame(() => { const { port1, port2 } = new MessageChannel();
            port2.onmessage = () => window.times.push(performance.now() - from); port1.postMessage(0); });
    }).observe(stage, { childList: true });
}"""


def measure(picks: int = 60, candidates: int = 2, size: int = 512) -> list[float]:
    """Milliseconds of each pick; the pictures of all groups are made before."""
    from playwright.sync_api import sync_playwright

    server = FakeServer()
    server.taste.draw(picks + 8, candidates, size=(size, size))
    with sync_playwright() as driver:
        path = os.environ.get("CHROMIUM") or shutil.which("chromium")
        browser = driver.chromium.launch(executable_path=path, headless=True, args=ARGUMENTS)
        context: Any = browser.new_context(viewport={"width": 1280, "height": 800})
        # Before the gallery's own listener, which lets no key pass.
        context.add_init_script(
            "window.addEventListener('keydown', (event) => (window.pressed = event.timeStamp), true)"
        )
        gallery = Gallery(context, server, {"taste": server.taste.id, "lang": "en"})
        gallery.load()
        gallery.focus()
        gallery.page.evaluate(LISTEN)
        for _ in range(picks):
            gallery.page.wait_for_function("document.querySelector('d3po-gallery').session.ahead.length >= 2")
            gallery.press("1")
        until(lambda: len(server.taste.standing()) == picks)
        times: list[float] = gallery.page.evaluate("window.times")
        browser.close()
    server.stop()
    return times


if __name__ == "__main__":
    found = sorted(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 60))
    middle, slow = statistics.median(found), found[int(len(found) * 0.95)]
    print(f"{len(found)} picks: median {middle:.1f} ms, 95th percentile {slow:.1f} ms, most {found[-1]:.1f} ms")
