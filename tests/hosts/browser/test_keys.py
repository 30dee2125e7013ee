"""Keys: each does its own thing, once, and only inside the gallery."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.hosts.browser.gallery_page import Gallery, until
from tests.hosts.browser.gallery_server import GalleryServer

Opened = Callable[..., Gallery]


def said(server: GalleryServer, count: int) -> list[Any]:
    """The picks on the server, once there are so many."""
    until(lambda: len(server.taste.standing()) >= count)
    return server.taste.standing()


@pytest.mark.parametrize("key", ["Digit", "Numpad"])
def test_digits_pick_what_is_shown_at_that_place(opened: Opened, server: GalleryServer, key: str) -> None:
    gallery = opened(candidates=8)
    gallery.focus()
    wanted = []
    for place in range(1, 9):
        gallery.rest()
        wanted.append((gallery.group(), "favourite", [gallery.shown()[place - 1]]))
        gallery.page.keyboard.press(f"{key}{place}")
    picks = said(server, 8)
    assert [(pick.group_id, pick.kind, pick.order) for pick in picks] == wanted
    assert all(
        sorted(pick.shown_order) == list(range(8)) and pick.decision_ms > 0 and pick.reason == "random"
        for pick in picks
    )


def test_digits_and_letters_of_other_keyboards(opened: Opened, server: GalleryServer) -> None:
    """AZERTY types & for Digit1 and has Z where QWERTY has W; a Cyrillic keyboard has no Latin letter at all."""
    gallery = opened()
    gallery.focus()
    for code, key in [("Digit1", "&"), ("Digit2", "é"), ("KeyT", "т"), ("KeyX", "ч"), ("KeyS", "s")]:
        gallery.rest()
        gallery.key("keydown", code=code, key=key)
        gallery.key("keyup", code=code, key=key)
    assert [pick.kind for pick in said(server, 5)] == ["favourite", "favourite", "tie", "all_bad", "skipped"]
    gallery.rest()
    gallery.key("keydown", code="KeyW", key="z")
    until(lambda: len(server.taste.standing()) == 4)
    gallery.rest()
    gallery.key("keydown", code="KeyZ", key="w")
    gallery.page.wait_for_timeout(200)
    assert len(server.taste.standing()) == 4


def test_arrows_pick_at_once_with_two(opened: Opened, server: GalleryServer) -> None:
    gallery = opened()
    gallery.focus()
    wanted = []
    for key, place in [("ArrowLeft", 0), ("ArrowRight", 1)]:
        gallery.rest()
        wanted.append([gallery.shown()[place]])
        gallery.page.keyboard.press(key)
    assert [pick.order for pick in said(server, 2)] == wanted


def test_arrows_move_and_enter_picks_with_more(opened: Opened, server: GalleryServer) -> None:
    gallery = opened(candidates=6)
    gallery.focus()
    shown = gallery.shown()
    gallery.press("Enter")
    for key in ["ArrowRight", "ArrowRight", "ArrowDown"]:
        gallery.press(key)
    columns = int(
        gallery.find(".pick:not(.asking) .stage").evaluate("(one) => one.style.getPropertyValue('--columns')")
    )
    assert gallery.find(".frame[highlighted]").count() == 1
    gallery.press("Enter")
    assert [pick.order for pick in said(server, 1)] == [[shown[1 + columns]]]


def test_letters_tie_all_bad_skip_and_undo(opened: Opened, server: GalleryServer) -> None:
    gallery = opened()
    gallery.focus()
    for key in "txs":
        gallery.press(key)
    assert [(pick.kind, pick.order) for pick in said(server, 3)] == [("tie", []), ("all_bad", []), ("skipped", [])]
    gallery.press("z")
    gallery.press("Control+z")
    gallery.press("Meta+z")
    until(lambda: not server.taste.standing())


def test_ranking_completes_itself_or_by_enter(opened: Opened, server: GalleryServer) -> None:
    gallery = opened(candidates=4)
    gallery.focus()
    shown = gallery.shown()
    for key in ["Shift+Digit3", "Shift+Digit1", "Shift+Digit4"]:
        gallery.press(key)
    assert [(p.kind, p.order) for p in said(server, 1)] == [("ranking", [shown[2], shown[0], shown[3], shown[1]])]
    gallery.rest()
    shown = gallery.shown()
    gallery.page.keyboard.press("Shift+Digit2")
    gallery.find(".pick:not(.asking) .frame").nth(3).click(modifiers=["Shift"])
    gallery.page.keyboard.press("Enter")
    assert said(server, 2)[1].order == [shown[1], shown[3]]


def test_undo_first_takes_back_a_ranking_in_the_making(opened: Opened, server: GalleryServer) -> None:
    gallery = opened(candidates=4)
    gallery.focus()
    gallery.press("1")
    said(server, 1)
    gallery.press("Shift+Digit2")
    gallery.press("z")
    assert gallery.find('.badge[data-look="ranked"]').count() == 0
    assert len(server.taste.standing()) == 1


def test_a_finger_held_for_two_seconds_makes_one_pick(opened: Opened, server: GalleryServer) -> None:
    gallery = opened()
    gallery.focus()
    gallery.rest()
    for _ in range(60):  # a keyboard's repeat, 30 a second
        gallery.page.keyboard.down("1")
        gallery.page.wait_for_timeout(33)
    gallery.page.keyboard.up("1")
    gallery.page.wait_for_timeout(300)
    assert len(server.taste.standing()) == 1


def test_input_right_after_a_new_group_is_ignored(opened: Opened, server: GalleryServer) -> None:
    gallery = opened()
    gallery.focus()
    # Without the repeat mark, as some remote desktops send it: all within a few milliseconds of the first.
    gallery.rest()
    gallery.page.evaluate(
        """async () => {
            const gallery = document.querySelector("d3po-gallery");
            const stage = gallery.shadowRoot.querySelector(".pick:not(.asking) .stage");
            const one = { code: "Digit1", key: "1", bubbles: true, composed: true };
            const press = () => stage.dispatchEvent(new KeyboardEvent("keydown", one));
            const click = () => stage.querySelector(".frame").click();
            const frame = () => new Promise(requestAnimationFrame);
            for (let i = 0; i < 4; i++) { press(); click(); await frame(); }
        }"""
    )
    gallery.page.wait_for_timeout(300)
    assert len(server.taste.standing()) == 1


def test_no_key_leaves_the_gallery_and_all_others_are_left_alone(opened: Opened, server: GalleryServer) -> None:
    gallery = opened()
    gallery.focus()
    # Listeners that some hosts put at the window, on the way down.
    gallery.page.evaluate("document.addEventListener('keydown', () => window.heard.push('captured'), true)")
    for key in [
        "1",
        "t",
        "z",
        "r",
        "Escape",
        "Space",
        "Control+Enter",
        "Delete",
        "Control+c",
        "Control+z",
        "Tab",
        "Shift+Tab",
        "h",
        "h",
        "?",
        "Escape",
    ]:
        gallery.press(key)
    assert gallery.heard() == []
    before = len(server.taste.made())
    gallery.page.locator("#outside").focus()
    for key in ["1", "t", "x", "Space", "Escape", "z"]:
        gallery.press(key)
    heard = gallery.heard()
    assert heard.count("keydown") == 2 * 6 and heard.count("keyup") == 2 * 6 and heard.count("captured") == 6
    assert gallery.page.locator("#outside").input_value() == "1tx z"
    assert len(server.taste.made()) == before


def test_shortcuts_with_control_are_left_to_the_browser(opened: Opened, server: GalleryServer) -> None:
    gallery = opened()
    gallery.focus()
    prevented = gallery.page.evaluate(
        """() => {
            const on = document.querySelector("d3po-gallery").shadowRoot.querySelector(".pick:not(.asking) .stage");
            const sent = (code, extra) => {
                const key = code.slice(-1).toLowerCase();
                const usual = { code, key, bubbles: true, composed: true, cancelable: true };
                const event = new KeyboardEvent("keydown", { ...usual, ...extra });
                on.dispatchEvent(event);
                return event.defaultPrevented;
            };
            return [
                sent("KeyT", { ctrlKey: true }), sent("KeyS", { metaKey: true }), sent("Digit1", { altKey: true }),
                sent("KeyZ", { ctrlKey: true, shiftKey: true }), sent("KeyT", {}),
            ];
        }"""
    )
    assert prevented == [False, False, False, False, True]


def test_space_zooms_all_pictures_on_one_point_while_held(opened: Opened, server: GalleryServer) -> None:
    gallery = opened()
    gallery.focus()
    box = gallery.find(".pick:not(.asking) .frame").nth(1).bounding_box()
    gallery.page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + box["height"] * 0.75)
    gallery.page.keyboard.down("Space")
    style = "(all) => all.map((one) => [getComputedStyle(one).transform, getComputedStyle(one).transformOrigin])"
    images = gallery.find(".pick:not(.asking) .frame img")
    first, second = images.evaluate_all(style)
    assert first == second and first[0] == "matrix(2, 0, 0, 2, 0, 0)"
    x, y = (float(part.removesuffix("px")) for part in first[1].split())
    assert (round(x / box["width"], 1), round(y / box["height"], 1)) in [(0.2, 0.8), (0.3, 0.7), (0.2, 0.7), (0.3, 0.8)]
    gallery.page.keyboard.press("ArrowRight")
    assert images.evaluate_all(style)[0] != first
    gallery.page.keyboard.up("Space")
    assert images.evaluate_all(style)[0][0] == "none"
    assert not server.taste.made()


def test_wheel_with_control_zooms_and_escape_ends_it(opened: Opened) -> None:
    gallery = opened()
    gallery.find(".pick:not(.asking) .frame").first.hover()
    gallery.focus()
    gallery.page.keyboard.down("Control")
    gallery.page.mouse.wheel(0, -200)
    gallery.page.keyboard.up("Control")
    gallery.find(".stage[zoomed]").wait_for()
    gallery.press("Escape")
    assert gallery.find(".stage[zoomed]").count() == 0


def test_f_h_and_help(opened: Opened) -> None:
    gallery = opened()
    gallery.focus()
    gallery.press("?")
    gallery.find(".sheet").wait_for()
    gallery.press("Escape")
    assert gallery.find(".sheet").count() == 0
    gallery.press("h")
    gallery.find(".history").wait_for()
    gallery.press("h")
    gallery.find(".pick:not(.asking) .frame").first.wait_for()
    gallery.press("f")
    gallery.page.wait_for_function("document.fullscreenElement?.localName === 'd3po-gallery'")
    gallery.press("f")
    gallery.page.wait_for_function("!document.fullscreenElement")
    gallery.press("1")
    gallery.page.wait_for_function("document.querySelector('d3po-gallery').session.made.length === 1")


def test_mouse_alone_does_everything(opened: Opened, server: GalleryServer) -> None:
    gallery = opened(candidates=4)
    for tool in ["tie", "all_bad", "skipped"]:
        gallery.rest()
        gallery.tool(tool).click()
    assert [pick.kind for pick in said(server, 3)] == ["tie", "all_bad", "skipped"]
    gallery.rest()
    gallery.tool("undo").click()
    until(lambda: len(server.taste.standing()) == 2)
    gallery.wait_for_group()
    shown = gallery.shown()
    gallery.tool("ranking").click()
    gallery.find(".pick:not(.asking) .frame").nth(2).click()
    gallery.find(".pick:not(.asking) .frame").nth(0).click()
    gallery.tool("rank_done").click()
    assert said(server, 3)[-1].order == [shown[2], shown[0]]
    gallery.rest()
    gallery.tool("ranking").click()
    gallery.tool("zoom").click()
    gallery.find(".stage[zoomed]").wait_for()
    gallery.find(".pick:not(.asking) .frame").first.click()
    assert said(server, 4)[-1].kind == "favourite"


def test_thumb_alone_picks_and_looks_closer(opened: Opened, server: GalleryServer) -> None:
    gallery = opened(390, 844, context={"has_touch": True, "is_mobile": True})
    frame = gallery.find(".pick:not(.asking) .frame").nth(1)
    frame.tap()
    said(server, 1)
    gallery.rest()
    box = gallery.find(".pick:not(.asking) .frame").nth(1).bounding_box()
    client = gallery.context.new_cdp_session(gallery.page)
    spot = {"x": box["x"] + 60, "y": box["y"] + 60}
    client.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [spot]})
    gallery.find(".stage[zoomed]").wait_for()
    client.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    gallery.page.wait_for_timeout(200)
    assert gallery.find(".stage[zoomed]").count() == 0
    assert len(server.taste.standing()) == 1


def test_a_press_anywhere_inside_gives_it_the_keys(opened: Opened, server: GalleryServer) -> None:
    gallery = opened()
    gallery.page.locator("#outside").focus()
    gallery.find(".pick:not(.asking) .prompt .words").click()
    gallery.press("1")
    assert said(server, 1)[0].kind == "favourite"


def test_a_zoom_whose_key_is_let_go_elsewhere_ends(opened: Opened) -> None:
    gallery = opened()
    gallery.focus()
    gallery.page.keyboard.down("Space")
    gallery.find(".stage[zoomed]").wait_for()
    gallery.page.locator("#outside").focus()
    assert gallery.find(".stage[zoomed]").count() == 0


def test_a_wheel_that_scrolls_here_does_not_reach_the_host(opened: Opened) -> None:
    gallery = opened()
    gallery.page.evaluate("window.addEventListener('wheel', () => window.heard.push('wheel'))")
    gallery.find(".pick:not(.asking) .frame").first.hover()
    gallery.page.mouse.wheel(0, 100)
    gallery.page.wait_for_function("window.heard.includes('wheel')")
    gallery.heard()
    gallery.view("history")
    gallery.find(".history").hover()
    gallery.page.mouse.wheel(0, 100)
    gallery.page.wait_for_timeout(150)
    assert "wheel" not in gallery.heard()
