"""Which groups are before whose eyes, so that several pages, devices and people each get different ones.

A page takes groups on lease and renews them while it is open. A lease that ran out frees the group for others; it never
keeps anybody from picking, so nothing is lost when a page was asleep for an hour.
"""

from __future__ import annotations

import json
import random
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass

from .part import Part

LEASE_SECONDS = 120.0
"""How long a page that has gone silent keeps its groups from others."""
REPEAT_EVERY = 16
"""After so many picks of a person one of their earlier groups comes back, to see how consistent they are."""


@dataclass(frozen=True)
class Lease:
    """A group that a page may show.

    Attributes:
        order: candidate numbers in the order to show; those that look like another are left out.
        why: why this group: "random" (as drawn), "repeat" (to see how consistent a person is) or "undo".
    """

    group_id: str
    order: tuple[int, ...]
    why: str


class Leases(Part):
    """The part of a run that hands out groups."""

    def take(self, client: str, who: str, want: int, holding: Sequence[str] = ()) -> list[Lease]:
        """Groups for a page: those it had before (it was reloaded), then others, in the order drawn.

        Args:
            client: the page.
            who: the person before it.
            want: how many.
            holding: groups that the page has already.
        """
        with self._database.write() as connection:
            _renew(connection, client)
            found = [lease for lease in _held(connection, client) if lease.group_id not in holding][:want]
            while len(found) < want:
                lease = _repeat(connection, who) or _next(connection)
                if lease is None:
                    break
                _grant(connection, lease, client)
                found.append(lease)
        return found

    def take_again(self, group_id: str, order: Sequence[int], why: str, client: str) -> Lease:
        """A group whose pick was taken back, as it was shown, for the page that asks, whoever else has it."""
        lease = Lease(group_id, tuple(order), why)
        with self._database.write() as connection:
            _grant(connection, lease, client)
        return lease

    def renew(self, client: str) -> None:
        """A page is still there."""
        with self._database.write() as connection:
            _renew(connection, client)


def _renew(connection: sqlite3.Connection, client: str) -> None:
    now = time.time()
    connection.execute("DELETE FROM leases WHERE until < ? AND client <> ?", (now, client))
    connection.execute("UPDATE leases SET until = ? WHERE client = ?", (now + LEASE_SECONDS, client))


def _held(connection: sqlite3.Connection, client: str) -> list[Lease]:
    rows = connection.execute("SELECT * FROM leases WHERE client = ? ORDER BY rowid", (client,))
    return [Lease(row["group_id"], tuple(json.loads(row["shown_order"])), row["why"]) for row in rows]


def _grant(connection: sqlite3.Connection, lease: Lease, client: str) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO leases (group_id, client, until, shown_order, why) VALUES (?, ?, ?, ?, ?)",
        (lease.group_id, client, time.time() + LEASE_SECONDS, json.dumps(lease.order), lease.why),
    )


def _next(connection: sqlite3.Connection) -> Lease | None:
    """The first group drawn that nobody has picked or has before them; prompts were interleaved in drawing."""
    row = connection.execute(
        """SELECT * FROM groups WHERE judged = 0 AND showable = 1
        AND NOT EXISTS (SELECT 1 FROM leases WHERE leases.group_id = groups.id) ORDER BY number LIMIT 1"""
    ).fetchone()
    if row is None:
        return None
    left_out = json.loads(row["near"])
    order = [candidate for candidate in range(row["candidates"]) if candidate not in left_out]
    random.shuffle(order)
    return Lease(row["id"], tuple(order), "random")


def _repeat(connection: sqlite3.Connection, who: str) -> Lease | None:
    """A group that this person judged some time ago, sides swapped, when it is time for one."""
    row = connection.execute(
        """SELECT COUNT(*) AS picks, COALESCE(SUM(reason = 'repeat'), 0) AS repeats,
        (SELECT COUNT(*) FROM leases WHERE why = 'repeat') AS before
        FROM picks WHERE who = ? AND undone IS NULL AND kind NOT IN ('defective', 'unsafe')""",
        (who,),
    ).fetchone()
    if row["before"] or row["picks"] - row["repeats"] < REPEAT_EVERY * (row["repeats"] + 1):
        return None
    old = connection.execute(
        """SELECT group_id, shown_order FROM standing WHERE who = :who AND kind = 'favourite' AND shown_order <> '[]'
        AND NOT EXISTS (SELECT 1 FROM picks AS again WHERE again.group_id = standing.group_id AND again.who = :who
            AND again.reason = 'repeat' AND again.undone IS NULL AND again.kind NOT IN ('defective', 'unsafe'))
        AND NOT EXISTS (SELECT 1 FROM leases WHERE leases.group_id = standing.group_id)
        ORDER BY serial LIMIT :half""",
        {"who": who, "half": REPEAT_EVERY // 2},
    ).fetchall()
    if not old:
        return None
    chosen = random.choice(old)
    return Lease(chosen["group_id"], tuple(reversed(json.loads(chosen["shown_order"]))), "repeat")
