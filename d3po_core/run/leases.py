"""Leases: which page shows which groups, so that several pages, devices and people each get their own.

A page takes groups on lease and renews the leases while it is open. A lease that ran out frees the group for others. It
never keeps anybody from picking, so nothing is lost when a page was asleep for an hour, or when leases are.

How many people see the same group is the run's overlap, 1 unless somebody chose more. A group is shown to a person who
has not judged it, while fewer people than that have judged it or have it before their eyes. Groups that others have
begun come first, so that the overlap comes about whenever people stop. Pages of one name are one person.
"""

from __future__ import annotations

import json
import random
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import D3POError
from .database import IS_PICK, Part

LEASE_SECONDS = 120.0
"""How long a page that has gone silent keeps its groups from others."""
REPEAT_EVERY = 16
"""Number of a person's picks after which one of their earlier groups comes back, to see how consistent they are."""
MAX_LEASES = 24
"""Groups that all pages of one named person hold at most; nobody can keep a run from the others by opening pages."""
MAX_OVERLAP = 100
BEGUN = 8
"""Groups that others have begun, of which one is chosen at random: people must not all see them in one order."""


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


@dataclass(frozen=True)
class Progress:
    """How far a person is.

    Attributes:
        done: groups that they have picked in, flagged or passed on; repeats do not count.
        held: groups before their eyes.
        waiting: groups that their page would get, one after the other.
    """

    done: int
    held: int
    waiting: int

    @property
    def of(self) -> int:
        """Return how many groups there are for the person in all."""
        return self.done + self.held + self.waiting


class Leases(Part):
    """Hands out groups to pages."""

    def take(self, client: str, who: str, count: int, holding: Sequence[str] = ()) -> list[Lease]:
        """Lease groups to a page: first those it had before it was reloaded, then others, in the order drawn.

        Args:
            client: the page.
            who: the person who looks at it.
            count: how many groups; fewer are returned if there are no more, or the person holds `MAX_LEASES`.
            holding: groups that the page has already.
        """
        with self._database.write(lasting=False) as connection:
            _renew(connection, client, who)
            leases = [lease for lease in _held(connection, client, who) if lease.group_id not in holding][:count]
            while len(leases) < count and _may_hold_more(connection, who):
                lease = _repeat(connection, who) or _next(connection, who)
                if lease is None:
                    break
                _grant(connection, lease, client, who)
                leases.append(lease)
        return leases

    def take_again(self, group_id: str, order: Sequence[int], reason: str, client: str, who: str = "") -> Lease:
        """Lease a group whose pick was taken back to a page, as it was shown, even if another page has it."""
        lease = Lease(group_id, tuple(order), reason)
        with self._database.write(lasting=False) as connection:
            end_leases(connection, group_id, who)
            _grant(connection, lease, client, who)
        return lease

    def renew(self, client: str, who: str = "") -> None:
        """Extend the leases of a page that is still open."""
        with self._database.write(lasting=False) as connection:
            _renew(connection, client, who)

    def progress(self, who: str) -> Progress:
        """Count the groups that a person has judged, and those that they still can."""
        with self._database.read() as connection:
            done, held = connection.execute(
                f"""WITH said AS (SELECT group_id FROM picks
                    WHERE who = :who AND undone IS NULL AND reason <> 'repeat' AND {IS_PICK}
                    UNION SELECT group_id FROM flags WHERE who = :who)
                SELECT (SELECT COUNT(*) FROM said), (SELECT COUNT(DISTINCT group_id) FROM leases
                    WHERE who = :who AND why <> 'repeat' AND group_id NOT IN said)""",
                {"who": who},
            ).fetchone()
            return Progress(int(done), int(held), count_waiting(connection, who))

    def waiting(self, who: str) -> int:
        """Count the groups that a person's page would get, one after the other."""
        with self._database.read() as connection:
            return count_waiting(connection, who)

    @property
    def overlap(self) -> int:
        """Return how many people see the same group."""
        with self._database.read() as connection:
            return read_overlap(connection)

    def set_overlap(self, people: int) -> None:
        """Let this many people see the same group, from the next group on that somebody asks for.

        Raises:
            D3POError: it is less than 1 or more than `MAX_OVERLAP`.
        """
        if not 1 <= people <= MAX_OVERLAP:
            raise D3POError(f"{people} people cannot see the same group.", f"Choose a number from 1 to {MAX_OVERLAP}.")
        with self._database.write() as connection:
            connection.execute("INSERT OR REPLACE INTO meta VALUES ('overlap', ?)", (str(people),))


def read_overlap(connection: sqlite3.Connection) -> int:
    """Return how many people see the same group; 1 where nobody chose."""
    row = connection.execute("SELECT value FROM meta WHERE key = 'overlap'").fetchone()
    return int(row["value"]) if row else 1


def end_leases(connection: sqlite3.Connection, group_id: str, who: str) -> None:
    """End a person's leases on a group, and everybody's once as many people have judged it as are to."""
    connection.execute(
        """DELETE FROM leases WHERE group_id = :group_id AND (who = :who
        OR (SELECT judges FROM groups WHERE id = :group_id) >= :overlap)""",
        {"group_id": group_id, "who": who, "overlap": read_overlap(connection)},
    )


STANDS = "EXISTS (SELECT 1 FROM standing WHERE standing.group_id = groups.id AND standing.who = :who)"
"""Whether a person has judged a group."""
LOOKING = """(SELECT COUNT(DISTINCT leases.who) FROM leases WHERE leases.group_id = groups.id AND NOT EXISTS (
    SELECT 1 FROM standing WHERE standing.group_id = groups.id AND standing.who = leases.who))"""
