"""Invitations: who may pick in this run from another computer, each by a link of their own.

A link holds 256 random bits, of which only the SHA-256 is stored, so whoever reads the database cannot make a link of
it. What is asked by a link is looked up anew each time: one that was revoked or has expired ends with the next request,
also where another process serves the run.
"""

from __future__ import annotations

import hashlib
import secrets
import sqlite3
import time
from contextlib import suppress
from dataclasses import dataclass

from ..errors import D3POError
from .database import Part, insert

MAX_NAME = 60
MAX_DAYS = 3650
SEEN_EVERY = 60.0
"""Seconds between two notes that a person was here."""
_LIVE = "revoked IS NULL AND expires > :now"
_FIELDS = "number, name, created, expires, revoked, seen"


@dataclass(frozen=True)
class Invitation:
    """One person's invitation; times in seconds since 1970.

    Attributes:
        number: counts the run's invitations.
        name: of the person, who picks under it.
        revoked: when it was revoked, or replaced by a newer one; None if it was not.
        seen: when the person was last here, to the minute; None if they never were.
    """

    number: int
    name: str
    created: float
    expires: float
    revoked: float | None
    seen: float | None

    @property
    def state(self) -> str:
        """Return "live", "expired" or "revoked"."""
        if self.revoked is not None:
            return "revoked"
        return "live" if time.time() < self.expires else "expired"


class Invitations(Part):
    """Keeps invitations."""

    def create(self, name: str, days: float) -> str:
        """Invite a person, and return the secret part of their link. An earlier link of the same name is revoked.

        Args:
            name: of the person, in one line.
            days: for which the link works.

        Raises:
            D3POError: the name is empty or too long, the days are none or too many, or the disk is full.
        """
        name, token, now = _checked(name), new_token(), time.time()
        if not 0 < days <= MAX_DAYS:
            raise D3POError(f"A link cannot work for {days:g} days.", f"Choose more than 0 and at most {MAX_DAYS}.")
        row = {"name": name, "token_hash": _hash(token), "created": now, "expires": now + days * 86400}
        with self._database.write() as connection:
            _revoke(connection, "name = :name", {"name": name})
            insert(connection, "invitations", row)
        return token

    def revoke(self, name: str) -> None:
        """End a person's invitation, with whatever they have open.

        Raises:
            D3POError: nobody of this name has one that still works.
        """
        name = " ".join(name.split())
        with self._database.write() as connection:
            revoked = _revoke(connection, f"name = :name AND {_LIVE}", {"name": name})
        if not revoked:
            names = [each.name for each in self.all() if each.state == "live"]
            raise D3POError(
                f"Nobody named '{name}' has a link that works.",
                f"These have: {', '.join(names)}." if names else "Nobody has, so there is nothing to revoke.",
            )

    def all(self) -> list[Invitation]:
        """Return each person's latest invitation, in the order in which they were made."""
        with self._database.read() as connection:
            rows = connection.execute(
                f"""SELECT {_FIELDS} FROM invitations
                WHERE number IN (SELECT MAX(number) FROM invitations GROUP BY name) ORDER BY number"""
            ).fetchall()
        return [Invitation(**dict(row)) for row in rows]

    def find(self, token: str) -> Invitation | None:
        """Return the invitation whose link holds a token; None if there is none, or it is revoked or has expired.

        It does the same whatever the token is. That the person was here is noted once a minute.
        """
        values: dict[str, object] = {"hash": _hash(token), "now": time.time()}
        with self._database.read() as connection:
            row = connection.execute(f"SELECT {_FIELDS} FROM invitations WHERE token_hash = :hash AND {_LIVE}", values)
            found = [Invitation(**dict(each)) for each in row]
        if not found:
            return None
        if (found[0].seen or 0.0) + SEEN_EVERY < time.time():
            with suppress(D3POError), self._database.write(lasting=False) as connection:  # who may not write may look
                connection.execute("UPDATE invitations SET seen = ? WHERE number = ?", (time.time(), found[0].number))
        return found[0]

    @property
    def address(self) -> str:
        """Return where the run was last served to others, as links begin; empty if it never was."""
        with self._database.read() as connection:
            row = connection.execute("SELECT value FROM meta WHERE key = 'address'").fetchone()
        return str(row["value"]) if row else ""

    def note_address(self, address: str) -> None:
        """Note where the run is served to others, for the links that are made meanwhile."""
        with self._database.write() as connection:
            connection.execute("INSERT OR REPLACE INTO meta VALUES ('address', ?)", (address,))


def new_token() -> str:
    """Return the secret part of a link: 256 random bits as letters that addresses may hold."""
    return secrets.token_urlsafe(32)


def _checked(name: str) -> str:
    """Return a name in one line.

    Raises:
        D3POError: it is empty or too long, or holds what no name does.
    """
    name = " ".join(name.split())
    if not 0 < len(name) <= MAX_NAME or not name.isprintable():
        raise D3POError(f"A name needs 1 to {MAX_NAME} letters, in one line.", "Choose another one.")
    return name


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode(errors="surrogatepass")).hexdigest()


def _revoke(connection: sqlite3.Connection, which: str, values: dict[str, object]) -> int:
    """Revoke the invitations that a condition names, and return how many there were."""
    query = f"UPDATE invitations SET revoked = :now WHERE revoked IS NULL AND {which}"
    return connection.execute(query, {**values, "now": time.time()}).rowcount
