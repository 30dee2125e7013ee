"""What no page of ours sends: malformed, hostile and cross-site requests change nothing and reach nothing else."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from d3po_core.gallery import Actions, Request, handle
from d3po_core.gallery.requests import GETS, IMAGES, MAX_BYTES, POSTS
from d3po_core.run.run import RunLibrary
from tests.gallery.asking import Page, shelf_with

REQUESTS = int(os.environ.get("D3PO_BAD_REQUESTS", "1000"))
"""The full measure is 10,000; `D3PO_BAD_REQUESTS=10000 pytest tests/gallery/test_gallery_requests.py` sends it."""

NAMES = (
    *("client", "who", "group_id", "kind", "order", "shown_order", "decision_ms", "reason", "pick_id"),
    *("want", "holding", "offset", "limit"),
    *("round", "text", "by", "form", "name", "check", "index", "side", "decision", "strength", "groups"),
)
WORDS = ("favourite", "ranking", "jsonl", "d3po", "../../etc/passwd", "\x00", "%2e%2e/", "a" * 300, "\ud800", "repeat")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """A taste with picks, a check and a strip, beside a file that nobody may read."""
    folder = tmp_path_factory.mktemp("shelf")
    (folder / "secret.png").write_bytes(b"secret")
    page = Page(*shelf_with(folder, groups=6))
    for card in page.next(3):
        page.pick(card)
    from tests.run_helpers import picture

    page.run.blind_checks.add(1, ["a"], [picture(0, 0)], [picture(0, 1)])
    page.run.previews.save(1, ["a"], {"before": [picture(0, 0)], "after": [picture(0, 1)]})
    return page


def everything(page: Page) -> tuple[Any, ...]:
    """What must stay as it is."""
    run = page.run
    files = {path: path.stat().st_size for path in run.folder.rglob("*") if not path.name.startswith("run.sqlite3")}
    return run.picks.history(), run.name, run.groups.select(), run.rounds.all(), run.blind_checks.last(), files


known_ids = st.sampled_from(["taste", "pick", "group", "check", "client"])
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-2, 9),
    st.floats(allow_nan=True, allow_infinity=True),
    st.text(max_size=20),
    st.sampled_from(WORDS),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=9) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=9,
)


@st.composite
def bad_requests(draw: st.DrawFn, page: Page) -> tuple[str, str, bytes, dict[str, str], dict[str, str]]:
    """Addresses, bodies and headers around what is right, with at least one thing that no page sends."""
    method = draw(st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD", "PATCH"]))
    taste = draw(st.sampled_from([page.run.run_id, "0" * 32, "..", "", "%00"]) | st.text(max_size=40))
    name = draw(st.sampled_from([*GETS, *POSTS, *IMAGES, "image/../../secret.png"]) | st.text(max_size=30))
    tail = draw(
        st.lists(
            st.sampled_from(["0", "1", "..", "secret.png", "-1", "999999999999", "٣"]) | st.text(max_size=9), max_size=3
        )
    )
    path = "/".join(["taste", taste, name, *tail])
    body = draw(
        st.binary(max_size=40)
        | st.dictionaries(st.sampled_from(NAMES), values, max_size=8).map(
            lambda v: json.dumps(v).encode("utf-8", "surrogatepass")
        )
        | st.just(b"[" * 100_000)
    )
    query = draw(st.dictionaries(st.sampled_from(NAMES), st.sampled_from(WORDS) | st.text(max_size=20), max_size=4))
    headers = draw(
        st.fixed_dictionaries(
            {"host": st.just("localhost:7860")},
            optional={
                "content-type": st.sampled_from(
                    ["application/json", "text/plain", "application/x-www-form-urlencoded"]
                ),
                "origin": st.sampled_from(["http://localhost:7860", "https://evil.example", "null", "http://[", ""]),
                "sec-fetch-site": st.sampled_from(["same-origin", "cross-site", "same-site", "none", "?"]),
            },
        )
    )
    return method, path, body, query, headers


@settings(max_examples=REQUESTS, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(data=st.data())
def test_bad_requests_are_answered_and_change_nothing(page: Page, data: st.DataObject) -> None:
    method, path, body, query, headers = data.draw(bad_requests(page))
    before = everything(page)
    response = handle(page.shelf, Actions(), Request(method, path, query, headers, body))
    assert response.status < 500
    if response.status != 200:
        assert isinstance(response.body, bytes) and json.loads(response.body)["error"]["what"]
    if isinstance(response.body, Path):
        assert response.body.suffix == ".png" and response.body.resolve().is_relative_to(page.run.folder.resolve())
    else:
        assert b"secret" not in response.body.replace(b"secret.png", b"")
    right = method == "POST" and response.status == 200 and path.endswith(("next", "rename"))  # these need little
    assert right or everything(page) == before


GOOD = {"content-type": "application/json", "host": "localhost:7860"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({**GOOD, "origin": "https://evil.example"}, 403),
        ({**GOOD, "origin": "null"}, 403),
        ({**GOOD, "origin": "http://localhost:7861"}, 403),
        ({**GOOD, "sec-fetch-site": "cross-site"}, 403),
        ({**GOOD, "sec-fetch-site": "same-site"}, 403),
        ({**GOOD, "content-type": "text/plain"}, 415),
        ({**GOOD, "content-type": "application/x-www-form-urlencoded"}, 415),
        ({**GOOD, "content-type": "multipart/form-data; boundary=x"}, 415),
        ({"host": "localhost:7860"}, 415),
        ({**GOOD, "origin": "http://localhost:7860", "sec-fetch-site": "same-origin"}, 200),
        ({**GOOD, "origin": "https://localhost:7860"}, 200),  # behind a proxy that speaks TLS
    ],
)
def test_other_sites_cannot_pick(tmp_path: Path, headers: dict[str, str], status: int) -> None:
    page = Page(*shelf_with(tmp_path))
    (card,) = page.next()
    body = {"pick_id": uuid.uuid4().hex, "group_id": card["group_id"], "kind": "tie", "reason": "random"}
    path = f"taste/{page.run.run_id}/pick"
    response = handle(page.shelf, Actions(), Request("POST", path, {}, headers, json.dumps(body).encode()))
    assert response.status == status
    assert len(page.run.picks.standing()) == (status == 200)


def test_other_sites_cannot_look(tmp_path: Path) -> None:
    page = Page(*shelf_with(tmp_path))
    url = page.next()[0]["images"][0]["url"]
    assert page.send("GET", url).status == 200
    assert page.send("GET", url, sec_fetch_site="cross-site").status == 403
    assert page.send("GET", url).headers["Cross-Origin-Resource-Policy"] == "same-origin"


def test_a_long_request_is_refused(tmp_path: Path) -> None:
    page = Page(*shelf_with(tmp_path))
    body = json.dumps({"client": page.client, "want": 1, "who": "", "x": "y" * MAX_BYTES}).encode()
    path = f"taste/{page.run.run_id}/next"
    assert page.send("POST", path, body, content_type="application/json").status == 413


def test_hostile_words_come_back_as_they_are(tmp_path: Path) -> None:
    hostile = "<img src=x onerror=alert(1)> \"'; DROP TABLE picks; --"
    shelf, run = shelf_with(tmp_path, groups=0)
    from tests.run_helpers import put_group

    put_group(run, prompt_id=run.prompts.add(hostile))
    page = Page(shelf, run, hostile[:80])
    (card,) = page.next()
    assert card["prompt"] == hostile
    page.pick(card)
    assert [pick.who for pick in run.picks.standing()] == [" ".join(hostile[:80].split())]
    page.post("rename", name=hostile)
    assert page.get("state")[1]["taste"]["name"] == hostile


def test_a_damaged_taste_does_not_hide_the_others(tmp_path: Path) -> None:
    _, run = shelf_with(tmp_path)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "run.sqlite3").write_bytes(b"no database")
    response = handle(RunLibrary(tmp_path), Actions(), Request("GET", "tastes"))
    assert isinstance(response.body, bytes)
    assert [taste["id"] for taste in json.loads(response.body)["tastes"]] == [run.run_id]


def test_a_full_disk_is_told_and_the_page_may_try_again(tmp_path: Path) -> None:
    page = Page(*shelf_with(tmp_path))
    (card,) = page.next()
    with page.run._database.read() as connection:
        connection.execute(f"PRAGMA max_page_count = {connection.execute('PRAGMA page_count').fetchone()[0]}")
    statuses = set()
    for _ in range(400):
        body = {"pick_id": uuid.uuid4().hex, "group_id": card["group_id"], "kind": "tie", "reason": "random"}
        status, answer = page.post("pick", **body)
        statuses.add(status)
        if status != 200:
            assert "full" in answer["error"]["what"]
            break
    assert 503 in statuses
