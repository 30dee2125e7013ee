"""Invitations: links that are stored as their hashes alone, and end at once when they are revoked or expire."""

from __future__ import annotations

import hashlib
import multiprocessing
import shutil
import sqlite3
import time
from pathlib import Path

import pytest

from d3po_core.errors import D3POError
from d3po_core.picks import Pick
from d3po_core.run import Run, invitations
from d3po_core.run.database import Database
from d3po_core.run.leases import Leases, Progress
from tests.run_helpers import make_run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return make_run(tmp_path / "run", groups=3)


def test_only_the_hash_of_a_link_is_stored(run: Run) -> None:
    token = run.invitations.create("  Ada   Lovelace ", 7)
    assert len(token) == 43  # 256 bits in 6 bits a letter
    invitation = run.invitations.find(token)
    assert invitation is not None and invitation.name == "Ada Lovelace" and invitation.state == "live"
    assert 6.99 < (invitation.expires - time.time()) / 86400 < 7.01
    run.close()
    stored = b"".join(path.read_bytes() for path in run.folder.rglob("*") if path.is_file())
    assert token.encode() not in stored and hashlib.sha256(token.encode()).hexdigest().encode() in stored


@pytest.mark.parametrize("wrong", ["", "x" * 43, "\udc80", "a\x00b", "' OR 1=1 --", "é" * 500])
def test_what_is_no_token_lets_nobody_in(run: Run, wrong: str) -> None:
    run.invitations.create("Ada", 7)
    assert run.invitations.find(wrong) is None


