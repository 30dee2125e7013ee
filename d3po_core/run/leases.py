"""Leases: which page shows which groups, so that several pages, devices and people each get different ones.

A page takes groups on lease and renews the leases while it is open. A lease that ran out frees the group for others. It
never keeps anybody from picking, so nothing is lost when a page was asleep for an hour.
"""

from __future__ import annotations

import json
import random
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass

from .database import IS_PICK, Part

LEASE_SECONDS = 120.0
"""How long a page that has gone silent keeps its groups from others."""
REPEAT_EVERY = 16
"""Number of a person's picks after which one of their earlier groups comes back, to see how consistent they are."""


@dataclass(frozen=True)
class Lease:
    """A group that a page may show.

    Attributes:
        order: candidate numbers in the order to show; those that look like another are left out.
        reason: why this group: "random" (as drawn), "repeat" (to see how consistent a person is) or "undo".
    """

    group_id: str
    order: tuple[int, ...]
    reason: str


class Leases(Part):
    """Hands out groups to pages."""

    def take(self, client: str, who: str, count: int, holding: Sequence[str] = ()) -> list[Lease]:
        """Lease groups to a page: first those it had before it was reloaded, then others, in the order drawn.

        Args:
            client: the page.
            who: the person who looks at it.
            count: how many groups; fewer are returned if there are no more.
            holding: groups that the page has already.
        """
        with self._database.write() as connection:
            _renew(connection, client)
            leases = [lease for lease in _held(connection, client) if lease.group_id not in holding][:count]
            while len(leases) < count:
                lease = _repeat(connection, who) or _next(connection)
                if lease is None:
                    break
                _grant(connection, lease, client)
                leases.append(lease)
        return leases

    def take_again(self, group_id: str, order: Sequence[int], reason: str, client: str) -> Lease:
        """Lease a group whose pick was taken back to a page, as it was shown, even if another page has it."""
        lease = Lease(group_id, tuple(order), reason)
        with self._database.write() as connection:
            _grant(connection, lease, client)
        return lease

    def renew(self, client: str) -> None:
        """Extend the leases of a page that is still open."""
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
        (lease.group_id, client, time.time() + LEASE_SECONDS, json.dumps(lease.order), lease.reason),
    )


def _next(connection: sqlite3.Connection) -> Lease | None:
    """Choose the first group drawn that nobody has picked or is shown; prompts were interleaved in drawing."""
    row = connection.execute(
        """SELECT * FROM groups WHERE judged = 0 AND showable = 1
        AND NOT EXISTS (SELECT 1 FROM leases WHERE leases.group_id = groups.id) ORDER BY number LIMIT 1"""
    ).fetchone()
    if row is None:
        return None
    duplicates = json.loads(row["near"])
    order = [candidate for candidate in range(row["candidates"]) if candidate not in duplicates]
    random.shuffle(order)
    return Lease(row["id"], tuple(order), "random")


def _repeat(connection: sqlite3.Connection, who: str) -> Lease | None:
    """Choose a group that this person picked in some time ago, sides swapped, when one is due."""
    row = connection.execute(
        f"""SELECT COUNT(*) AS picks, COALESCE(SUM(reason = 'repeat'), 0) AS repeats,
        (SELECT COUNT(*) FROM leases WHERE why = 'repeat') AS leased
        FROM picks WHERE who = ? AND undone IS NULL AND {IS_PICK}""",
        (who,),
    ).fetchone()
    if row["leased"] or row["picks"] - row["repeats"] < REPEAT_EVERY * (row["repeats"] + 1):
        return None
    earlier = connection.execute(
        f"""SELECT group_id, shown_order FROM standing WHERE who = :who AND kind = 'favourite' AND shown_order <> '[]'
        AND NOT EXISTS (SELECT 1 FROM picks AS again WHERE again.group_id = standing.group_id AND again.who = :who
            AND again.reason = 'repeat' AND again.undone IS NULL AND again.{IS_PICK})
        AND NOT EXISTS (SELECT 1 FROM leases WHERE leases.group_id = standing.group_id)
        ORDER BY serial LIMIT :half""",
        {"who": who, "half": REPEAT_EVERY // 2},
    ).fetchall()
    if not earlier:
        return None
    chosen = random.choice(earlier)
    return Lease(chosen["group_id"], tuple(reversed(json.loads(chosen["shown_order"]))), "repeat")
