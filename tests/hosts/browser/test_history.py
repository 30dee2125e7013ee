"""What the history shows, corrects and deletes."""

from __future__ import annotations

from collections.abc import Callable

from d3po_core.picks import Pick
from tests.hosts.browser.gallery_page import Gallery, until
from tests.hosts.browser.gallery_server import GalleryServer

Opened = Callable[..., Gallery]


def test_history_pages_filters_corrects_and_deletes(opened: Opened, server: GalleryServer) -> None:
    groups = server.taste.picked(100, who="Anna")
    server.taste.picked(5, who="Ben")
    for number, group_id in enumerate(groups[10:19]):
        server.taste.pick(group_id, Pick("favourite", (0 if number < 7 else 1,)), "Anna", "repeat")
    server.taste.pick(groups[3], Pick("tie"), "Anna")
    server.taste.draw(4, size=(64, 64))
    gallery = opened(who="Cleo")
    assert "same 7" not in gallery.find(".pick").first.inner_text()
    gallery.view("history")
    gallery.page.wait_for_function(
        "document.querySelector('d3po-gallery').shadowRoot.querySelectorAll('.pickcard').length >= 60"
    )
    assert "you chose the same 7 of 9 times" in gallery.find(".history").inner_text()
    gallery.find(".history .end").scroll_into_view_if_needed()
    gallery.page.wait_for_function(
        "document.querySelector('d3po-gallery').shadowRoot.querySelectorAll('.pickcard').length === 105"
    )
    gallery.find('.filters select[aria-label="Which kind of pick"]').select_option("tie")
    gallery.page.wait_for_function(
        "document.querySelector('d3po-gallery').shadowRoot.querySelectorAll('.pickcard').length === 1"
    )
    gallery.find(".pickcard .pictures button").nth(1).click()
    gallery.find(".sheet .large").wait_for()  # to be looked at, and nothing else yet
    assert server.taste.made()[-1].kind == "tie"
    gallery.find(".sheet [data-action=correct]").click()
    until(lambda: server.taste.made()[-1].reason == "correction")
    corrected = server.taste.made()[-1]
    assert (corrected.group_id, corrected.kind, corrected.order, corrected.who) == (groups[3], "favourite", [1], "Anna")
    assert gallery.find(".pickcard .pictures button").nth(1).get_attribute("aria-pressed") == "true"
    gallery.find('.pickcard [aria-label="Delete this pick"]').click()
    assert "This pick is deleted." in gallery.find(".pickcard").inner_text()
    gallery.find('.filters select[aria-label="Which kind of pick"]').select_option("")
    until(lambda: len(server.taste.standing()) == 104)
    gallery.find('.filters select[aria-label="Whose picks"]').select_option("Ben")
    gallery.page.wait_for_function(
        "document.querySelector('d3po-gallery').shadowRoot.querySelectorAll('.pickcard').length === 5"
    )
    gallery.find(".filters input").fill("northern")
    gallery.page.wait_for_function(
        "document.querySelector('d3po-gallery').shadowRoot.querySelectorAll('.pickcard').length < 5"
    )
    links = gallery.find(".exports a").evaluate_all("all => all.map((one) => one.getAttribute('href'))")
    assert links == [f"/d3po/taste/{server.taste.id}/export?form={form}" for form in ("jsonl", "d3po")]


def test_history_shows_which_pictures_were_liked(opened: Opened, server: GalleryServer) -> None:
    """Scores come with imported pictures, which may be alone in their group."""
    for group_id, scores in zip(server.taste.draw(2, size=(64, 64)), ((1, -1), (-1, 0)), strict=True):
        server.taste.pick(group_id, Pick("scores", (), scores), "Anna", "")
    server.taste.draw(4, size=(64, 64))
    gallery = opened(who="Cleo")
    gallery.view("history")
    gallery.page.wait_for_function(
        "document.querySelector('d3po-gallery').shadowRoot.querySelectorAll('.pickcard').length === 2"
    )
    cards = [gallery.find(".pickcard").nth(at).locator(".pictures button") for at in (1, 0)]  # the newest is first
    pressed = [[card.nth(at).get_attribute("aria-pressed") for at in (0, 1)] for card in cards]
    assert pressed == [["true", "false"], ["false", "false"]]
    cards[1].nth(1).click()
    gallery.find(".sheet [data-action=correct]").click()
    until(lambda: server.taste.made()[-1].reason == "correction")
    assert cards[1].nth(1).get_attribute("aria-pressed") == "true"


