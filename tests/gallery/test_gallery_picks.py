"""Picking through the gallery: who is shown what, and what is on the disk afterwards."""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from d3po_core.run import leases
from d3po_core.run.run import Run
from tests.gallery.asking import Page, shelf_with
from tests.run_helpers import put_group


def test_a_page_gets_groups_in_the_order_drawn_and_each_once(tmp_path: Path) -> None:
    page = Page(*shelf_with(tmp_path))
    first = page.next(3)
    assert [card["number"] for card in first] == [0, 1, 2]
    again = page.next(3, tuple(card["group_id"] for card in first))
    assert [card["number"] for card in again] == [3, 4, 5]
    assert page.next(1, tuple(card["group_id"] for card in first + again)) == []


def test_a_reloaded_page_gets_back_what_it_had(tmp_path: Path) -> None:
    page = Page(*shelf_with(tmp_path))
    before = page.next(2)
    assert page.next(2) == before


def test_every_candidate_is_shown_on_every_side(tmp_path: Path) -> None:
    page = Page(*shelf_with(tmp_path, groups=60, candidates=3))
    orders = {tuple(image["candidate"] for image in card["images"]) for _ in range(8) for card in page.next(8)}
    for card in page.next(8):
        page.pick(card)
    while cards := page.next(8):
        orders |= {tuple(image["candidate"] for image in card["images"]) for card in cards}
        for card in cards:
            page.pick(card)
    assert len(orders) == 6


def test_several_pages_get_different_groups(tmp_path: Path) -> None:
    shelf, run = shelf_with(tmp_path)
    pages = [Page(shelf, run, who) for who in ("", "Ada", "Ada")]
    shown = [card["group_id"] for page in pages for card in page.next(2)]
    assert len(set(shown)) == 6


def test_the_groups_of_a_page_that_went_away_are_shown_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf, run = shelf_with(tmp_path, groups=1)
    gone, other = Page(shelf, run), Page(shelf, run)
    (card,) = gone.next()
    assert other.next() == []
    now = time.time()
    monkeypatch.setattr(leases.time, "time", lambda: now + leases.LEASE_SECONDS + 1)
    assert [card["number"] for card in other.next()] == [0]
    late, there = gone.pick(card), other.pick(card)  # who comes back late has picked all the same
    assert late["new"] and there["new"]
    assert len(run.picks.history()) == 2


def test_a_pick_is_on_the_disk_before_it_is_acknowledged_and_only_once(tmp_path: Path) -> None:
    page = Page(*shelf_with(tmp_path))
    (card,) = page.next()
    pick_id = uuid.uuid4().hex
    answers = [page.pick(card, pick_id=pick_id) for _ in range(3)]
    assert [answer["new"] for answer in answers] == [True, False, False]
    (stored,) = Run.open(page.run.folder).picks.standing()
    shown = [image["candidate"] for image in card["images"]]
    assert (stored.pick.kind, stored.pick.order) == ("favourite", (shown[0],))
    assert (stored.shown_order, stored.decision_ms, stored.reason) == (tuple(shown), 900, "random")
    counted = {"yours": 1, "all": 1, "usable": 1, "untaught": 1, "needed": 16, "milestone": 16, "previous": 0}
    assert answers[0]["state"]["picks"] == counted


@pytest.mark.parametrize("kind", ["tie", "all_bad", "skipped", "ranking"])
def test_other_judgements(tmp_path: Path, kind: str) -> None:
    page = Page(*shelf_with(tmp_path, candidates=3))
    (card,) = page.next()
    order = [2, 0] if kind == "ranking" else []
    answer = page.pick(card, kind, order=order)
    (stored,) = page.run.picks.standing()
    assert (stored.pick.kind, list(stored.pick.order)) == (kind, order)
    assert answer["state"]["picks"]["all"] == (kind != "skipped")
    assert answer["state"]["picks"]["usable"] == (kind == "ranking")
    assert card["group_id"] not in [card["group_id"] for card in page.next(6)]


