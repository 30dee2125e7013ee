"""The blind check in the page, from its start to the decision, and what can be taken back of it."""

from __future__ import annotations

from collections.abc import Callable

from tests.hosts.browser.gallery_page import Gallery, until
from tests.hosts.browser.gallery_server import GalleryServer

Opened = Callable[..., Gallery]


def in_blind_check(opened: Opened, server: GalleryServer, of: int) -> Gallery:
    """Open the blind check of a second round, and wait for its first pair."""
    server.taste.add_round()
    server.taste.add_round()
    server.taste.prepare_blind(of=of)
    gallery = opened()
    gallery.view("teach")
    gallery.find("[data-action=blind]").click()
    gallery.find(".asking .frame").first.wait_for()
    return gallery


def test_the_blind_check_from_start_to_decision(opened: Opened, server: GalleryServer) -> None:
    server.taste.add_round()
    server.taste.add_round()
    server.taste.prepare_blind()
    gallery = opened()
    gallery.view("teach")
    gallery.find("[data-action=blind]").click()
    wanted = [*["taught"] * 4, "neither", *["taught"] * 2, "before", *["taught"] * 3, "before"]
    keys = [("1", "2"), ("ArrowLeft", "ArrowRight"), ("Numpad1", "Numpad2")]
    for done, answer in enumerate(wanted):
        gallery.find(".asking .frame").first.wait_for()
        assert gallery.find(".asking .bead.on").count() == done
        side = server.taste.side_of_taught(done)
        gallery.press("t" if answer == "neither" else keys[done % 3][side if answer == "taught" else 1 - side])
        until(lambda done=done: len(server.taste.answers()) == done + 1)  # type: ignore[misc]
    assert server.taste.answers() == wanted
    gallery.find(".result h2").wait_for()
    assert gallery.find(".result h2").inner_text() == "You preferred the taught model in 9 of 12 (2–9 by chance)"  # noqa: RUF001
    beads = gallery.find(".result .beads .bead").evaluate_all("all => all.map((one) => one.className.split(' ')[1])")
    assert beads == wanted
    gallery.find(".result select").first.select_option("0.4")
    gallery.find(".result summary").click()
    assert gallery.find(".result .strip:visible img").count() == 0
    gallery.find(".result select").first.select_option("0.7")
    assert "after-70" in gallery.find(".result .strip:visible img").last.get_attribute("src")
    gallery.find("[data-action=gentler]").click()
    until(lambda: server.actions.asked)
    assert server.actions.asked == [("decide", 2, "gentler", 0.7)]
    gallery.find(".result .lead + .actions .main").click()  # only there once the decision is taken
    gallery.wait_for_group()
    assert not server.taste.made()


def test_going_back_names_the_round(opened: Opened, server: GalleryServer) -> None:
    gallery = in_blind_check(opened, server, of=1)
    gallery.press("2")
    assert gallery.find(".result select").last.locator("option").all_inner_texts() == ["to round 1", "to the original"]
    gallery.find("[data-action=back]").click()
    until(lambda: server.actions.asked)
    assert server.actions.asked[0][:3] == ("decide", 1, "back")


def test_an_answer_and_a_decision_can_be_taken_back(opened: Opened, server: GalleryServer) -> None:
    gallery = in_blind_check(opened, server, of=3)
    undo = gallery.find('.asking [data-tool="bar.undo"]')
    assert undo.is_disabled()
    wrong = 1 - server.taste.side_of_taught(0)
    gallery.press(str(wrong + 1))
    until(lambda: server.taste.answers() == ["before"])
    gallery.find(".asking .frame").first.wait_for()
    gallery.press("z")
    until(lambda: server.taste.answers() == [])
    for index in range(3):
        gallery.find(".asking .frame").first.wait_for()
        gallery.page.wait_for_timeout(500)  # the server knows sooner than the page that the pair is another one
        gallery.press(str(server.taste.side_of_taught(index) + 1))
        until(lambda index=index: len(server.taste.answers()) == index + 1)
    assert server.taste.answers() == ["taught"] * 3
    gallery.find(".result h2").wait_for()
    gallery.find("[data-action=back]").click()
    gallery.find(".result [data-action=again]").click()
    gallery.find("[data-action=keep]").click()
    until(lambda: [asked[2] for asked in server.actions.asked] == ["back", "keep"])
    gallery.view("teach")
    gallery.find(".teaching [data-action=again]").click()
    gallery.find(".result [data-action=again]").wait_for()


def test_taking_back_drops_the_pair_that_is_being_fetched(opened: Opened, server: GalleryServer) -> None:
    server.taste.add_round()
    server.taste.add_round()
    server.taste.prepare_blind(of=3)
    gallery = opened()
    gallery.view("teach")
    server.image_delay = 1.5
    gallery.find("[data-action=blind]").click()
    stage = gallery.find(".asking .stage")
    gallery.find(".asking .frame").first.wait_for()
    gallery.press("1")
    until(lambda: len(server.sent("blind/next")) == 2)
    gallery.page.keyboard.press("z")
    until(lambda: len(server.sent("blind/undo")) == 1)
    gallery.find(".asking .frame").first.wait_for()
    gallery.page.wait_for_timeout(2000)
    assert stage.get_attribute("aria-label").startswith("Pair 1 of 3") and gallery.find(".asking .bead.on").count() == 0


def test_another_check_begins_at_its_first_pair(opened: Opened, server: GalleryServer) -> None:
    server.taste.add_round()
    server.taste.add_round()
    server.taste.prepare_blind(of=3)
    gallery = opened()
    gallery.view("teach")
    gallery.find("[data-action=blind]").click()
    for _ in range(2):
        gallery.find(".asking .frame").first.wait_for()
        gallery.press("1")
    gallery.find(".asking .stage[aria-label^='Pair 3 of 3']").wait_for()
    server.taste.prepare_blind(of=2)
    gallery.find(".asking .stage[aria-label^='Pair 1 of 2']").wait_for()
    assert gallery.find(".asking .bead.on").count() == 0
    server.taste.add_round()  # without a check: there is nothing to decide of the round before
    gallery.find(".asking .empty").filter(has_text="There is no blind check just now").wait_for()
    gallery.view("teach")
    gallery.find(".latest .round").wait_for()
    assert gallery.find("[data-action=blind]").is_hidden() and gallery.find("[data-action=again]").is_hidden()