def test_a_deletion_in_the_history_can_be_taken_back(opened: Opened, server: GalleryServer) -> None:
    first, second, third = server.taste.picked(3)
    server.taste.draw(4, size=(64, 64))
    gallery = opened()
    gallery.view("history")
    cards = gallery.find(".pickcard")
    cards.nth(2).wait_for()
    bins = gallery.find('[aria-label="Delete this pick"]')
    bins.first.click()
    gallery.find("[data-action=restore]").click()
    bins.first.click()
    gallery.page.keyboard.press("z")
    assert bins.count() == 3 and not server.sent("remove")
    bins.first.click()
    bins.first.click()  # of the next one: the first stays deleted
    until(lambda: {pick.group_id for pick in server.taste.standing()} == {first, second})
    gallery.reload()  # the page goes with the second deletion still to be sent
    until(lambda: {pick.group_id for pick in server.taste.standing()} == {first})
    assert third not in {pick.group_id for pick in server.taste.standing()}


def test_a_deletion_in_the_history_is_sent_after_some_seconds(opened: Opened, server: GalleryServer) -> None:
    server.taste.picked(2)
    server.taste.draw(4, size=(64, 64))
    gallery = opened()
    gallery.view("history")
    bins = gallery.find('[aria-label="Delete this pick"]')
    bins.first.click()
    gallery.find("[data-action=restore]").click()
    bins.first.click()
    gallery.page.wait_for_timeout(7000)
    assert gallery.find("[data-action=restore]").is_visible() and not server.sent("remove")
    until(lambda: len(server.taste.standing()) == 1)
    assert gallery.find(".pickcard").count() == 1 and gallery.find(".history:focus").count() == 1


def test_a_page_that_comes_back_is_left_twice(opened: Opened, server: GalleryServer) -> None:
    server.taste.picked(3)
    server.taste.draw(4, size=(64, 64))
    gallery = opened()
    gallery.view("history")
    for left in (2, 1):
        gallery.find('[aria-label="Delete this pick"]').first.click()
        gallery.page.evaluate("dispatchEvent(new PageTransitionEvent('pagehide', { persisted: true }))")
        until(lambda left=left: len(server.taste.standing()) == left, 4)  # type: ignore[misc]


def test_a_picture_of_the_history_is_looked_at_by_keys(opened: Opened, server: GalleryServer) -> None:
    server.taste.picked(1)
    server.taste.draw(4, size=(64, 64))
    gallery = opened()
    gallery.view("history")
    picture = gallery.find(".pickcard .pictures button").nth(1)
    picture.focus()
    gallery.page.keyboard.press("Enter")
    large = gallery.find(".sheet .large")
    large.wait_for()
    assert large.bounding_box()["width"] > picture.bounding_box()["width"] * 1.5
    gallery.page.keyboard.press("Escape")
    assert not gallery.find(".sheet").count()
    assert gallery.page.evaluate("document.querySelector('d3po-gallery').shadowRoot.activeElement.className") == ""
    assert picture.evaluate("(one) => one.getRootNode().activeElement === one")
    assert not server.sent("pick")


def test_the_history_says_how_much_people_agree(opened: Opened, server: GalleryServer) -> None:
    groups = server.taste.picked(12, 4, who="Anna")
    for number, group_id in enumerate(groups[:9]):
        server.taste.pick(group_id, Pick("favourite", (0 if number < 6 else 1,)), "Ben", "random")
        if number < 3:
            server.taste.pick(group_id, Pick("favourite", (0 if number < 2 else 1,)), "Ben", "repeat")
    server.taste.draw(4, size=(64, 64))
    gallery = opened(who="Cleo")
    gallery.view("history")
    fold = gallery.find(".agreement details")
    fold.wait_for()
    title = "In the 9 groups that several people judged, two of them agree 67% of the time (by chance 25%)"
    assert fold.locator("summary").inner_text() == title
    assert not fold.locator("li").first.is_visible()
    fold.locator("summary").click()
    share = "agrees with the others 67% of the time, in 9 groups (by chance 25%)"
    assert fold.locator("li").all_inner_texts() == [
        f"Anna {share}",
        f"Ben {share}; when pictures came back with sides swapped, the same in 2 of 3 times",
    ]
    assert "Krippendorff's alpha is" in fold.locator(".hint").inner_text()
    gallery.find('.filters select[aria-label="Whose picks"]').select_option("Ben")
    until(lambda: gallery.find(".pickcard").count() == 9)
    assert gallery.find(".agreement details").count() == 1


def test_one_person_alone_is_told_of_themselves(opened: Opened, server: GalleryServer) -> None:
    groups = server.taste.picked(4, who="Anna")
    server.taste.picked(2, who="Ben")
    server.taste.pick(groups[0], Pick("favourite", (0,)), "Anna", "repeat")
    server.taste.draw(4, size=(64, 64))
    gallery = opened(who="Anna")
    gallery.view("history")
    until(lambda: gallery.find(".pickcard").count() == 6)
    assert "you chose the same" in gallery.find(".agreement").inner_text()
    assert gallery.find(".agreement details").count() == 0
