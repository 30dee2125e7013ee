"""Picks on their way: none lost, none doubled, whatever the server, the page and the person do in between."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from tests.hosts.browser.gallery_page import Gallery, until
from tests.hosts.browser.gallery_server import GalleryServer

Opened = Callable[..., Gallery]
UNSENT = "Object.keys(localStorage).filter((key) => key.startsWith('d3po/outbox/')).length"


def addresses(gallery: Gallery) -> list[str]:
    """What the page asks for from now on."""
    found: list[str] = []
    gallery.page.on("request", lambda request: found.append(request.url))
    return found


def made(server: GalleryServer) -> list[str]:
    """All pick requests that were taken, by id."""
    return [pick.pick_id for pick in server.taste.made()]


def test_the_next_group_is_there_at_once_and_no_group_comes_twice(opened: Opened, server: GalleryServer) -> None:
    gallery = opened()
    gallery.focus()
    seen = []
    for _ in range(12):
        gallery.rest()
        seen.append(gallery.group())
        gallery.page.keyboard.press("1")
        assert gallery.group() not in (None, *seen)
    until(lambda: len(server.taste.standing()) == 12)
    assert [pick.group_id for pick in server.taste.standing()] == seen
    until(lambda: gallery.page.evaluate(UNSENT) == 0)  # the answer is on its way


def test_undo_any_number_of_times_also_after_a_reload(opened: Opened, server: GalleryServer) -> None:
    gallery = opened()
    gallery.focus()
    for _ in range(8):
        gallery.press("2")
    until(lambda: len(server.taste.standing()) == 8)
    order = [pick.group_id for pick in server.taste.standing()]
    for expected in order[:4:-1]:
        gallery.press("z")
        gallery.wait_for_group()
        assert gallery.group() == expected
    until(lambda: len(server.taste.standing()) == 5)
    gallery.reload()
    gallery.focus()
    for expected in order[4::-1]:
        gallery.press("z")
        gallery.page.wait_for_function(
            f"document.querySelector('d3po-gallery').session.current?.card.group_id === '{expected}'"
        )
    until(lambda: not server.taste.standing())
    gallery.press("z")
    assert gallery.tool("undo").is_disabled()


def test_five_undos_in_a_hurry(opened: Opened, server: GalleryServer) -> None:
    gallery = opened()
    gallery.focus()
    for _ in range(6):
        gallery.press("1")
    until(lambda: len(server.taste.standing()) == 6)
    gallery.reload()
    gallery.focus()
    for _ in range(5):
        gallery.page.keyboard.press("z")
    until(lambda: len(server.taste.standing()) == 1)
    first = server.taste.made()[1].group_id
    gallery.page.wait_for_function(
        f"document.querySelector('d3po-gallery').session.current?.card.group_id === '{first}'"
    )


def test_offline_picks_wait_visibly_survive_a_reload_and_arrive_once(opened: Opened, server: GalleryServer) -> None:
    gallery = opened()
    gallery.focus()
    gallery.press("1")
    until(lambda: len(server.taste.standing()) == 1)
    gallery.rest()
    server.away = True
    seen = []
    for _ in range(3):
        gallery.rest()
        seen.append(gallery.group())
        gallery.page.keyboard.press("1")
    gallery.find(".status[worry]").wait_for()
    assert "3 waiting to be sent" in gallery.find(".status[worry]").inner_text()
    server.away = False
    until(lambda: len(server.taste.standing()) == 4, 20)
    assert [pick.group_id for pick in server.taste.standing()[1:]] == seen
    assert max(Counter(made(server)).values()) == 1
    gallery.page.wait_for_function(f"{UNSENT} === 0")


def test_a_reload_while_the_server_is_away_loses_nothing(opened: Opened, server: GalleryServer) -> None:
    gallery = opened()
    gallery.focus()
    server.away = True
    for _ in range(3):
        gallery.press("1")
    assert gallery.page.evaluate(UNSENT) == 1
    gallery.page.reload()
    gallery.find(".pick:not(.asking) .empty .title").wait_for()
    server.away = False
    until(lambda: len(server.taste.standing()) == 3, 20)
    assert len(made(server)) == 3
    gallery.wait_for_group()
    assert gallery.group() not in {pick.group_id for pick in server.taste.standing()}


def test_unsent_picks_can_be_taken_back_also_after_a_reload(opened: Opened, server: GalleryServer) -> None:
    gallery = opened()
    gallery.focus()
    server.away = True
    groups = []
    for _ in range(3):
        gallery.rest()
        groups.append(gallery.group())
        gallery.page.keyboard.press("1")
    gallery.press("z")
    gallery.wait_for_group()
    assert gallery.group() == groups[2]
    gallery.page.reload()
    gallery.find(".pick:not(.asking) .empty .title").wait_for()
    gallery.focus()
    gallery.page.keyboard.press("z")
    server.away = False
    until(lambda: len(server.taste.standing()) == 1, 20)
    gallery.page.wait_for_function(f"{UNSENT} === 0", timeout=20000)
    assert [pick.group_id for pick in server.taste.standing()] == groups[:1]
    gallery.page.wait_for_function(
        f"document.querySelector('d3po-gallery').session.current?.card.group_id === '{groups[1]}'"
    )


def test_a_server_in_trouble_is_asked_again(opened: Opened, server: GalleryServer) -> None:
    gallery = opened()
    gallery.focus()
    server.fail("/pick", 503, 2)
    gallery.press("1")
    gallery.find(".notice").wait_for()
    assert "It went wrong with 503." in gallery.find(".notice").inner_text()
    until(lambda: len(server.taste.standing()) == 1, 20)
    gallery.find(".notice").wait_for(state="detached")
    assert len(made(server)) == 1


def test_a_lost_answer_is_asked_for_again_without_a_second_pick(opened: Opened, server: GalleryServer) -> None:
    gallery = opened()
    gallery.focus()
    server.losing["/pick"] = 1
    gallery.press("1")
    until(lambda: server.requests[f"taste/{server.taste.id}/pick"] == 2, 15)
    gallery.page.wait_for_function(f"{UNSENT} === 0")
    assert len(made(server)) == 1


def test_a_refused_pick_is_shown_kept_and_can_be_sent_again(opened: Opened, server: GalleryServer) -> None:
    gallery = opened()
    gallery.focus()
    server.fail("/pick", 400)
    gallery.press("1")
    gallery.press("2")
    gallery.find(".notice").wait_for()
    gallery.reload()
    gallery.find(".notice").wait_for()
    assert len(server.taste.standing()) == 1
    gallery.find(".notice button").first.click()
    until(lambda: len(server.taste.standing()) == 2)


def test_two_tabs_get_different_groups_and_send_their_own(opened: Opened, server: GalleryServer) -> None:
    first = opened()
    second = Gallery(first.context, server, first.attributes)
    second.load()
    seen: list[str | None] = []
    for _ in range(5):
        for tab in (first, second):
            tab.page.bring_to_front()
            tab.focus()
            tab.rest()
            seen.append(tab.group())
            tab.page.keyboard.press("1")
    until(lambda: len(server.taste.standing()) == 10)
    assert len(set(seen)) == 10
    assert len(made(server)) == 10
    assert len({body["client"] for body in server.sent("pick")}) == 2


def test_leftovers_of_a_closed_tab_are_adopted(opened: Opened, server: GalleryServer) -> None:
    first = opened()
    first.focus()
    server.away = True
    first.press("1")
    first.press("2")
    second = Gallery(first.context, server, first.attributes)
    first.page.close()
    server.away = False
    second.load()
    until(lambda: len(server.taste.standing()) == 2, 20)
    second.page.wait_for_function(f"{UNSENT} === 0")
    assert len(made(server)) == 2


def store_as_before(gallery: Gallery, tab: str, problem: str = "", **body: Any) -> None:
    """Put a pick of the group in front into the browser's store, under the names that the page used at first.

    With a problem it is one that the server refused.
    """
    gallery.page.evaluate(
        """([tab, body, problem]) => {
            const { api, taste, current, path } = document.querySelector("d3po-gallery").session;
            const { group_id: group, reason: why, ...rest } = current.card;
            const pick = { ...body, client: tab, who: "", group, why };
            const [id, card] = [body.pick_id, { ...rest, group, why }];
            const to = { taste, base: api.base, path: `${path}/pick` };
            const entry = { id, kind: "pick", ...to, body: pick, card, counts: 1 };
            const refused = problem ? [{ ...entry, said: { what: problem, do: "", safe: "" } }] : [];
            const waiting = problem ? [] : [entry];
            localStorage.setItem(`d3po/outbox/${taste}/${tab}`, JSON.stringify({ waiting, refused }));
        }""",
        [tab, body, problem],
    )


@pytest.mark.parametrize("own", [True, False], ids=["own", "adopted"])
def test_a_pick_kept_under_the_first_names_is_sent(opened: Opened, server: GalleryServer, own: bool) -> None:
    gallery = opened()
    group = gallery.group()
    tab = gallery.page.evaluate("document.querySelector('d3po-gallery').session.tab.id") if own else "ab" * 16
    store_as_before(gallery, tab, pick_id="cd" * 16, kind="favourite", order=[1], shown=[1, 0], ms=1234)
    gallery.reload()
    gallery.page.wait_for_function(f"{UNSENT} === 0")
    assert made(server) == ["cd" * 16]
    (pick,) = server.taste.standing()
    assert (pick.group_id, pick.order, pick.shown_order) == (group, [1], [1, 0])
    assert (pick.decision_ms, pick.reason) == (1234, "random")
    gallery.focus()
    gallery.press("z")
    gallery.page.wait_for_function(
        f"document.querySelector('d3po-gallery').session.current?.card.group_id === '{group}'"
    )
    until(lambda: not server.taste.standing())


def test_a_refused_pick_kept_under_the_first_names_is_sent_again(opened: Opened, server: GalleryServer) -> None:
    gallery = opened()
    problem = "There is no space left."
    store_as_before(gallery, "ab" * 16, problem, pick_id="cd" * 16, kind="tie", order=[], shown=[0, 1], ms=50)
    gallery.reload()
    gallery.find(".notice").wait_for()
    assert problem in gallery.find(".notice").inner_text()
    gallery.find(".notice button").first.click()
    until(lambda: made(server) == ["cd" * 16])


def test_two_galleries_on_one_page_are_two(opened: Opened, server: GalleryServer) -> None:
    gallery = opened(groups=40)
    gallery.page.evaluate(
        """() => {
            const box = document.querySelector("#box");
            const one = box.firstElementChild;
            const other = one.cloneNode();
            one.style.height = other.style.height = "50%";
            box.append(other);
        }"""
    )
    gallery.page.wait_for_function("document.querySelectorAll('d3po-gallery')[1].session?.current")
    groups = gallery.page.evaluate(
        "[...document.querySelectorAll('d3po-gallery')].map((one) => one.session.current.card.group_id)"
    )
    assert len(set(groups)) == 2


def test_a_moved_element_goes_on_and_a_removed_one_lets_go(opened: Opened, server: GalleryServer) -> None:
    gallery = opened()
    gallery.page.evaluate(
        """() => {
            const gallery = document.querySelector("d3po-gallery");
            const box = document.createElement("div");
            box.style.height = "100%";
            document.body.append(box);
            window.session = gallery.session;
            box.append(gallery);
        }"""
    )
    gallery.rest()
    assert gallery.page.evaluate(
        "window.session === document.querySelector('d3po-gallery').session && !window.session.stopped"
    )
    gallery.page.evaluate("document.querySelector('d3po-gallery').remove()")
    gallery.page.wait_for_function("window.session.stopped")


def test_a_slow_server_shows_whole_groups_or_none(opened: Opened, server: GalleryServer) -> None:
    server.image_delay = 0.15
    gallery = opened(candidates=4, wait=False)
    counts = set()
    for _ in range(40):
        counts.add(gallery.find(".pick:not(.asking) .frame img").count())
        gallery.page.wait_for_timeout(20)
    gallery.wait_for_group()
    complete = gallery.find(".pick:not(.asking) .frame img").evaluate_all(
        "all => all.every((one) => one.complete && one.naturalWidth)"
    )
    assert counts <= {0, 4} and complete


def test_pictures_that_fail_are_fetched_again(opened: Opened, server: GalleryServer) -> None:
    server.fail("/1", 500, 2)
    gallery = opened()
    assert len(gallery.shown()) == 2


def test_what_cannot_be_seen_asks_for_no_pictures(opened: Opened, server: GalleryServer) -> None:
    gallery = opened()
    path, asked = f"taste/{server.taste.id}", server.requests
    gallery.page.locator("#box").evaluate("box => { box.style.display = 'none' }")
    gallery.page.wait_for_function("!document.querySelector('d3po-gallery').session.shown")
    gallery.rest()
    urls = addresses(gallery)
    before = asked[f"{path}/next"]
    gallery.page.evaluate("document.querySelector('d3po-gallery').session.pick('skipped', [], 1)")
    until(lambda: asked[f"{path}/pick"] == 1)
    gallery.page.evaluate("document.querySelector('d3po-gallery').session.hear()")
    gallery.page.wait_for_timeout(1000)
    assert [url for url in urls if "/state" in url] and not [url for url in urls if "client=" in url]
    assert asked[f"{path}/next"] == before
    gallery.page.locator("#box").evaluate("box => { box.style.display = '' }")
    until(lambda: asked[f"{path}/next"] > before, 2)


def test_a_gallery_that_was_never_seen_holds_no_group(opened: Opened, server: GalleryServer) -> None:
    gallery = opened(wait=False, style="display:none")
    gallery.page.wait_for_function("document.querySelector('d3po-gallery').session?.state")
    gallery.page.wait_for_timeout(500)
    assert not server.taste.leased() and not server.requests[f"taste/{server.taste.id}/next"]
    gallery.page.locator("d3po-gallery").evaluate("element => element.removeAttribute('style')")
    gallery.wait_for_group()


def test_a_page_behind_another_one_asks_for_no_pictures(opened: Opened, server: GalleryServer) -> None:
    gallery = opened()
    urls = addresses(gallery)
    gallery.page.evaluate(
        """() => {
          Object.defineProperty(document, "hidden", { value: true });
          document.dispatchEvent(new Event("visibilitychange"));
        }"""
    )
    gallery.page.wait_for_timeout(1000)
    assert urls and not [url for url in urls if "/next" in url or "client=" in url]
