"""Overlap: how many people see the same group, compared with a plain simulation that knows all picks and leases."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from d3po_core.errors import D3POError
from d3po_core.picks import Pick
from d3po_core.run import Run
from d3po_core.run import leases as module
from tests.run_helpers import make_run, put_group

PEOPLE = ("Ada", "Ben", "Cem", "Dora", "")


def pick(run: Run, group_id: str, who: str, kind: str = "favourite", reason: str = "random") -> str:
    order = (0,) if kind == "favourite" else ()
    return run.picks.add(group_id, Pick(kind, order), who=who, shown_order=(0, 1), reason=reason).pick_id  # type: ignore[arg-type]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return make_run(tmp_path / "run", groups=8)


@pytest.mark.parametrize("overlap", [1, 2, 3])
def test_every_group_is_judged_by_as_many_people_as_chosen(run: Run, overlap: int) -> None:
    run.leases.set_overlap(overlap)
    for step in itertools.cycle(range(len(PEOPLE))):
        who, client = PEOPLE[step], f"{step:032x}"
        for lease in run.leases.take(client, who, 2):
            pick(run, lease.group_id, who)
        if not any(run.leases.waiting(who) for who in PEOPLE):
            break
    judged = Counter(stored.group_id for stored in run.picks.standing())
    assert len(judged) == 8 and set(judged.values()) == {overlap}
    assert len({(stored.group_id, stored.who) for stored in run.picks.history()}) == len(run.picks.history())


def test_pages_of_one_name_are_one_person(run: Run) -> None:
    run.leases.set_overlap(3)
    pages = [{lease.group_id for lease in run.leases.take(client * 32, "Ada", 4)} for client in "ab"]
    assert len(pages[0] | pages[1]) == 8 and run.leases.take("c" * 32, "Ada", 1) == []


def test_groups_that_others_have_begun_come_first_and_not_in_one_order(run: Run) -> None:
    run.leases.set_overlap(3)
    first = [lease.group_id for lease in run.leases.take("a" * 32, "Ada", 4)]
    assert first == sorted(first)  # the order drawn, where nobody has begun any
    for group_id in first[:2]:
        pick(run, group_id, "Ada")
    orders = set()
    for n, who in enumerate(("Ben", "Cem")):
        orders.add(tuple(lease.group_id for lease in run.leases.take(f"{n:032x}", who, 4)))
    assert all(set(order) == set(first) for order in orders)
    for _ in range(30):  # of many who come and go
        orders.add(tuple(lease.group_id for lease in run.leases.take("b" * 32, "Ben", 4)))
        with run._database.write() as connection:
            connection.execute("DELETE FROM leases WHERE who = 'Ben'")
    assert len(orders) > 3


def test_a_pick_ends_ones_own_lease_and_the_last_one_everybodys(run: Run) -> None:
    run.leases.set_overlap(2)
    (group_id,) = (lease.group_id for lease in run.leases.take("a" * 32, "Ada", 1))
    assert [lease.group_id for lease in run.leases.take("b" * 32, "Ben", 1)] == [group_id]
    pick(run, group_id, "Ada")
    assert [lease.group_id for lease in run.leases.take("b" * 32, "Ben", 1)] == [group_id]  # reloaded
    pick(run, group_id, "Cem")  # whose lease had run out
    assert group_id not in [lease.group_id for lease in run.leases.take("b" * 32, "Ben", 1)]


def test_who_takes_a_pick_back_gets_the_group_again_and_others_keep_theirs(run: Run) -> None:
    run.leases.set_overlap(2)
    (group_id,) = (lease.group_id for lease in run.leases.take("a" * 32, "Ada", 1))
    run.leases.take("b" * 32, "Ben", 1)
    taken = pick(run, group_id, "Ada")
    run.picks.take_back(taken)
    run.leases.take_again(group_id, (1, 0), "undo", "c" * 32, "Ada")
    assert run.leases.take("c" * 32, "Ada", 1)[0] == module.Lease(group_id, (1, 0), "undo")
    assert [lease.group_id for lease in run.leases.take("b" * 32, "Ben", 1)] == [group_id]
    assert run.leases.take("d" * 32, "Cem", 1)[0].group_id != group_id


def test_a_page_whose_person_changes_keeps_what_the_other_has_not_judged(run: Run) -> None:
    run.leases.set_overlap(2)
    held = [lease.group_id for lease in run.leases.take("a" * 32, "Ada", 3)]
    pick(run, held[1], "Ben")
    assert [lease.group_id for lease in run.leases.take("a" * 32, "Ben", 2)] == [held[0], held[2]]
    assert set(held) - {held[1]} <= {lease.group_id for lease in run.leases.take("b" * 32, "Ada", 3)}


def test_repeats_are_each_persons_own(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REPEAT_EVERY", 4)
    run.leases.set_overlap(2)
    for who in ("Ada", "Ben"):
        for group in run.groups.select()[:4]:
            pick(run, group.id, who)
    for n, who in enumerate(("Ada", "Ben")):
        (lease,) = run.leases.take(f"{n:032x}", who, 1)
        assert lease.reason == "repeat" and lease.order == (1, 0)
        pick(run, lease.group_id, who, reason="repeat")
    assert [run.history.consistency(who) for who in ("Ada", "Ben")] == [(1, 1), (1, 1)]


@pytest.mark.parametrize("people", [0, -1, 101])
def test_an_overlap_that_cannot_be_is_refused(run: Run, people: int) -> None:
    with pytest.raises(D3POError, match="cannot see the same group"):
        run.leases.set_overlap(people)
    assert run.leases.overlap == 1


@pytest.mark.parametrize("seed", range(6))
def test_counts_are_what_a_page_would_get(tmp_path: Path, seed: int) -> None:
    """After anything that can happen: as many groups as counted are handed out, each with room for one more person."""
    rng, run = random.Random(seed), make_run(tmp_path / "run", groups=6)
    put_group(run, near=(1,))  # cannot be shown
    deeds: list[Callable[[], object]] = [
        lambda: run.leases.take(f"{rng.randrange(4):032x}", rng.choice(PEOPLE), rng.randrange(1, 4)),
        lambda: pick(run, rng.choice(run.groups.select()).id, rng.choice(PEOPLE), rng.choice(["favourite", "skipped"])),
        lambda: pick(run, rng.choice(run.groups.select()).id, rng.choice(PEOPLE)),
        lambda: (last := run.picks.last(rng.choice(PEOPLE))) and run.picks.take_back(last.pick_id),
        lambda: run.leases.set_overlap(rng.randrange(1, 4)),
        lambda: run.flags.add(rng.choice(run.groups.select()).id, 0, "unsafe", who=rng.choice(PEOPLE)),
    ]
    for _ in range(60):
        rng.choice(deeds)()
        who = rng.choice(PEOPLE)
        expected = simulated(run, who)
        counts = run.picks.counts(who)
        assert counts.waiting == run.leases.waiting(who) == len(expected)
        if run.leases.overlap == 1:
            assert counts.waiting == counts.fresh
    with run._database.write() as connection:
        connection.execute("DELETE FROM picks WHERE reason = 'repeat'")
    taken = [lease.group_id for lease in run.leases.take("e" * 32, who, 100) if lease.reason == "random"]
    assert set(taken) == set(expected)


def simulated(run: Run, who: str) -> list[str]:
    """The groups that a person can still be shown, counted one by one."""
    judges: dict[str, set[str]] = {group.id: set() for group in run.groups.select() if group.showable}
    for stored in run.picks.standing():
        judges.setdefault(stored.group_id, set()).add(stored.who)
    with run._database.read() as connection:
        leases = [(row["group_id"], row["who"]) for row in connection.execute("SELECT * FROM leases")]
    shown = []
    for group in (group for group in run.groups.select() if group.showable):
        people = judges[group.id] | {name for group_id, name in leases if group_id == group.id}
        mine = who in judges[group.id] or (group.id, who) in leases
        if not mine and len(people) < run.leases.overlap:
            shown.append(group.id)
    return shown


def test_leases_wait_for_no_disk_and_picks_do(run: Run) -> None:
    """SQLite's synchronous: 1 does not wait for the disk at each commit, 2 does."""

    def synchronous() -> int:
        with run._database.read() as connection:
            return int(connection.execute("PRAGMA synchronous").fetchone()[0])

    with run._database.write(lasting=False):
        assert synchronous() == 1
    assert synchronous() == 2
    with pytest.raises(ZeroDivisionError), run._database.write(lasting=False):
        _ = 1 / 0
    with run._database.write():
        assert synchronous() == 2


def test_a_person_cannot_take_all_groups_by_opening_pages(tmp_path: Path) -> None:
    run = make_run(tmp_path / "many", groups=40)
    taken = [len(run.leases.take(f"{page:032x}", "Ada", 8)) for page in range(10)]
    assert sum(taken) == 24 and len(run.leases.take("f" * 32, "Ben", 8)) == 8
