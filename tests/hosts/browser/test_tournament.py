"""A tournament in the page: matches are counted, picked by keys, gone on with after a reload, and ranked."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageStat

from d3po_core.importing import import_pictures
from tests.hosts.browser.gallery_page import Gallery
from tests.hosts.browser.gallery_server import PROMPTS, GalleryServer
from tests.hosts.browser.pictures import landscape

Opened = Callable[..., Gallery]


def bring(server: GalleryServer, folder: Path, *counts: int) -> int:
    """Bring folders of landscapes with captions, and return how many matches there will be."""
    folder.mkdir()
    seed = 0
    for prompt, count in zip(PROMPTS, counts, strict=False):
        for _ in range(count):
            seed += 1
            landscape(seed, 256, 256).save(folder / f"{seed:03}.png")
            (folder / f"{seed:03}.txt").write_text(prompt)
    for _ in import_pictures(server.taste.run, folder):
        pass
    return sum(count * (count - 1) // 2 for count in counts)


def brightness(server: GalleryServer, gallery: Gallery) -> list[float]:
    """How bright the pictures on screen are, from left to right."""
    group = gallery.group()
    assert group
    found = []
    for candidate in gallery.shown():
        with Image.open(server.taste.run.groups.image_path(group, candidate)) as image:
            found.append(ImageStat.Stat(image.convert("L")).mean[0])
    return found


def test_a_tournament_is_picked_by_keys_and_ranked(opened: Opened, server: GalleryServer, tmp_path: Path) -> None:
    of = bring(server, tmp_path / "outputs", 4, 3)
    gallery = opened(1100, 760, groups=0)
    for played in range(of):
        if played == 4:
            gallery.reload()
        gallery.focus()
        gallery.find(".foot .progress").filter(has_text=f"{played} of {of} matches").wait_for()
        left, right = brightness(server, gallery)
        before = gallery.group()
        gallery.press("1" if left > right else "2")
        if played == 2:
            shots(gallery, "tournament-pick")
        gallery.page.wait_for_function(
            "before => (document.querySelector('d3po-gallery').session.current?.card.group_id ?? '') !== before",
            arg=before,
        )
        if played < of - 1:
            gallery.wait_for_group()
    gallery.find(".empty .title").filter(has_text=f"All {of} matches are played").wait_for()
    gallery.view("ranking")
    gallery.find(".ranked img").first.wait_for()
    names = gallery.find(".pool").evaluate_all(
        "all => all.map(one => [...one.querySelectorAll('button')].map(press => press.title))"
    )
    by_brightness = sorted(
        (each for each in (tmp_path / "outputs").glob("*.png")),
        key=lambda path: -ImageStat.Stat(Image.open(path).convert("L")).mean[0],
    )
    order = [f"outputs/{path.name}" for path in by_brightness]
    assert [sorted(pool, key=order.index) for pool in names] == names
    assert sorted(len(pool) for pool in names) == [3, 4]
    shots(gallery, "tournament-ranking")
    gallery.find(".ranked button").first.click()
    gallery.find(".sheet .large").wait_for()
    assert json.dumps(names[0][0])[1:-1] in gallery.find(".sheet").inner_text()
    gallery.page.keyboard.press("Escape")


def test_without_a_tournament_there_is_no_ranking(opened: Opened) -> None:
    gallery = opened()
    assert not gallery.find('[data-view="ranking"]').is_visible()


def shots(gallery: Gallery, name: str) -> None:
    """Keep a screenshot where one is wanted."""
    if folder := os.environ.get("D3PO_SCREENSHOTS"):
        gallery.page.screenshot(path=Path(folder) / f"{name}.png")
