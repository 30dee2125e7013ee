"""Flags: by key, mouse and thumb; taken back, undone, kept over a reload and while the server is away."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.hosts.browser.gallery_page import Gallery, until
from tests.hosts.browser.gallery_server import GalleryServer
from tests.hosts.browser.test_looks import serious

Opened = Callable[..., Gallery]
FRAME = ".pick:not(.asking) .frame"
UNSENT = "Object.keys(localStorage).filter((key) => key.startsWith('d3po/outbox/')).length"


def over(gallery: Gallery, place: int) -> None:
    """The mouse, over the picture at this place."""
    box = gallery.find(FRAME).nth(place).bounding_box()
    gallery.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps=3)


def flagged(gallery: Gallery) -> list[list[str]]:
    """Which marks can be seen as put, picture by picture."""
    found: list[list[str]] = gallery.find(FRAME).evaluate_all(
        """all => all.map((one) => [...one.querySelectorAll(".flag[on]")].map((flag) => flag.dataset.kind))"""
    )
    return found


def stands(server: GalleryServer) -> set[tuple[str, int, str]]:
    return {(flag.group_id, flag.candidate, flag.kind) for flag in server.taste.flagged()}


def sent(gallery: Gallery) -> None:
    until(lambda: gallery.page.evaluate(UNSENT) == 0)


def test_a_key_flags_the_picture_under_the_mouse_and_again_takes_it_off(opened: Opened, server: GalleryServer) -> None:
    gallery = opened(candidates=4)
    gallery.focus()
    group, shown = gallery.group(), gallery.shown()
    over(gallery, 2)
    gallery.press("d")
    over(gallery, 0)
    gallery.press("u")
    assert flagged(gallery) == [["unsafe"], [], ["defective"], []]
    labels = gallery.find(FRAME).evaluate_all("all => all.map((one) => one.ariaLabel)")
    assert labels == ["Picture 1 of 4, unsafe", "Picture 2 of 4", "Picture 3 of 4, defective", "Picture 4 of 4"]
    until(lambda: stands(server) == {(group, shown[2], "defective"), (group, shown[0], "unsafe")})
    gallery.press("u")
    over(gallery, 2)
    gallery.press("u")
    assert flagged(gallery) == [[], [], ["defective", "unsafe"], []]
    until(lambda: stands(server) == {(group, shown[2], "defective"), (group, shown[2], "unsafe")})
    assert gallery.group() == group and not server.taste.made()
    body = server.sent("flag")[0]
    assert (body["group_id"], body["candidate"], body["on"], body["shown_order"]) == (group, shown[2], True, shown)
    gallery.press("2")  # and the pick is made beside it
    until(lambda: server.taste.standing())
    assert server.taste.standing()[0].order == [shown[1]] and flagged(gallery) == [[], [], [], []]


def test_the_key_follows_the_arrows_or_the_mouse_whichever_spoke_last(opened: Opened) -> None:
    gallery = opened(candidates=4)
    gallery.focus()
    over(gallery, 3)
    gallery.press("ArrowRight")
    gallery.press("d")
    assert flagged(gallery) == [["defective"], [], [], []]
    over(gallery, 1)
    gallery.press("d")
    assert flagged(gallery) == [["defective"], ["defective"], [], []]


def test_the_next_group_under_a_resting_mouse_is_flagged_too(opened: Opened, server: GalleryServer) -> None:
    gallery = opened(candidates=4)
    gallery.focus()
    over(gallery, 2)
    gallery.rest()
    gallery.page.mouse.down()
    gallery.page.mouse.up()
    until(lambda: server.taste.standing())
    gallery.press("d")
    assert flagged(gallery) == [[], [], ["defective"], []]


def test_with_keys_alone_the_number_says_which(opened: Opened, server: GalleryServer) -> None:
    gallery = opened(candidates=3)
    gallery.focus()
    over(gallery, 0)  # where somebody left it who picks by numbers
    gallery.press("1")
    gallery.press("d")
    assert flagged(gallery) == [[], [], []]
    asked = gallery.find(f"{FRAME} .badge").all_inner_texts()
    assert asked == ["1 · defective?", "2 · defective?", "3 · defective?"]
    assert gallery.find(".voice[aria-live=polite]").inner_text() == "Which one is defective? Press its number."
    gallery.press("2")
    assert flagged(gallery) == [[], ["defective"], []]
    assert gallery.find(f"{FRAME} .badge").all_inner_texts() == ["1", "2", "3"]
    for leave in ("u", "Escape", "z"):  # asks, and changes its mind
        gallery.press("u")
        gallery.press(leave)
        assert gallery.find('.badge[data-look="asks"]').count() == 0
    gallery.press("u")
    gallery.press("ArrowRight")
    gallery.press("Enter")
    assert flagged(gallery) == [["unsafe"], ["defective"], []]
    gallery.press("3")
    until(lambda: len(server.taste.standing()) == 2)


def test_undo_takes_back_flags_and_picks_in_their_order(opened: Opened, server: GalleryServer) -> None:
    gallery = opened(candidates=4)
    gallery.focus()
    first = gallery.group()
    over(gallery, 0)
    gallery.press("d")
    gallery.press("4")
    until(lambda: gallery.group() != first)
    over(gallery, 1)
    gallery.press("u")
    gallery.press("u")
    gallery.press("z")
    assert flagged(gallery) == [[], ["unsafe"], [], []]
    gallery.press("Control+z")
    assert flagged(gallery) == [[], [], [], []] and gallery.group() != first
    gallery.press("z")
    until(lambda: gallery.group() == first)
    assert flagged(gallery) == [["defective"], [], [], []]
    gallery.press("z")
    assert flagged(gallery) == [[], [], [], []]
    until(gallery.tool("undo").is_disabled)  # once the server has heard of it
    sent(gallery)
    assert not server.taste.judged() and len(server.taste.flags_made()) <= 3


def test_flags_are_there_after_a_reload_and_can_be_undone(opened: Opened, server: GalleryServer) -> None:
    gallery = opened(candidates=4, groups=1)
    gallery.focus()
    over(gallery, 1)
    gallery.press("d")
    gallery.press("u")
    sent(gallery)
    group = gallery.group()
    gallery.reload()
    assert gallery.group() == group and flagged(gallery) == [[], ["defective", "unsafe"], [], []]
    gallery.focus()
    gallery.press("z")
    until(lambda: flagged(gallery) == [[], ["defective"], [], []])
    assert gallery.group() == group
    gallery.press("z")
    until(lambda: not stands(server) and flagged(gallery) == [[], [], [], []])


def test_flags_made_while_the_server_is_away_are_kept_and_arrive_once(opened: Opened, server: GalleryServer) -> None:
    gallery = opened(candidates=4, groups=1)
    gallery.focus()
    group, shown = gallery.group(), gallery.shown()
    server.away = True
    over(gallery, 1)
    gallery.press("d")
    over(gallery, 3)
    gallery.press("u")
    gallery.press("u")
    gallery.find(".status[worry]").wait_for()
    server.away = False
    server.delay = 0.4  # the page is back before its flags are delivered
    gallery.page.reload()
    gallery.wait_for_group()
    assert gallery.group() == group and flagged(gallery) == [[], ["defective"], [], []]
    server.losing["/flag"] = 1
    sent(gallery)
    assert stands(server) == {(group, shown[1], "defective")}
    ids = [flag.pick_id for flag in server.taste.flags_made()]
    assert len(ids) == len(set(ids)) == 3


def test_picking_a_flagged_picture_means_it(opened: Opened, server: GalleryServer) -> None:
    gallery = opened(candidates=2)
    gallery.focus()
    group, shown = gallery.group(), gallery.shown()
    over(gallery, 0)
    gallery.press("d")
    gallery.rest()
    gallery.find(FRAME).nth(0).click(position={"x": 30, "y": 60})
    until(lambda: server.taste.standing())
    assert server.taste.standing()[0].order == [shown[0]] and not stands(server)
    gallery.press("z")
    until(lambda: gallery.group() == group)
    assert flagged(gallery) == [["defective"], []]
    until(lambda: len(stands(server)) == 1)


def test_the_last_picture_flagged_ends_the_group_as_all_bad(opened: Opened, server: GalleryServer) -> None:
    gallery = opened(candidates=2)
    gallery.focus()
    group = gallery.group()
    over(gallery, 0)
    gallery.press("d")
    over(gallery, 1)
    gallery.press("u")
    until(lambda: [(pick.group_id, pick.kind) for pick in server.taste.standing()] == [(group, "all_bad")])
    gallery.press("d")  # still meant for that one
    assert gallery.group() != group and flagged(gallery) == [[], []]
    gallery.page.wait_for_timeout(600)
    gallery.press("d")
    assert flagged(gallery) == [[], ["defective"]]
    gallery.press("z")
    gallery.press("z")
    until(lambda: gallery.group() == group)
    assert flagged(gallery) == [["defective"], ["unsafe"]]


def test_progress_counts_a_group_once_and_when_it_is_done_with(opened: Opened, server: GalleryServer) -> None:
    gallery = opened(candidates=4)
    gallery.focus()
    done = gallery.find(".foot .progress")
    over(gallery, 0)
    gallery.press("d")
    sent(gallery)
    assert done.inner_text().startswith("0 of 16")
    gallery.press("2")
    assert done.inner_text().startswith("1 of 16")
    sent(gallery)
    assert done.inner_text().startswith("1 of 16")
    gallery.press("z")
    until(lambda: done.inner_text().startswith("0 of 16"))
    sent(gallery)
    gallery.press("z")
    sent(gallery)
    assert done.inner_text().startswith("0 of 16") and server.taste.counted() == 0


def test_a_thumb_flags_with_the_button(opened: Opened, server: GalleryServer) -> None:
    gallery = opened(390, 844, candidates=4, context={"has_touch": True, "is_mobile": True})
    group, shown = gallery.group(), gallery.shown()
    mark = gallery.find(f'{FRAME}:nth-child(2) .flag[data-kind="unsafe"]')
    assert mark.is_hidden()
    gallery.tool("flag").tap()
    gallery.rest()
    size = mark.bounding_box()
    assert size["width"] >= 44 and size["height"] >= 32
    mark.tap()
    until(lambda: stands(server) == {(group, shown[1], "unsafe")})
    gallery.rest()
    gallery.find(FRAME).nth(0).tap(position={"x": 40, "y": 60})  # a picture is picked as ever
    until(lambda: [pick.order for pick in server.taste.standing()] == [[shown[0]]])
    gallery.wait_for_group()
    assert gallery.find(f"{FRAME} .flag:visible").count() == 8  # it stays on
    gallery.tool("flag").tap()
    gallery.rest()
    assert gallery.find(f"{FRAME} .flag:visible").count() == 0
    gallery.tool("undo").tap()
    until(lambda: gallery.group() == group)
    gallery.rest()
    assert gallery.find(f"{FRAME} .flag:visible").count() == 1
    mark.tap()  # what is put can be taken off without the button
    until(lambda: not stands(server))


def test_looking_closer_a_flagged_picture_is_not_dimmed_and_can_be_flagged(opened: Opened) -> None:
    gallery = opened(candidates=2)
    gallery.focus()
    over(gallery, 0)
    gallery.press("d")
    opacity = "(one) => getComputedStyle(one).opacity"
    image = gallery.find(f"{FRAME} img").first
    assert float(image.evaluate(opacity)) < 0.5
    gallery.page.keyboard.down("Space")
    assert image.evaluate(opacity) == "1" and flagged(gallery) == [["defective"], []]
    gallery.press("d")
    assert flagged(gallery) == [[], []]
    gallery.page.keyboard.up("Space")


def test_the_history_shows_flags_corrects_and_finds_them(opened: Opened, server: GalleryServer) -> None:
    gallery = opened(candidates=2)
    gallery.focus()
    first, shown = gallery.group(), gallery.shown()
    over(gallery, 0)
    gallery.press("d")
    gallery.press("2")
    until(lambda: gallery.group() != first)
    over(gallery, 1)
    gallery.press("u")
    second = gallery.group()
    sent(gallery)
    gallery.view("history")
    cards = gallery.find(".pickcard")
    cards.nth(1).wait_for()
    assert cards.locator(".tag").all_inner_texts() == ["Flagged only", "Favourite"]
    assert cards.nth(1).locator(".flag:visible").all_inner_texts() == ["Defective"]
    picture = cards.nth(1).locator(".pictures button").nth(shown[0])
    picture.hover()
    gallery.press("d")
    until(lambda: all(group != first for group, _, _ in stands(server)))
    picture.hover()
    gallery.press("u")
    until(lambda: (first, shown[0], "unsafe") in stands(server))
    assert "unsafe" in picture.get_attribute("aria-label")
    picture.click(position={"x": 20, "y": 20})
    gallery.find(".sheet [data-action=correct]").click()  # the other one after all
    until(lambda: server.taste.standing()[-1].order == [shown[0]])
    assert all(group != first for group, _, _ in stands(server)) and picture.locator(".flag:visible").count() == 0
    cards.nth(0).locator('[aria-label="Flag pictures"]').click()
    cards.nth(0).locator('.cell:nth-child(1) .flag[data-kind="defective"]').click()
    until(lambda: (second, 0, "defective") in stands(server))
    gallery.find('.filters select[aria-label="Which kind of pick"]').select_option("unsafe")
    gallery.page.wait_for_function(
        "document.querySelector('d3po-gallery').shadowRoot.querySelectorAll('.pickcard').length === 1"
    )
    gallery.find('.pickcard [aria-label="Delete this pick"]').click()
    gallery.view("pick")
    until(lambda: not stands(server))
    assert gallery.group() == second and flagged(gallery) == [[], []]


def test_a_flag_that_is_refused_says_so(opened: Opened, server: GalleryServer) -> None:
    gallery = opened(candidates=2)
    gallery.focus()
    server.fail("/flag", 400)
    over(gallery, 0)
    gallery.press("d")
    gallery.find(".notice").wait_for()
    assert "A flag was not accepted." in gallery.find(".notice").inner_text()
    gallery.press("z")
    until(lambda: gallery.find(".notice").count() == 0)
    assert flagged(gallery) == [[], []] and not server.taste.flags_made()


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_marks_fit_in_every_container(opened: Opened, server: GalleryServer, language: str) -> None:
    gallery = opened(candidates=8, lang=language)
    gallery.tool("flag").click()
    for width, height in [(300, 700), (400, 420), (390, 844), (640, 700), (768, 800), (860, 700), (1280, 800)]:
        gallery.page.set_viewport_size({"width": width, "height": height})
        gallery.rest()
        outside: Any = gallery.find(f"{FRAME} .flag").evaluate_all(
            """all => all.filter((one) => {
                const box = one.getBoundingClientRect(), frame = one.closest(".frame").getBoundingClientRect();
                return box.left < frame.left || box.right > frame.right || box.top < frame.top
                    || box.bottom > frame.bottom || box.height < 20;
            }).length"""
        )
        assert outside == 0, (width, height)
        gallery.find(FRAME).nth(0).click(modifiers=["Shift"], position={"x": 45, "y": 12})  # "Done" comes up
        tools = gallery.find(".pick:not(.asking) .tool:visible").evaluate_all(
            """all => all.filter((one) => {
                const { left, right } = one.getBoundingClientRect();
                return one.scrollWidth > one.clientWidth + 1 || left < 0 || right > innerWidth;
            }).map((one) => one.dataset.tool)"""
        )
        assert tools == [], (width, height)
        gallery.press("z")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious_with_flags(opened: Opened, server: GalleryServer, theme: str) -> None:
    gallery = opened(candidates=4, theme=theme)
    gallery.focus()
    gallery.press("d")
    assert serious(gallery) == []
    gallery.press("2")
    gallery.tool("flag").click()
    assert serious(gallery) == []
    sent(gallery)
    gallery.view("history")
    gallery.find('[aria-label="Flag pictures"]').click()
    assert serious(gallery) == []