def test_undo_goes_back_any_number_of_times_even_on_another_page(tmp_path: Path) -> None:
    shelf, run = shelf_with(tmp_path)
    page, reloaded = Page(shelf, run, "Ada"), Page(shelf, run, "Ada")
    cards = page.next(4)
    for card in cards:
        page.pick(card)
    for card in reversed(cards):
        _, state = reloaded.get("state", who="Ada")
        _, answer = reloaded.post("undo", pick_id=state["last"]["pick_id"])
        again = {name: answer["card"][name] for name in ("group_id", "images", "prompt")}
        assert again == {name: card[name] for name in again}
        assert answer["card"]["was"]["order"] == [card["images"][0]["candidate"]]
    assert answer["state"]["last"] is None and run.picks.standing() == []
    assert len(run.picks.history()) == 4
    _, twice = reloaded.post("undo", pick_id=state["last"]["pick_id"])
    assert twice["state"]["revision"] == answer["state"]["revision"]


def test_candidates_that_look_alike_are_left_out_and_counted(tmp_path: Path) -> None:
    shelf, run = shelf_with(tmp_path, groups=0)
    put_group(run, candidates=2, near=(1,))
    put_group(run, candidates=4, near=(2,))
    page = Page(shelf, run)
    (card,) = page.next(5)
    assert sorted(image["candidate"] for image in card["images"]) == [0, 1, 3]
    _, state = page.get("state")
    assert state["groups"] == {"drawn": 1, "waiting": 0, "near": 1}


def test_now_and_then_a_group_comes_back_with_sides_swapped_and_is_not_trained_on(tmp_path: Path) -> None:
    shelf, run = shelf_with(tmp_path, groups=60)
    page, shown, repeats = Page(shelf, run), {}, []
    for _ in range(50):
        (card,) = page.next()
        order = [image["candidate"] for image in card["images"]]
        if card["reason"] == "repeat":
            assert order == shown[card["group_id"]][::-1]
            repeats.append(card["group_id"])
            page.pick(card, order=[shown[card["group_id"]][0 if len(repeats) < 3 else 1]])
        else:
            shown[card["group_id"]] = order
            page.pick(card)
    assert 2 <= len(repeats) <= 3 and len(set(repeats)) == len(repeats)
    assert len(run.picks.standing()) == 50 - len(repeats)
    assert run.history.consistency() == (2, len(repeats))
    _, history = page.get("history")
    assert history["total"] == 50 - len(repeats) and [each["of"] for each in history["consistency"]] == [len(repeats)]
    _, answer = page.post("undo", pick_id=run.picks.last().pick_id)
    assert answer["card"]["group_id"] in shown


def test_history_filters_corrects_and_removes(tmp_path: Path) -> None:
    shelf, run = shelf_with(tmp_path, groups=5)
    ada, bob = Page(shelf, run, "Ada"), Page(shelf, run, "Bob")
    for page, kind in ((ada, "favourite"), (ada, "tie"), (bob, "favourite")):
        page.pick(page.next()[0], kind)
    _, whole = ada.get("history")
    assert [item["who"] for item in whole["items"]] == ["Bob", "Ada", "Ada"] and whole["people"] == ["Ada", "Bob"]
    assert ada.get("history", kind="tie")[1]["total"] == 1
    assert ada.get("history", by="Bob")[1]["total"] == 1
    assert ada.get("history", text="RED flow")[1]["total"] == 3 and ada.get("history", text="blue")[1]["total"] == 0
    assert ada.get("history", round="1")[1]["total"] == 3 and ada.get("history", round="2")[1]["total"] == 0
    assert [item["who"] for item in ada.get("history", offset="1", limit="1")[1]["items"]] == ["Ada"]

    first = whole["items"][2]
    other = 1 - first["order"][0]
    ada.post(
        "pick",
        pick_id=uuid.uuid4().hex,
        group_id=first["group_id"],
        kind="favourite",
        order=[other],
        reason="correction",
    )
    (corrected,) = [p for p in run.picks.standing() if p.group_id == first["group_id"]]
    assert corrected.pick.order == (other,)
    _, after = ada.post("remove", pick_id=whole["items"][0]["pick_id"])
    assert after["state"]["picks"]["all"] == 2
    _, after = ada.post("remove", pick_id=corrected.pick_id)
    assert after["state"]["picks"]["all"] == 1  # what was corrected does not come back
    assert ada.post("remove", pick_id="0" * 32)[0] == 404 == ada.post("undo", pick_id="0" * 32)[0]


