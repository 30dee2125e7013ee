"""For each test a server and a page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hosts.browser.gallery_page import Gallery
from tests.hosts.browser.gallery_server import GalleryServer


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GalleryServer]:
    found = GalleryServer(tmp_path)
    yield found
    found.stop()


@pytest.fixture
def opened(browser: Any, server: GalleryServer) -> Iterator[Callable[..., Gallery]]:
    """Opens the gallery: `opened(width, height, candidates=2, groups=30, **attributes)`."""
    contexts: list[Any] = []
    errors: list[str] = []

    def open_it(
        width: int = 1000,
        height: int = 700,
        *,
        candidates: int = 2,
        groups: int = 30,
        context: dict[str, Any] | None = None,
        wait: bool = True,
        **attributes: str,
    ) -> Gallery:
        if groups and not server.taste.has_groups():
            server.taste.draw(groups, candidates, size=(128, 128))
        made = browser.new_context(
            viewport={"width": width, "height": height}, reduced_motion="reduce", **(context or {})
        )
        made.set_default_timeout(10_000)
        contexts.append(made)
        gallery = Gallery(made, server, {"taste": server.taste.id, "lang": "en", **attributes})
        gallery.page.on("pageerror", lambda error: errors.append(str(error)))
        gallery.load(wait)
        return gallery

    yield open_it
    for context in contexts:
        context.close()
    assert errors == []
