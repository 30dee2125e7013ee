"""Who is let in by a link, what it leaves in a browser, and what guests and owners may do then."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from http.cookies import SimpleCookie
from pathlib import Path
from urllib.parse import urljoin

import pytest

from d3po_core.errors import D3POError
from d3po_core.gallery import Actions
from d3po_core.gallery.serving import ByLink, GuestServer, bind, own_address
from d3po_core.run import Run
from tests.run_helpers import make_run
from tests.serving.served import Guest, Served

pytest.importorskip("uvicorn", reason="uvicorn comes with the standalone extra")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_run(tmp_path / "taste", groups=6).close()
    return tmp_path / "taste"


@pytest.fixture
def served(folder: Path) -> Iterator[Served]:
    found = Served(folder)
    yield found
    found.stop()


@pytest.mark.parametrize(
    ("url", "path", "secure"),
    [
        ("http://192.168.1.5:7869/", "/", False),
        ("https://pick.example.org/", "/", True),
        ("https://example.org/our/pictures/", "/our/pictures/", True),
    ],
)
def test_a_link_leaves_a_cookie_and_leads_to_the_page(folder: Path, url: str, path: str, secure: bool) -> None:
    served = Served(folder, url=url)
    token = served.run.invitations.create("Ada", 2)
    answer = served.ask("GET", f"/join/{token}", X_Forwarded_Proto="http" if secure else "https")
    served.stop()
    assert answer.status == 303 and answer.body == b"" and answer.headers["referrer-policy"] == "no-referrer"
    assert urljoin(f"{url}join/{token}", answer.headers["location"]) == url
    (cookie,) = SimpleCookie(answer.headers["set-cookie"]).values()
    assert cookie.key == served.cookie_name and cookie.value == token
    assert (cookie["path"], cookie["httponly"], cookie["samesite"]) == (path, True, "Lax")
    assert bool(cookie["secure"]) == secure and 172_700 < int(cookie["max-age"]) <= 172_800


def test_a_guest_picks_under_the_invitations_name(served: Served) -> None:
    ada = Guest(served, served.run.invitations.create("Ada", 7))
    page = served.ask("GET", "/", token=ada.token, accept="text/html")
    assert page.status == 200 and b' guest who="Ada"' in page.body
    for sent in ({}, {"who": "Ada"}):
        (card,) = ada.next()
        ada.pick(card, **sent)
    assert [stored.who for stored in served.run.picks.standing()] == ["Ada", "Ada"]
    assert ada.get("state").json["picks"]["yours"] == 2


@pytest.mark.parametrize("earlier", ["Ben", ""])
def test_a_page_opened_before_by_somebody_else_does_nothing_with_a_guests_cookie(served: Served, earlier: str) -> None:
    """Ben's page, or the owner's, is still open where Ada opens her link; the browser has one cookie for all."""
    ada = Guest(served, served.run.invitations.create("Ada", 7))
    (card,) = ada.next()
    answers = [ada.post("next", want=1, who=earlier), ada.pick(card, who=earlier)]
    answers.append(ada.get(f"state?who={earlier}&client={ada.client}"))
    flag = {"pick_id": uuid.uuid4().hex, "candidate": 0, "kind": "unsafe", "on": True, "group_id": card["group_id"]}
    answers.append(ada.post("flag", **flag, shown_order=[0, 1], who=earlier))
    assert [answer.status for answer in answers] == [403] * 4
    assert served.run.picks.history() == [] and served.run.flags.history() == []


def test_another_site_cannot_leave_a_links_cookie(served: Served) -> None:
    token = served.run.invitations.create("Ada", 7)
    embedded = served.ask("GET", f"/join/{token}", sec_fetch_site="cross-site", sec_fetch_mode="no-cors")
    followed = served.ask("GET", f"/join/{token}", sec_fetch_site="cross-site", sec_fetch_mode="navigate")
    assert (embedded.status, followed.status) == (403, 303)
    assert "set-cookie" not in embedded.headers and "set-cookie" in followed.headers


def test_a_link_may_end_in_a_slash_and_be_looked_at_before(served: Served) -> None:
    token = served.run.invitations.create("Ada", 7)
    looked = served.ask("HEAD", f"/join/{token}")
    assert looked.status == 303 and "set-cookie" not in looked.headers
    slash = served.ask("GET", f"/join/{token}/")
    assert slash.status == 303 and token in slash.headers["set-cookie"]
    assert urljoin(f"http://a.example/pick/join/{token}/", slash.headers["location"]) == "http://a.example/pick/"


def test_a_database_that_cannot_be_read_for_a_while_ends_no_page(served: Served) -> None:
    ada = Guest(served, served.run.invitations.create("Ada", 7))
    assert ada.get("state").status == 200
    path = served.run.folder / "run.sqlite3"
    served.run.close()
    path.rename(path.with_name("away"))
    answers = [served.ask("GET", f"{ada.base}/state", token=token) for token in (ada.token, "x" * 43)]
    assert {answer.status for answer in answers} == {503} and answers[0].body == answers[1].body
    assert str(path).encode() not in answers[0].body
    assert served.ask("GET", "/", token=ada.token, accept="text/html").status == 503
    path.with_name("away").rename(path)
    assert ada.get("state").status == 200


def test_a_name_is_written_into_the_page_as_text(served: Served) -> None:
    token = served.run.invitations.create('"><script>alert(1)</script>', 7)
    page = served.ask("GET", "/", token=token).body
    assert b"<script>alert" not in page and b"&quot;&gt;&lt;script&gt;" in page


def test_what_is_open_ends_with_the_next_request_once_a_link_is_revoked_or_replaced(served: Served) -> None:
    ada = Guest(served, served.run.invitations.create("Ada", 7))
    (card,) = ada.next()
    other = Run.open(served.run.folder)  # as another process has it
    other.invitations.create("Ada", 7)
    other.close()
    for answer in (ada.pick(card), ada.get("state"), served.ask("GET", "/web/gallery.mjs", token=ada.token)):
        assert answer.status == 403
    assert served.run.picks.history() == []


def test_an_expired_link_does_nothing(served: Served) -> None:
    ada = Guest(served, served.run.invitations.create("Ada", 0.5 / 86400))
    assert ada.get("state").status == 200
    time.sleep(0.6)
    assert ada.get("state").status == 403 == served.ask("GET", f"/join/{ada.token}").status


def test_guests_take_back_their_own_picks_and_no_others(served: Served) -> None:
    ada, ben = (Guest(served, served.run.invitations.create(name, 7)) for name in ("Ada", "Ben"))
    ids = [guest.pick(guest.next()[0]).json["pick_id"] for guest in (ada, ben)]
    for action in ("undo", "remove"):
        theirs, none = (ada.post(action, pick_id=each) for each in (ids[1], uuid.uuid4().hex))
        assert (theirs.status, theirs.body) == (none.status, none.body) == (404, none.body)
    assert len(served.run.picks.standing()) == 2
    assert ada.post("undo", pick_id=ids[0]).json["card"]["was"]["pick_id"] == ids[0]
    assert [pick.who for pick in served.run.picks.standing()] == ["Ben"]
    (item,) = ben.get("history?by=Ada").json["items"]
    assert item["who"] == "Ben"


def test_progress_is_the_guests_own(served: Served) -> None:
    served.run.leases.set_overlap(2)
    ada, ben = (Guest(served, served.run.invitations.create(name, 7)) for name in ("Ada", "Ben"))
    for n, kind in enumerate(("favourite", "tie", "skipped"), 1):
        (card,) = ada.next()
        answer = ada.pick(card, kind=kind, order=[0] if kind == "favourite" else [])
        assert (answer.json["state"]["picks"]["usable"], answer.json["state"]["picks"]["milestone"]) == (n, 6)
    assert ben.get("state").json["picks"] | {"needed": 0} == {
        **{"yours": 0, "all": 0, "usable": 0, "untaught": 0, "needed": 0, "milestone": 6, "previous": 0}
    }
    assert len(ben.next(6)) == 6


def test_the_owners_link_may_do_what_owners_do_with_this_run_alone(served: Served) -> None:
    make_run(served.run.folder.parent / "another").close()
    owner = Guest(served, served.owner)
    assert served.ask("GET", "/", token=served.owner).body.count(b"guest") == 0
    assert owner.post("rename", name="Blooms").json["state"]["taste"]["name"] == "Blooms"
    assert [each["name"] for each in served.ask("GET", "/tastes", token=served.owner).json["tastes"]] == ["Blooms"]
    cross = served.ask("POST", f"{owner.base}/rename", {"name": "x"}, served.owner, sec_fetch_site="cross-site")
    assert cross.status == 403 and served.run.name == "Blooms"
    again = Served(served.run.folder)  # another process's: that link is not valid there
    assert again.ask("GET", "/", token=served.owner).status == 403
    again.stop()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"host": "evil.example"}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"sec_fetch_site": "cross-site"}, 403),
        ({"sec_fetch_site": "same-site"}, 403),
        ({"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"}, 403),
    ],
)
def test_without_invitations_the_page_on_this_computer_alone_is_answered(
    folder: Path, headers: dict[str, str], status: int
) -> None:
    served = Served(folder, by_link=False)
    answer = served.ask("GET", f"/taste/{served.run.run_id}/state", **headers)
    token = served.run.invitations.create("Ada", 7)
    joined = served.ask("GET", f"/join/{token}")
    served.stop()
    assert answer.status == status and joined.status == 403
    assert (b"revision" in answer.body) == (status == 200)


def test_following_a_link_opens_the_owners_page(folder: Path) -> None:
    served = Served(folder, by_link=False)
    answer = served.ask("GET", "/", sec_fetch_site="cross-site", sec_fetch_mode="navigate")
    embedded = served.ask("GET", "/", sec_fetch_site="cross-site", sec_fetch_mode="no-cors")
    served.stop()
    assert (answer.status, embedded.status) == (200, 403) and b" guest" not in answer.body
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]


def test_what_goes_wrong_on_the_disk_is_said_to_guests_without_paths(served: Served) -> None:
    ada = Guest(served, served.run.invitations.create("Ada", 7))
    (card,) = ada.next()
    for file in (served.run.folder / "groups").rglob("0.png"):
        file.unlink()
    answer = served.ask("GET", f"{ada.base}/image/{card['group_id']}/0", token=ada.token)
    assert answer.status == 400 and str(served.run.folder).encode() not in answer.body


def test_a_program_serves_guests_from_a_thread_until_it_stops(folder: Path) -> None:
    run = Run.open(folder)
    server = GuestServer(run, Actions(), "127.0.0.1", 0)
    assert run.invitations.address == server.address
    port = int(server.address.rsplit(":", 1)[1].rstrip("/"))
    with pytest.raises(OSError, match="in use"):
        GuestServer(run, Actions(), "127.0.0.1", port)
    server.stop()
    bind("127.0.0.1", port).close()
    run.close()


def test_an_address_that_others_can_use_is_named() -> None:
    assert own_address("127.0.0.1", 7869) == "http://127.0.0.1:7869/"
    assert own_address("fe80::1", 80) == "http://[fe80::1]:80/"
    assert "0.0.0.0" not in own_address("0.0.0.0", 7869)


def test_a_run_whose_database_is_gone_lets_nobody_in(folder: Path) -> None:
    run = Run.open(folder)
    token = run.invitations.create("Ada", 7)
    door = ByLink(run, "http://a.example/", "")
    assert door.by_link(token) and door.by_link("") is None
    run.close()
    (folder / "run.sqlite3").unlink()
    with pytest.raises(D3POError, match="is gone"):
        door.by_link(token)
