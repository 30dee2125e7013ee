"""The brush: by mouse, finger and keys; taken back, kept over a reload and while the server is away."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from d3po_core.picks import MASK_SIZE
from d3po_core.training.masks import to_tensor
from tests.hosts.browser.gallery_page import Gallery, until
from tests.hosts.browser.gallery_server import GalleryServer
from tests.hosts.browser.test_flags import over, sent
from tests.hosts.browser.test_looks import serious

Opened = Callable[..., Gallery]
FRAME = ".pick:not(.asking) .frame"


def box(gallery: Gallery, place: int) -> dict[str, float]:
    found: dict[str, float] = gallery.find(FRAME).nth(place).bounding_box()
    return found


def stroke(gallery: Gallery, place: int, *points: tuple[float, float], button: str = "left") -> None:
    """Press at the first point of a picture, in shares of it, move to the others and let go."""
    area, mouse = box(gallery, place), gallery.page.mouse
    gallery.rest()
    for number, (x, y) in enumerate(points):
        mouse.move(area["x"] + x * area["width"], area["y"] + y * area["height"], steps=5)
        if number == 0:
            mouse.down(button=button)
    mouse.up(button=button)


def stands(server: GalleryServer) -> dict[tuple[str, int], torch.Tensor]:
    """What is painted, by group and candidate."""
    return {(each.group_id, each.candidate): to_tensor(each.mask) for each in server.taste.run.masks.standing()}


def darkness(gallery: Gallery, place: int, x: float, y: float) -> int:
    """How dark the veil is at a point of a picture, 0 to 255."""
    found: int = (
        gallery.find(FRAME)
        .nth(place)
        .locator(".veil")
        .evaluate(
            """(veil, [x, y]) => veil.getContext("2d").getImageData(x * veil.width, y * veil.height, 1, 1).data[3]""",
            [x, y],
        )
    )
    return found


def test_a_stroke_marks_what_is_meant_and_picks_nothing(opened: Opened, server: GalleryServer) -> None:
    gallery = opened(candidates=4)
    gallery.focus()
    group, shown = gallery.group(), gallery.shown()
    assert group
    gallery.press("b")
    stroke(gallery, 1, (0.25, 0.75), (0.75, 0.75))
    until(lambda: (group, shown[1]) in stands(server))
    painted = stands(server)[group, shown[1]]
    rows, columns = painted.nonzero().T
    assert rows.min() >= 0.75 * MASK_SIZE - 5 and rows.max() <= 0.75 * MASK_SIZE + 4  # 4 cells about the line
    assert painted[24, 8:24].all() and columns.min() >= 3 and columns.max() <= 28
    assert darkness(gallery, 1, 0.5, 0.75) == 0 and darkness(gallery, 1, 0.5, 0.2) > 100
    assert darkness(gallery, 0, 0.5, 0.5) == 0
    assert gallery.find(FRAME).nth(1).get_attribute("aria-label") == "Picture 2 of 4, a part painted"
    assert gallery.group() == group and not server.taste.made()
    gallery.press("2")  # with the brush still on
    until(lambda: server.taste.standing())
    assert server.taste.standing()[0].order == [shown[1]]
    assert gallery.tool("brush").get_attribute("aria-pressed") == "false"
    assert set(stands(server)) == {(group, shown[1])}


def test_it_is_wiped_off_and_taken_back(opened: Opened, server: GalleryServer) -> None:
    gallery = opened(candidates=2)
    gallery.focus()
    group, shown = gallery.group(), gallery.shown()
    assert group
    at = (group, shown[0])
    gallery.press("b")
    stroke(gallery, 0, (0.2, 0.5), (0.8, 0.5))
    until(lambda: at in stands(server))
    whole = stands(server)[at]
    stroke(gallery, 0, (0.5, 0.5), button="right")
    until(lambda: stands(server)[at].sum() < whole.sum())
    assert not stands(server)[at][16, 16]
    gallery.tool("undo").click()
    until(lambda: torch.equal(stands(server)[at], whole))
    gallery.press("z")
    until(lambda: not stands(server))
    assert gallery.find(FRAME).nth(0).get_attribute("aria-label") == "Picture 1 of 2"
    assert gallery.tool("undo").is_disabled()
    gallery.press("z")  # nothing is left: no pick was made that it could take
    sent(gallery)
    assert gallery.group() == group and not server.taste.made()
    gallery.press("Escape")
    assert gallery.tool("brush").get_attribute("aria-pressed") == "false"


def test_keys_alone_paint(opened: Opened, server: GalleryServer) -> None:
    gallery = opened(candidates=4)
    gallery.focus()
    group, shown = gallery.group(), gallery.shown()
    assert group
    gallery.press("ArrowRight")
    gallery.press("ArrowRight")
    gallery.press("b")
    for key in ("[", "[", "[", "ArrowUp", "ArrowLeft", "ArrowLeft", " "):
        gallery.press(key)
    until(lambda: (group, shown[1]) in stands(server))
    painted = stands(server)[group, shown[1]]
    assert painted.sum() == 4 and painted[14:16, 13:15].all()  # radius 1 about (14, 15)
    gallery.press("Shift+ ")
    until(lambda: not stands(server))
    gallery.press("Enter")
    assert gallery.tool("brush").get_attribute("aria-pressed") == "false"
    assert not server.taste.made()


def test_the_wheel_changes_the_size(opened: Opened) -> None:
    gallery = opened()
    gallery.focus()
    gallery.press("b")
    over(gallery, 0)
    ring = gallery.find(f"{FRAME} .ring")
    before = ring.bounding_box()["width"]
    gallery.page.mouse.wheel(0, -100)
    until(lambda: ring.bounding_box()["width"] > before * 1.3)
    gallery.press("[")
    gallery.press("[")
    until(lambda: ring.bounding_box()["width"] < before * 0.7)


def test_pictures_of_another_shape_are_painted_where_they_are(opened: Opened, server: GalleryServer) -> None:
    server.taste.draw(1, 2, size=(128, 64))
    gallery = opened(500, 700, groups=0)
    gallery.focus()
    group, shown = gallery.group(), gallery.shown()
    assert group
    gallery.press("b")
    for _ in range(3):
        gallery.press("[")
    stroke(gallery, 0, (0.5, 0.5))
    until(lambda: (group, shown[0]) in stands(server))
    assert stands(server)[group, shown[0]].nonzero().float().mean(0).tolist() == [15.5, 15.5]


def test_it_comes_back_with_the_group(opened: Opened, server: GalleryServer) -> None:
    gallery = opened(candidates=2)
    gallery.focus()
    group = gallery.group()
    assert group
    gallery.press("b")
    stroke(gallery, 1, (0.5, 0.2))
    gallery.press("1")
    until(lambda: server.taste.standing() and stands(server))
    gallery.press("z")
    until(lambda: gallery.group() == group)
    label = "Picture 2 of 2, a part painted"
    assert gallery.find(FRAME).nth(1).get_attribute("aria-label") == label
    gallery.press("1")
    until(lambda: server.taste.standing())
    gallery.reload()
    gallery.focus()
    gallery.press("z")  # the server's card
    until(lambda: gallery.group() == group)
    assert sum("painted" in str(name) for name in labels(gallery)) == 1


def labels(gallery: Gallery) -> list[str]:
    found: list[str] = gallery.find(FRAME).evaluate_all("all => all.map((one) => one.ariaLabel)")
    return found


def test_what_is_painted_while_the_server_is_away_arrives_later(opened: Opened, server: GalleryServer) -> None:
    gallery = opened(candidates=2)
    gallery.focus()
    server.away = True
    gallery.press("b")
    stroke(gallery, 0, (0.3, 0.3))
    stroke(gallery, 0, (0.7, 0.7))
    assert not stands(server)
    server.away = False
    until(lambda: len(stands(server)) == 1)
    (painted,) = stands(server).values()
    until(lambda: stands(server) and next(iter(stands(server).values()))[22, 22] == 1)
    assert next(iter(stands(server).values()))[9, 9] == 1
    del painted


def test_a_stroke_under_way_counts_when_a_key_picks_or_leaves(opened: Opened, server: GalleryServer) -> None:
    gallery = opened(candidates=4)
    gallery.focus()
    groups = []
    for key, place in (("2", 1), ("b", 0), ("Escape", 2), ("Enter", 3)):
        group, shown = gallery.group(), gallery.shown()
        assert group
        groups.append((group, shown[place]))
        gallery.press("b")
        half_a_stroke(gallery, place)
        gallery.press(key)
        gallery.page.mouse.up()
        assert gallery.tool("brush").get_attribute("aria-pressed") == "false"
        until(lambda: set(stands(server)) == set(groups))
        if key != "2":
            assert gallery.group() == group
            gallery.press("s")
    assert [said.kind for said in server.taste.made()] == ["favourite", "skipped", "skipped", "skipped"]


def half_a_stroke(gallery: Gallery, place: int) -> None:
    area = box(gallery, place)
    gallery.rest()
    gallery.page.mouse.move(area["x"] + 0.3 * area["width"], area["y"] + 0.3 * area["height"])
    gallery.page.mouse.down()
    gallery.page.mouse.move(area["x"] + 0.6 * area["width"], area["y"] + 0.6 * area["height"], steps=4)


def test_undo_takes_back_what_was_done_last(opened: Opened, server: GalleryServer) -> None:
    gallery = opened(candidates=4)
    gallery.focus()
    gallery.press("1")
    until(lambda: len(server.taste.standing()) == 1)
    group, shown = gallery.group(), gallery.shown()
    assert group
    gallery.press("b")
    stroke(gallery, 0, (0.3, 0.3))
    over(gallery, 1)
    gallery.press("d")
    gallery.press("b")
    gallery.press("z")  # the flag
    until(lambda: server.taste.flags_made() and not server.taste.flagged())
    assert set(stands(server)) == {(group, shown[0])}
    gallery.press("z")  # then the stroke, though the brush is off
    until(lambda: not stands(server))
    assert gallery.group() == group
    gallery.press("b")
    half_a_stroke(gallery, 0)
    gallery.press("z")  # a stroke under way
    gallery.page.mouse.up()
    gallery.press("z")  # once too often: the brush is on
    sent(gallery)
    assert not stands(server) and darkness(gallery, 0, 0.9, 0.1) == 0
    assert gallery.group() == group and len(server.taste.standing()) == 1
    gallery.press("b")
    gallery.press("z")  # and the pick of the group before
    until(lambda: not server.taste.standing())


def test_a_repeat_comes_without_and_leaves_what_was_painted(opened: Opened, server: GalleryServer) -> None:
    gallery = opened(candidates=2, groups=60)
    gallery.focus()
    painted = {}
    for _ in range(40):
        if gallery.page.evaluate("document.querySelector('d3po-gallery').session.current.card.reason") == "repeat":
            break
        group, shown = gallery.group(), gallery.shown()
        assert group
        gallery.press("b")
        stroke(gallery, 1, (0.5, 0.5))
        painted[group] = shown[1]
        gallery.press("1")
    again = gallery.group()
    assert again in painted and not any("painted" in name for name in labels(gallery))
    sent(gallery)
    before = stands(server)[again, painted[again]]
    gallery.press("b")
    stroke(gallery, gallery.shown().index(painted[again]), (0.1, 0.1))
    gallery.press("z")
    gallery.press("1")
    sent(gallery)
    assert torch.equal(stands(server)[again, painted[again]], before)


def test_keys_paint_on_a_smaller_group_after_a_larger_one(opened: Opened, server: GalleryServer) -> None:
    server.taste.draw(1, 4, size=(128, 128))
    server.taste.draw(3, 2, size=(128, 128))
    gallery = opened(groups=0)
    gallery.focus()
    while len(gallery.shown()) == 2:
        gallery.press("s")
    for _ in range(4):
        gallery.press("ArrowRight")
    gallery.press("b")
    gallery.press(" ")
    gallery.press("4")
    until(lambda: len(gallery.shown()) == 2 and gallery.group())
    group, shown = gallery.group(), gallery.shown()
    gallery.press("b")
    gallery.press("ArrowLeft")
    gallery.press(" ")
    until(lambda: (group, shown[0]) in stands(server))


def test_brackets_as_other_keyboards_type_them(opened: Opened) -> None:
    gallery = opened(candidates=8)
    gallery.focus()
    group = gallery.group()
    gallery.press("b")
    over(gallery, 0)
    ring = gallery.find(f"{FRAME} .ring")

    def width() -> float:
        found: float = ring.bounding_box()["width"]
        return found

    sizes = [width()]
    windows = {"ctrlKey": True, "altKey": True}
    for event in (
        {"key": "[", "code": "Digit8", **windows},  # German on Windows
        {"key": "]", "code": "Digit9", **windows},
        {"key": "[", "code": "Digit5"},  # French on Linux, by AltGr
        {"key": "ü", "code": "BracketLeft"},  # German, the key at that place
    ):
        gallery.key("keydown", **event)
        sizes.append(width())
    assert sizes[1] < sizes[0] == sizes[2] > sizes[3] > sizes[4]
    assert gallery.group() == group  # and nothing was picked by 5 or 8


def test_a_second_finger_does_not_join_a_stroke(opened: Opened, server: GalleryServer) -> None:
    gallery = opened(390, 844, candidates=2, context={"has_touch": True, "is_mobile": True})
    gallery.tool("brush").tap()
    area = box(gallery, 0)
    session: Any = gallery.context.new_cdp_session(gallery.page)
    gallery.rest()

    def touch(kind: str, *shares: float) -> None:
        points = [
            {"x": area["x"] + s * area["width"], "y": area["y"] + s * area["height"], "id": n}
            for n, s in enumerate(shares)
        ]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", 0.2)
    touch("touchStart", 0.2, 0.8)
    touch("touchMove", 0.25, 0.75)
    touch("touchMove", 0.3, 0.7)
    touch("touchEnd")
    until(lambda: stands(server))
    (painted,) = stands(server).values()
    assert painted[8, 8] and not painted[16, 16] and not painted[24, 24]


def test_a_finger_paints_and_does_not_scroll(opened: Opened, server: GalleryServer) -> None:
    gallery = opened(390, 844, candidates=4, context={"has_touch": True, "is_mobile": True})
    gallery.tool("brush").tap()
    area = box(gallery, 0)
    session: Any = gallery.context.new_cdp_session(gallery.page)
    gallery.rest()

    def touch(kind: str, *shares: float) -> None:
        points = [{"x": area["x"] + s * area["width"], "y": area["y"] + s * area["height"]} for s in shares]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", 0.3)
    for share in (0.4, 0.5, 0.6):
        touch("touchMove", share)
    gallery.page.wait_for_timeout(450)  # as long as a long press, which would look closer
    assert gallery.find(".stage[zoomed]").count() == 0
    touch("touchEnd")
    until(lambda: stands(server))
    (painted,) = stands(server).values()
    assert painted[10, 10] and painted[18, 18] and not server.taste.made()


def test_the_history_shows_it(opened: Opened, server: GalleryServer) -> None:
    gallery = opened(candidates=2)
    gallery.focus()
    gallery.press("b")
    stroke(gallery, 0, (0.5, 0.5))
    gallery.press("1")
    until(lambda: server.taste.standing() and stands(server))
    gallery.view("history")
    first = gallery.find(".pickcard .cell .veil").nth(0)
    first.wait_for()

    def shades() -> set[int]:
        found = gallery.find(".pickcard .cell .veil").evaluate_all(
            """all => all.map((one) => one.getContext("2d").getImageData(2, 2, 1, 1).data[3])"""
        )
        return set(found)

    until(lambda: shades() == {0, 150})  # the corner of the one, and nothing on the other
    names = gallery.find(".pickcard .cell button").evaluate_all("all => all.map((one) => one.ariaLabel)")
    assert sum(name.endswith(", a part painted") for name in names) == 1


def test_looks(opened: Opened, server: GalleryServer) -> None:
    gallery = opened(candidates=4)
    gallery.focus()
    gallery.press("b")
    stroke(gallery, 2, (0.3, 0.3), (0.6, 0.5))
    assert serious(gallery) == []