"""How many people have a group before their eyes and have not judged it."""
MINE = "EXISTS (SELECT 1 FROM leases WHERE leases.group_id = groups.id AND leases.who = :who)"
"""Whether a page of a person has a group on lease."""


def count_waiting(connection: sqlite3.Connection, who: str) -> int:
    """Count the groups that a person's page would get, one after the other."""
    overlap = read_overlap(connection)
    (waiting,) = connection.execute(
        f"""SELECT (SELECT COUNT(*) FROM groups WHERE showable AND judges < :overlap) - (SELECT COUNT(*) FROM (
            SELECT groups.id FROM leases CROSS JOIN groups ON groups.id = leases.group_id
            WHERE showable AND judges < :overlap AND (leases.who = :who OR judges + {LOOKING} >= :overlap)
            UNION SELECT groups.id FROM picks CROSS JOIN groups ON groups.id = picks.group_id
            WHERE :overlap > 1 AND picks.who = :who AND undone IS NULL AND showable AND judges < :overlap AND {STANDS}))
        """,
        {"who": who, "overlap": overlap},
    ).fetchone()
    return int(waiting)


def _renew(connection: sqlite3.Connection, client: str, who: str) -> None:
    """Extend a page's leases; they are those of whoever looks at it now."""
    now = time.time()
    connection.execute("DELETE FROM leases WHERE until < ? AND client <> ?", (now, client))
    connection.execute("UPDATE leases SET until = ?, who = ? WHERE client = ?", (now + LEASE_SECONDS, who, client))


def _held(connection: sqlite3.Connection, client: str, who: str) -> list[Lease]:
    """Return a page's leases, without groups that the person who looks at it now has judged on another page."""
    rows = connection.execute(
        f"""SELECT leases.* FROM leases JOIN groups ON groups.id = group_id
        WHERE client = :client AND (why = 'repeat' OR NOT {STANDS}) ORDER BY leases.rowid""",
        {"client": client, "who": who},
    )
    return [Lease(row["group_id"], tuple(json.loads(row["shown_order"])), row["why"]) for row in rows]


def _may_hold_more(connection: sqlite3.Connection, who: str) -> bool:
    """Return whether a person may get another group; nobody in particular may be many people."""
    (held,) = connection.execute("SELECT COUNT(*) FROM leases WHERE who = ?", (who,)).fetchone()
    return not who or int(held) < MAX_LEASES


def _grant(connection: sqlite3.Connection, lease: Lease, client: str, who: str) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO leases (group_id, client, who, until, shown_order, why) VALUES (?, ?, ?, ?, ?, ?)",
        (lease.group_id, client, who, time.time() + LEASE_SECONDS, json.dumps(lease.order), lease.reason),
    )


def _next(connection: sqlite3.Connection, who: str) -> Lease | None:
    """Choose a group for a person: one that others have begun, else the first drawn; prompts were mixed in drawing."""
    overlap = read_overlap(connection)
    begun = _begun(connection, who, overlap) if overlap > 1 else []
    if begun:
        row = random.choice(begun)
    else:
        row = connection.execute(
            """SELECT * FROM groups WHERE showable = 1 AND judges = 0
            AND NOT EXISTS (SELECT 1 FROM leases WHERE leases.group_id = groups.id) ORDER BY number LIMIT 1"""
        ).fetchone()
    if row is None:
        return None
    duplicates = json.loads(row["near"])
    order = [candidate for candidate in range(row["candidates"]) if candidate not in duplicates]
    random.shuffle(order)
    return Lease(row["id"], tuple(order), "random")


def _begun(connection: sqlite3.Connection, who: str, overlap: int) -> list[sqlite3.Row]:
    """Return the first groups that others have judged or look at, and that this person may see too."""
    return connection.execute(
        f"""SELECT * FROM groups WHERE showable = 1 AND judges < :overlap
        AND (judges > 0 OR id IN (SELECT group_id FROM leases))
        AND NOT {STANDS} AND NOT {MINE} AND judges + {LOOKING} < :overlap ORDER BY number LIMIT :begun""",
        {"who": who, "overlap": overlap, "begun": BEGUN},
    ).fetchall()


def _repeat(connection: sqlite3.Connection, who: str) -> Lease | None:
    """Choose a group that this person picked in some time ago, sides swapped, when one is due."""
    row = connection.execute(
        f"""SELECT COUNT(*) AS picks, COALESCE(SUM(reason = 'repeat'), 0) AS repeats,
        (SELECT COUNT(*) FROM leases WHERE why = 'repeat' AND who = :who) AS leased
        FROM picks WHERE who = :who AND undone IS NULL AND {IS_PICK}""",
        {"who": who},
    ).fetchone()
    if row["leased"] or row["picks"] - row["repeats"] < REPEAT_EVERY * (row["repeats"] + 1):
        return None
    earlier = connection.execute(
        f"""SELECT group_id, shown_order FROM standing WHERE who = :who AND kind = 'favourite' AND shown_order <> '[]'
        AND NOT EXISTS (SELECT 1 FROM picks AS again WHERE again.group_id = standing.group_id AND again.who = :who
            AND again.reason = 'repeat' AND again.undone IS NULL AND again.{IS_PICK})
        AND NOT EXISTS (SELECT 1 FROM leases WHERE leases.group_id = standing.group_id AND leases.who = :who)
        ORDER BY serial LIMIT :half""",
        {"who": who, "half": REPEAT_EVERY // 2},
    ).fetchall()
    if not earlier:
        return None
    chosen = random.choice(earlier)
    return Lease(chosen["group_id"], tuple(reversed(json.loads(chosen["shown_order"]))), "repeat")
