"""What the other views show and do, and that nothing a server or a person writes becomes anything but text."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from d3po_core.errors import D3POError
from d3po_core.picks import Pick
from d3po_core.run import RoundSummary
from tests.hosts.browser.gallery_page import Gallery, until
from tests.hosts.browser.gallery_server import GalleryServer

Opened = Callable[..., Gallery]


HOSTILE = '<img src=x onerror="window.hurt=1"><script>window.hurt=1</script>{n}'


def test_progress_and_time_left_and_a_pause_at_the_milestone(opened: Opened, server: GalleryServer) -> None:
    server.taste.picked(12)
    server.taste.draw(20, size=(64, 64))
    gallery = opened()
    gallery.focus()
    assert gallery.find(".foot .progress").inner_text() == "12 of 16"
    for _ in range(3):
        gallery.press("1")
    assert re.fullmatch(r"15 of 16 · about \d+ s", gallery.find(".foot .progress").inner_text())
    assert gallery.find(".foot .rest").is_hidden() and gallery.find(".foot .first button").is_hidden()
    gallery.press("t")  # says nothing of what is better
    gallery.rest()
    assert gallery.find(".foot .progress").inner_text().startswith("15 of 16")
    gallery.press("1")
    assert "16 picks." in gallery.find(".foot .rest").inner_text()
    gallery.press("1")
    assert gallery.find(".foot .rest").is_hidden()
    until(lambda: len(server.taste.standing()) == 18)
    gallery.find(".foot .first button").click()  # as long as there is something to teach
    assert gallery.find(".teaching").is_visible()


def test_waiting_says_for_what_and_how_long_and_ends_by_itself(opened: Opened, server: GalleryServer) -> None:
    server.actions.busy("drawing", 3, 8, 41)
    gallery = opened(groups=1)
    gallery.focus()
    gallery.press("1")
    gallery.find(".pick .empty .work .words").first.wait_for()
    assert gallery.find(".pick .empty .work .words").first.inner_text() == "Drawing 3 of 8 · about 40 s left"
    server.taste.draw(1, size=(64, 64))
    gallery.wait_for_group()
    gallery.press("2")
    until(lambda: len(server.taste.standing()) == 2)


def test_drawing_more_is_offered_where_it_can_be_done(opened: Opened, server: GalleryServer) -> None:
    server.actions.possible.append("draw")
    gallery = opened(groups=1)
    gallery.focus()
    gallery.press("1")
    gallery.find(".pick .empty button").first.click()
    gallery.wait_for_group()
    assert server.actions.asked[0][0] == "draw"


def test_hostile_words_are_shown_as_words(opened: Opened, server: GalleryServer) -> None:
    server.taste.run.rename(HOSTILE)
    server.taste.draw(12, prompt=HOSTILE, size=(64, 64))
    server.taste.add_round(reason=HOSTILE, lora=HOSTILE.replace("/", ""), drift="high")
    server.actions.trouble = D3POError(HOSTILE, HOSTILE, HOSTILE)
    server.actions.busy("teaching", 1, 2, 5, HOSTILE)
    gallery = opened(who=HOSTILE)
    gallery.focus()
    assert gallery.find(".pick:not(.asking) .prompt .words").inner_text() == HOSTILE
    assert gallery.find("h1").first.inner_text() == HOSTILE
    gallery.press("1")
    until(lambda: len(server.taste.standing()) == 1)
    gallery.view("teach")
    gallery.find(".round").first.wait_for()
    gallery.view("history")
    gallery.find(".pickcard").first.wait_for()
    assert gallery.find(".pickcard .caption").first.inner_text() == HOSTILE
    assert gallery.page.evaluate("window.hurt") is None
    scripts = "document.querySelector('d3po-gallery').shadowRoot.querySelectorAll('script, [onerror]').length"
    assert gallery.page.evaluate(scripts) == 0


def test_teaching_is_told_in_words_and_details_stay_folded(opened: Opened, server: GalleryServer) -> None:
    server.taste.add_round()
    server.taste.add_round()
    gallery = opened()
    gallery.view("teach")
    latest = gallery.find(".latest .round")
    assert "Predicts 81% of your hidden picks (50% by chance)" in latest.inner_text()
    assert "Drift from the original: medium" in latest.inner_text()
    assert latest.locator(".strip img").count() == 2
    assert latest.locator("dl").is_hidden()
    latest.locator("summary").click()
    assert "KL from the base" in latest.locator("dl").inner_text()
    assert latest.locator("svg.chart circle").count() == 3
    assert gallery.find(".earlier .round").count() == 1


def test_a_round_by_a_reward_is_told_as_one(opened: Opened, server: GalleryServer) -> None:
    server.taste.add_round(reward="warmth", figures={"reward_before": 0.125, "reward": 0.5, "kl_base": 3.0})
    server.taste.begin_round("warmth")
    gallery = opened()
    gallery.view("teach")
    lead = gallery.find(".teaching .lead").filter(has_text="Round 2 was stopped while it learnt from a reward: warmth")
    lead.wait_for()
    assert "It learns from a reward: warmth." in gallery.find(".latest .round").inner_text()
    gallery.find(".earlier summary").first.click()
    earlier = gallery.find(".earlier .round").inner_text()
    assert "Its reward, warmth, went from 0.125 to 0.5." in earlier and "too few picks" not in earlier


def test_teach_and_stop(opened: Opened, server: GalleryServer) -> None:
    gallery = opened()
    gallery.focus()
    server.delay = 0.15
    gallery.press("1")
    gallery.view("teach")
    gallery.find("[data-action=teach]").click()
    until(lambda: server.actions.asked)
    assert server.actions.asked[0][0] == "teach" and len(server.taste.standing()) == 1
    server.delay = 0
    server.actions.possible = ["stop"]
    server.actions.busy("teaching", 1, 8, 190)
    gallery.find("[data-action=stop]").click()
    until(lambda: server.actions.asked[-1][0] == "stop")
    assert "Teaching: 1 of 8 · about 3 min left" in gallery.find(".teaching .work").inner_text()


def test_what_waits_is_told_only_while_it_waits(opened: Opened, server: GalleryServer) -> None:
    """As where another taste is being taught first: nothing is being done for this one."""
    server.taste.picked(16)
    server.taste.draw(4, size=(64, 64))
    server.actions.possible = ["draw"]
    gallery = opened()
    gallery.view("teach")
    lead = gallery.find(".teaching .lead").filter(has_text="16 picks to learn from.")
    lead.wait_for()
    assert "when this is done" not in lead.inner_text()
    server.actions.busy("drawing", 1, 8, 5)
    lead.filter(has_text="Teaching goes on when this is done.").wait_for()


def test_stopping_is_said_at_once(opened: Opened, server: GalleryServer) -> None:
    gallery = opened()
    gallery.view("teach")
    server.actions.possible = ["stop"]
    server.actions.busy("stopping", 0, 0, 0)
    gallery.find(".teaching .work").filter(has_text="Stopping…").wait_for()
    assert not gallery.find("[data-action=stop]").is_visible() and not gallery.find("[data-action=teach]").is_visible()


@pytest.mark.parametrize("rounds", [1, 2])
def test_one_press_goes_on_without_a_lora_file(
    opened: Opened, server: GalleryServer, rounds: int, tmp_path: Path
) -> None:
    run = server.taste.run
    for _ in range(rounds):
        server.taste.add_round()
    path = run.rounds.lora(str(rounds))
    path.write_bytes(b"no LoRA")
    gallery = opened()
    notice = gallery.find(".notice").filter(has_text=f"The LoRA of round {rounds} is damaged")
    notice.wait_for()
    words = "Go on from round 1" if rounds == 2 else "Go on from the original"
    assert "All picks, pictures and other rounds are saved." in notice.inner_text()
    gallery.page.screenshot(path=str(tmp_path / "lost.png"))
    notice.get_by_role("button", name=words, exact=True).click()
    notice.wait_for(state="detached")
    assert run.rounds.current_policy() == ("base" if rounds == 1 else run.rounds.all()[0].lora_hash)
    assert path.read_bytes() == b"no LoRA" and len(run.rounds.all()) == rounds


def test_typing_in_a_field_is_typing(opened: Opened, server: GalleryServer) -> None:
    gallery = opened()
    gallery.view("history")
    gallery.find(".filters input").focus()
    gallery.page.keyboard.type("1 tx zh?")
    assert gallery.find(".filters input").input_value() == "1 tx zh?"
    assert gallery.heard() == [] and not server.taste.made()


def test_a_name_is_remembered_and_goes_with_each_pick(opened: Opened, server: GalleryServer) -> None:
    gallery = opened()
    gallery.find("[data-head=person]").click()
    gallery.find("#your-name").fill("Zoë 李")
    gallery.find("#taste-name").fill("Hills at dusk")
    gallery.find("#taste-name").press("Enter")
    gallery.find("[data-head=person] .name").wait_for()
    gallery.wait_for_group()
    gallery.focus()
    gallery.press("1")
    until(lambda: [pick.who for pick in server.taste.standing()] == ["Zoë 李"])
    assert server.taste.run.name == "Hills at dusk"
    gallery.reload()
    gallery.focus()
    gallery.press("1")
    until(lambda: [pick.who for pick in server.taste.standing()] == ["Zoë 李"] * 2)


def test_without_a_taste_one_is_chosen(opened: Opened, server: GalleryServer) -> None:
    gallery = opened(taste="", wait=False)
    gallery.find(".taste").click()
    gallery.wait_for_group()


def test_a_taste_that_is_gone_says_so(opened: Opened, server: GalleryServer) -> None:
    server.fail("/next", 404, 99)
    gallery = opened(wait=False)
    gallery.find(".pick:not(.asking) .empty .title").wait_for()
    assert gallery.find(".pick:not(.asking) .empty .title").inner_text() == "It went wrong with 404."


def test_changes_are_spoken(opened: Opened, server: GalleryServer) -> None:
    gallery = opened()
    gallery.focus()
    gallery.press("2")
    said = gallery.find(".voice[aria-live=polite]").inner_text()
    assert re.fullmatch(r"Picked 2\. Next: .+", said)
    stage = gallery.find(".pick:not(.asking) .stage")
    assert stage.get_attribute("role") == "listbox" and "Choose one of 2 pictures" in str(
        stage.get_attribute("aria-label")
    )


WIDTHS = (1101, 1359, 1499, 1501, 1900)


@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.parametrize("width", WIDTHS)
def test_the_invitation_to_teach_stays_clear_of_the_rest(
    opened: Opened, server: GalleryServer, width: int, lang: str
) -> None:
    server.taste.picked(15, 4)
    server.taste.draw(4, 4, size=(64, 64))
    gallery = opened(width, 800, lang=lang)
    gallery.focus()
    gallery.press("1")
    gallery.find(".foot .first button").wait_for()
    for _ in range(2):  # the words of the milestone, then those of progress
        first, bar, track = (gallery.find(f".pick:not(.asking) {name}").bounding_box() for name in PARTS)
        beside, below = first["x"] + first["width"] <= bar["x"] + 1, first["y"] >= bar["y"] + bar["height"] - 1
        assert beside or below
        assert first["y"] >= track["y"] + track["height"] and first["y"] + first["height"] <= 800
        inside = gallery.find(".foot .first").evaluate("(one) => one.scrollWidth <= one.clientWidth + 1")
        assert inside
        gallery.press("1")
        gallery.rest()


PARTS = (".foot .first", ".bar", ".foot .track")


@pytest.mark.parametrize(
    ("favourites", "work", "told"),
    [
        (0, None, "16 are enough to begin."),
        (3, None, "3 of 16 picks that say which picture is better. 13 more, and teaching can begin."),
        (15, "drawing", "15 of 16 picks that say which picture is better. 1 more, and teaching can begin."),
        (20, "loading", "20 picks to learn from. Teaching goes on when this is done."),
        (20, "checking", "Your model is learning."),
        (20, "blind", "Your model has learnt. Pictures before and after are being drawn."),
    ],
)
def test_teach_says_why_it_waits(
    opened: Opened, server: GalleryServer, favourites: int, work: str | None, told: str
) -> None:
    server.taste.picked(favourites)
    for group_id in server.taste.draw(5, size=(64, 64)):
        server.taste.pick(group_id, Pick("tie"))
    server.taste.draw(3, size=(64, 64))
    server.actions.possible = []
    if work:
        server.actions.busy(work, 4, 10, 20)
    gallery = opened()
    gallery.view("teach")
    gallery.find(".teaching .lead").get_by_text(told).first.wait_for()
    if work == "checking":
        assert "Looking at the pictures: 4 of 10 groups" in gallery.find(".teaching .work .words").inner_text()
        assert gallery.find(".teaching .fill").first.evaluate("(one) => one.style.inlineSize") == "40%"
        assert not gallery.find(".teaching [data-action=teach]").is_visible()


def test_a_round_that_taught_nothing_says_so_in_every_sentence(opened: Opened, server: GalleryServer) -> None:
    rounds = server.taste.run.rounds
    number = rounds.begin({})
    summary = RoundSummary(strength=0.0, guessed=8.28, guessed_of=18, reason="The model was left as it was.")
    rounds.finish(number, rounds.folder_of(number) / "hills-1.safetensors", f"{number:064x}", summary)
    gallery = opened()
    gallery.view("teach")
    gallery.find(".round").wait_for()
    words = gallery.find(".round").inner_text()
    assert "Nothing was taught. This file is as before the round" in words and "Saved as" not in words
    assert "Predicts 46% of your hidden picks" in words and "Of 18 comparisons" in words and "8 of 18" not in words
    assert "best at strength" not in words


@pytest.mark.parametrize("typing", [False, True])
def test_keys_work_before_any_click(opened: Opened, server: GalleryServer, typing: bool) -> None:
    gallery = opened(autofocus="")
    gallery.press("1")
    until(lambda: len(server.taste.standing()) == 1)
    gallery.page.evaluate("document.querySelector('#box').hidden = true")  # another tab of the host is shown
    gallery.rest()
    gallery.page.evaluate("document.activeElement.blur()")
    if typing:
        gallery.page.evaluate("document.querySelector('#outside').focus()")
    gallery.page.evaluate("document.querySelector('#box').hidden = false")
    gallery.rest()
    gallery.press("2")
    gallery.rest()
    assert len(server.taste.standing()) == (1 if typing else 2)