def test_picks_can_be_taken_away_as_files(tmp_path: Path) -> None:
    page = Page(*shelf_with(tmp_path, groups=2))
    card = page.next()[0]
    page.pick(card)
    for form, said in (("jsonl", b'"prompt": "a red flower"'), ("d3po", b"[0, 0]")):
        response = page.send("GET", f"taste/{page.run.run_id}/export", query={"form": form})
        assert response.status == 200 and said in response.body
        assert response.headers["Content-Disposition"].startswith("attachment")


def flag(page: Page, card: dict[str, Any], candidate: int, kind: str = "defective", **values: Any) -> dict[str, Any]:
    shown = [image["candidate"] for image in card["images"]]
    given = {"pick_id": uuid.uuid4().hex, "shown_order": shown, "reason": card["reason"], "on": True, **values}
    status, answer = page.post("flag", group_id=card["group_id"], candidate=candidate, kind=kind, **given)
    assert status == 200, answer
    return answer


def test_a_flag_is_on_the_disk_once_and_the_group_stays_in_front(tmp_path: Path) -> None:
    page = Page(*shelf_with(tmp_path, candidates=3), who="Ada")
    (card,) = page.next()
    assert card["flags"] == []
    pick_id = uuid.uuid4().hex
    answers = [flag(page, card, 1, pick_id=pick_id) for _ in range(2)]
    assert [answer["new"] for answer in answers] == [True, False]
    (stored,) = Run.open(page.run.folder).flags.standing()
    assert (stored.candidate, stored.kind, stored.who, stored.pick_id) == (1, "defective", "Ada", pick_id)
    assert answers[0]["state"]["picks"] | {"milestone": 0} == {
        **{"yours": 1, "all": 1, "usable": 1, "untaught": 1, "needed": 16, "milestone": 0, "previous": 0},
    }
    assert answers[0]["state"]["last"] == {"pick_id": pick_id, "group_id": card["group_id"], "kind": "defective"}
    (again,) = page.next()  # a reloaded page
    assert again == {**card, "flags": [{"candidate": 1, "kind": "defective"}]}
    other = Page(page.shelf, page.run, "Bob")
    assert card["group_id"] not in [one["group_id"] for one in other.next(2)]
    flag(page, card, 1, on=False)
    assert page.next()[0]["flags"] == []


def test_undo_of_a_flag_brings_the_group_back_as_it_was_shown(tmp_path: Path) -> None:
    page = Page(*shelf_with(tmp_path, candidates=4))
    (card,) = page.next()
    flag(page, card, 1)
    answer = flag(page, card, 3, "unsafe")
    _, answer = page.post("undo", pick_id=answer["state"]["last"]["pick_id"])
    assert answer["card"]["images"] == card["images"] and answer["card"]["was"] is None
    assert answer["card"]["flags"] == [{"candidate": 1, "kind": "defective"}]
    page.pick(card, order=[1])
    assert page.run.flags.standing() == []
    _, answer = page.post("undo", pick_id=page.get("state")[1]["last"]["pick_id"])
    assert answer["card"]["flags"] == [{"candidate": 1, "kind": "defective"}] and answer["card"]["was"]["order"] == [1]


def test_the_history_tells_and_corrects_flags(tmp_path: Path) -> None:
    page = Page(*shelf_with(tmp_path, candidates=3))
    first, second = page.next(2)
    page.pick(first, order=[0])
    flag(page, first, 2, "unsafe", reason="correction")
    flag(page, second, 1)
    _, history = page.get("history")
    assert [(item["kind"], item["flags"]) for item in history["items"]] == [
        ("flagged", [{"candidate": 1, "kind": "defective"}]),
        ("favourite", [{"candidate": 2, "kind": "unsafe"}]),
    ]
    assert page.get("history", kind="unsafe")[1]["total"] == page.get("history", kind="favourite")[1]["total"] == 1
    flag(page, second, 1, on=False, reason="correction")
    assert page.get("history")[1]["total"] == 1
    page.post("remove", pick_id=history["items"][1]["pick_id"])
    assert page.get("history")[1]["total"] == 0 and page.run.flags.standing() == []