def test_a_link_ends_when_it_is_revoked_replaced_or_expires(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    first, ben = run.invitations.create("Ada", 7), run.invitations.create("Ben", 1)
    second = run.invitations.create("Ada", 7)
    assert run.invitations.find(first) is None and run.invitations.find(second)
    run.invitations.revoke("Ada")
    assert run.invitations.find(second) is None and run.invitations.find(ben)
    with pytest.raises(D3POError, match=r"Nobody named 'Ada' has a link that works.*These have: Ben"):
        run.invitations.revoke("Ada")
    now = time.time()
    monkeypatch.setattr(invitations.time, "time", lambda: now + 86401)
    assert run.invitations.find(ben) is None
    assert [(each.name, each.state) for each in run.invitations.all()] == [("Ben", "expired"), ("Ada", "revoked")]


def revoke(folder: Path, name: str) -> None:
    Run.open(folder).invitations.revoke(name)


def test_what_another_process_revokes_ends_at_once(run: Run) -> None:
    token = run.invitations.create("Ada", 7)
    assert run.invitations.find(token)
    process = multiprocessing.get_context("spawn").Process(target=revoke, args=(run.folder, "Ada"))
    process.start()
    process.join()
    assert run.invitations.find(token) is None


def test_that_a_person_was_here_is_noted_once_a_minute(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    token, now = run.invitations.create("Ada", 7), time.time()
    assert run.invitations.all()[0].seen is None
    seen = []
    for seconds in (0, 30, 61):
        monkeypatch.setattr(invitations.time, "time", lambda seconds=seconds: now + seconds)
        run.invitations.find(token)
        seen.append(run.invitations.all()[0].seen)
    assert seen == [now, now, now + 61]


@pytest.mark.parametrize(
    ("name", "days"), [("", 7), ("x" * 61, 7), ("a\x07", 7), ("a\u200db", 7), ("Ada", 0), ("Ada", 1e9)]
)
def test_what_cannot_be_an_invitation_is_refused(run: Run, name: str, days: float) -> None:
    with pytest.raises(D3POError, match=r"name needs|cannot work|cannot be seen"):
        run.invitations.create(name, days)
    assert run.invitations.all() == []


@pytest.mark.parametrize("other", ["ada", "ADA", "\uff21da", " Ada "])
def test_one_person_in_other_capitals_or_width_is_one_person(run: Run, other: str) -> None:
    first = run.invitations.create("Ada", 7)
    second = run.invitations.create(other, 7)
    assert run.invitations.find(first) is None and [each.name for each in run.invitations.all()] == ["Ada"]
    run.invitations.revoke(other)
    assert run.invitations.find(second) is None


@pytest.mark.parametrize("name", ["Owner", "owner"])
def test_a_name_that_picks_without_an_invitation_is_refused_unless_confirmed(run: Run, name: str) -> None:
    run.picks.add(run.groups.select()[0].id, Pick("favourite", (0,)), pick_id="a" * 32, who="Owner", shown_order=(0, 1))
    with pytest.raises(D3POError, match=r"picks of 'Owner'.*--same-person"):
        run.invitations.create(name, 7)
    assert run.invitations.all() == []
    run.invitations.create(name, 7, same_person=True)
    run.invitations.create(name, 7)  # whose earlier picks are theirs by now
    assert {each.name for each in run.invitations.all()} == {"Owner"}


EARLIER = Path(__file__).parents[1] / "data" / "earlier_run"


def test_a_run_of_before_gets_what_it_lacks_and_loses_nothing(tmp_path: Path) -> None:
    def contents(path: Path) -> dict[str, list[tuple[object, ...]]]:
        with sqlite3.connect(path) as connection:
            names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            return {name: connection.execute(f"SELECT * FROM {name}").fetchall() for name in names if name != "leases"}

    folder = shutil.copytree(EARLIER, tmp_path / "run")
    before = contents(folder / "run.sqlite3")
    run = Run.open(folder)
    assert [group.judges for group in run.groups.select()] == [1, 1, 1, 0]
    run.close()
    after = contents(folder / "run.sqlite3")
    assert after.pop("invitations") == []
    assert {**after, "groups": [row[:-1] for row in after["groups"]]} == before
    run = Run.open(folder)  # and once more, as it is now
    assert run.invitations.find(run.invitations.create("Ada", 1)) and run.leases.take("0" * 32, "Ada", 1)


def test_a_run_of_before_that_cannot_be_written_to_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(EARLIER, tmp_path / "run")
    before = (folder / "run.sqlite3").read_bytes()
    monkeypatch.setattr("d3po_core.run.database.os.access", lambda path, mode: False)
    run = Run.open(folder)
    assert [group.judges for group in run.groups.select()] == [1, 1, 1, 0]
    assert (run.picks.counts("Anna").waiting, run.leases.overlap) == (1, 1)
    assert run.leases.progress("Anna") == Progress(done=2, held=0, waiting=1)
    assert run.invitations.all() == [] and run.invitations.find("x") is None
    with pytest.raises(D3POError):
        run.leases.set_overlap(2)
    run.close()
    assert (folder / "run.sqlite3").read_bytes() == before


def test_a_run_of_before_that_is_busy_is_not_opened_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = shutil.copytree(EARLIER, tmp_path / "run")
    monkeypatch.setattr("d3po_core.run.database.BUSY_SECONDS", 0.1)
    other = sqlite3.connect(folder / "run.sqlite3", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(D3POError, match="busy"):
        Run.open(folder)
    other.execute("ROLLBACK")
    other.close()
    Run.open(folder).close()


def test_a_connection_made_before_sees_what_another_process_brought_up_to_date(tmp_path: Path) -> None:
    folder = shutil.copytree(EARLIER, tmp_path / "run")
    database = Database(folder / "run.sqlite3")
    with database.read() as connection:
        assert connection.execute("SELECT COUNT(*) FROM leases").fetchone()[0] == 0  # its own stand-in
    run = Run.open(folder)
    assert len(run.leases.take("0" * 32, "Ada", 1)) == 1
    with database.read() as connection:
        assert connection.execute("SELECT COUNT(*) FROM leases").fetchone()[0] == 1
    database.close()


def test_what_is_written_to_a_database_of_before_is_written_into_it(tmp_path: Path) -> None:
    folder = shutil.copytree(EARLIER, tmp_path / "run")
    database = Database(folder / "run.sqlite3")
    with database.write() as connection:
        connection.execute("UPDATE groups SET judges = judges")
    assert len(Leases(folder, database).take("0" * 32, "Ada", 1)) == 1
    assert len(Run.open(folder).leases.take("1" * 32, "Ben", 1)) == 0  # Ada looks at the only one
    database.close()
