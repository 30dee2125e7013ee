"""Looking at and acting on a gallery in a page, in words of picking."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from tests.hosts.browser.gallery_server import GalleryServer

AFTER_THE_GUARD_MS = 190


class Gallery:
    """One page with a gallery."""

    def __init__(self, context: Any, server: GalleryServer, attributes: dict[str, str]) -> None:
        self.context, self.server, self.attributes = context, server, attributes
        self.page = context.new_page()

    def load(self, wait: bool = True) -> None:
        self.page.goto(self.server.page(urlencode(self.attributes)))
        if wait:
            self.wait_for_group()

    def reload(self) -> None:
        self.page.reload()
        self.wait_for_group()

    def wait_for_group(self) -> None:
        self.page.locator(".pick:not(.asking) .frame img").first.wait_for()
        self.rest()

    def rest(self) -> None:
        """Until input counts again."""
        self.page.wait_for_timeout(AFTER_THE_GUARD_MS)

    def focus(self) -> None:
        self.page.evaluate("document.querySelector('d3po-gallery').focus()")

    def press(self, key: str) -> None:
        """A key, once the group on screen takes it."""
        self.rest()
        self.page.keyboard.press(key)

    def key(self, type: str, **event: Any) -> None:
        """A key event as a keyboard of another layout makes it."""
        self.page.evaluate(
            """([type, event]) => {
                const root = document.querySelector("d3po-gallery").shadowRoot;
                const on = root.activeElement ?? root.querySelector(".stage");
                const usual = { bubbles: true, composed: true, cancelable: true };
                on.dispatchEvent(new KeyboardEvent(type, { ...usual, ...event }));
            }""",
            [type, event],
        )

    def find(self, selector: str) -> Any:
        return self.page.locator(f"d3po-gallery {selector}")

    def tool(self, name: str) -> Any:
        return self.page.locator(f'.pick:not(.asking) [data-tool="{name}"]')

    def group(self) -> str | None:
        """The group in front."""
        found: str | None = self.page.evaluate(
            "document.querySelector('d3po-gallery').session.current?.card.group_id ?? null"
        )
        return found

    def shown(self) -> list[int]:
        """The candidates on screen, in order."""
        addresses = self.find(".pick:not(.asking) .frame img").evaluate_all("all => all.map((one) => one.src)")
        return [int(address.rsplit("/", 1)[1]) for address in addresses]

    def heard(self) -> list[str]:
        """Key events that reached the host's page."""
        found: list[str] = self.page.evaluate("window.heard.splice(0)")
        return found

    def store(self) -> dict[str, str]:
        found: dict[str, str] = self.page.evaluate("({ ...localStorage })")
        return found

    def view(self, name: str) -> None:
        self.find(f'[data-view="{name}"]').click()


def until(true: Callable[[], Any], seconds: float = 8) -> None:
    """Waits for something outside the page."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not become true"
        time.sleep(0.02)