def test_a_repeat_comes_without_its_flags_and_flags_make_no_repeat(tmp_path: Path) -> None:
    shelf, run = shelf_with(tmp_path, groups=40, candidates=3)
    page, flagged = Page(shelf, run), set()
    for _ in range(17):
        (card,) = page.next()
        if card["reason"] == "repeat":
            break
        shown = [image["candidate"] for image in card["images"]]
        for candidate in shown[1:]:
            flag(page, card, candidate)
        flagged.add(card["group_id"])
        page.pick(card)
    assert len(flagged) == 16 and card["reason"] == "repeat" and card["group_id"] in flagged and card["flags"] == []
    assert run.history.consistency() == (0, 0)
    page.pick(card, order=[run.picks.standing()[0].pick.order[0]])
    assert run.history.consistency()[1] == 1


@pytest.mark.parametrize(
    "wrong",
    [
        *({"kind": "ugly"}, {"kind": "favourite"}, {"candidate": 3}, {"candidate": "1;"}, {"on": 1}, {"on": None}),
        *({"pick_id": "x"}, {"group_id": "000099-00000000"}, {"shown_order": [0, 2]}),
    ],
)
def test_flags_that_no_page_of_ours_sends_are_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    page = Page(*shelf_with(tmp_path, groups=1, candidates=3))
    (card,) = page.next()
    given = {"pick_id": uuid.uuid4().hex, "group_id": card["group_id"], "candidate": 1, "kind": "unsafe", "on": True}
    assert page.post("flag", **{**given, **wrong})[0] == 400
    assert page.run.flags.history() == []


def test_names_are_kept(tmp_path: Path) -> None:
    page = Page(*shelf_with(tmp_path))
    _, answer = page.post("rename", name="  Large   blooms ")
    assert answer["state"]["taste"]["name"] == "Large blooms"
    assert Run.open(page.run.folder).name == "Large blooms"
    assert page.post("rename", name=" ")[0] == 400


def test_a_mask_is_on_the_disk_once_and_comes_back_with_the_card(tmp_path: Path) -> None:
    page = Page(*shelf_with(tmp_path, candidates=3), who="Ada")
    (card,) = page.next()
    assert card["masks"] == []
    rows, sent = [2**32 - 1] * 32, {"pick_id": uuid.uuid4().hex, "group_id": card["group_id"], "candidate": 1}
    answers = [page.post("mask", rows=rows, **sent) for _ in range(2)]
    assert [(status, answer["new"]) for status, answer in answers] == [(200, True), (200, False)]
    assert answers[0][1]["state"]["picks"]["all"] == 0 and answers[0][1]["state"]["last"] is None
    (again,) = page.next()
    assert again == {**card, "masks": [{"candidate": 1, "rows": rows}]}
    other = Page(page.shelf, page.run, "Bob")
    assert all(one["masks"] == [] for one in other.next(2))
    for action in ("undo", "remove"):
        assert page.post(action, pick_id=sent["pick_id"])[0] == 404
    assert page.post("mask", rows=[], **{**sent, "pick_id": uuid.uuid4().hex})[0] == 200
    assert page.next()[0]["masks"] == []


@pytest.mark.parametrize("rows", [None, "ffff", [1], [-1] * 32, [2**32] * 32, [0.5] * 32, [[0]] * 32, {"0": 1}])
def test_what_is_no_mask_is_refused(tmp_path: Path, rows: object) -> None:
    page = Page(*shelf_with(tmp_path), who="Ada")
    (card,) = page.next()
    status, answer = page.post("mask", pick_id=uuid.uuid4().hex, group_id=card["group_id"], candidate=0, rows=rows)
    assert status == 400 and "rows" in answer["error"]["what"]
    assert Run.open(page.run.folder).masks.history() == []
